"""``noiserobust report`` and ``compare``: what they write and print, and one line for whatever a user gets wrong."""

from __future__ import annotations

import io
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noiserobust.cli import main
from noiserobust.results.store import DrawStore, as_frame
from noiserobust.results.summary import summarize

LEVELS = {"gaussian": ("sigma", (0.0, 0.1, 0.2)), "pcm": ("t", (3600.0, 86400.0))}


def write_results(path: Path, methods: dict[str, float], noise: str = "gaussian", seeds=(0, 1, 2), draws=3) -> Path:
    """Write results of methods, each so many points above the first."""
    name, levels = LEVELS[noise]
    weights = [{"file": f"{m}-{s}", "method": m, "train_seed": s} for m in methods for s in seeds]
    store = DrawStore(path, {"noise": noise, "weights": weights}, {})
    for method, shift in methods.items():
        for seed in seeds:
            luck = np.random.default_rng(seed).normal(size=draws)
            for place, level in enumerate(levels):
                for draw in range(draws if level else 1):
                    store.append(
                        {
                            "method": method,
                            "train_seed": seed,
                            "weights": f"{method}-{seed}",
                            "noise": noise,
                            "level_name": name,
                            "level": level,
                            "draw": draw,
                            "metric": "accuracy",
                            "value": 90.0
                            - 5 * place
                            + 0.3 * seed
                            + (luck[draw] + shift * (1 + seed / 9) if level else 0),
                            "n_examples": 1000,
                        }
                    )
    store.close()
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    base = tmp_path_factory.mktemp("results")
    write_results(base / "g", {"sgd": 0.0, "rwp": 2.0})
    write_results(base / "p", {"sgd": 0.0, "rwp": 1.0}, "pcm")
    return base


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def refused(done: tuple[int, str, str]) -> str:
    """Return the one line with which bad input is refused."""
    status, out, err = done
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("noiserobust: error: ")
    return err


@pytest.mark.usefixtures("unrendered")
def test_report_does_what_it_is_asked_for(run, results, tmp_path):
    out = tmp_path / "report"
    criteria = ["--spec", 85, "--target", "0.1", "pcm=1h", "--drop", 2, "--baseline", "rwp"]
    status, printed, err = run("report", results, *criteria, "--out", out)
    assert (status, printed, err) == (0, f"{out / 'report.html'}\n", "")
    assert Path(printed.strip()).read_text().startswith("<!doctype html>")
    numbers = json.loads((out / "summary.json").read_text())
    said = [(n["noise"], n["target"], n["spec"], n["baseline"]) for n in numbers["noises"]]
    assert said == [("gaussian", 0.1, 85.0, "rwp"), ("pcm", 3600.0, 85.0, "rwp")]
    assert set(pd.read_csv(out / "tolerance.csv")["drop"]) == {2.0}
    assert set(pd.read_csv(out / "comparison.csv")["method"]) == {"sgd"}
    assert "of its chips reach 85%" in numbers["noises"][0]["headline"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--spec", "101"], "Expected `spec` to be a finite number >= 0 and <= 100, but got 101.0"),
        (["--spec", "high"], "spec"),
        (["--target", "0.3"], "Expected `target` to be a level that was evaluated (gaussian 0.1, 0.2; pcm 1 h, 1 d), "),
        (["--target", "gausian=0.1"], "did you mean 'gaussian'?"),
        (["--target", "pcm=0.1"], "Expected `target` to be a level that was evaluated (pcm 1 h, 1 d), but got pcm=0.1"),
        (["--drop", "0"], "Expected `drop` to be a finite number > 0"),
        (["--baseline", "sgdd"], "Expected `baseline` to be one of 'rwp', 'sgd', but got 'sgdd'; did you mean 'sgd'?"),
        (["--spce", "80"], "spce"),
    ],
)
def test_report_refuses_what_the_results_do_not_have(run, results, tmp_path, arguments, said):
    assert said in refused(run("report", results, *arguments, "--out", tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_report_refuses_what_is_not_there(run, results, tmp_path):
    assert "nowhere" in refused(run("report", tmp_path / "nowhere", "--out", tmp_path / "report"))
    assert "out" in refused(run("report", results))
    (tmp_path / "file").write_text("x")
    assert "Expected to be able to write" in refused(run("report", results / "p", "--out", tmp_path / "file"))


def test_names_with_line_breaks_are_still_one_line(run, tmp_path):
    folder = write_results(tmp_path / "a", {"sgd\nnoiserobust: fine": 0.0, "rwp": 1.0})
    refused(run("report", folder, "--baseline", "x\ny", "--out", tmp_path / "report"))
    refused(run("compare", folder, "--baseline", "x\ny"))


@pytest.mark.parametrize("kind", ["text", "markdown", "latex", "csv", "json"])
def test_compare_prints_or_writes_the_same(run, results, tmp_path, kind):
    status, printed, err = run("compare", results, "--format", kind)
    assert (status, err) == (0, "")
    file = tmp_path / "comparison"
    assert run("compare", results, "--format", kind, "--out", file) == (0, f"{file}\n", "")
    assert file.read_text() == printed
    assert printed.endswith("\n")
    if kind == "csv":
        found = pd.read_csv(io.StringIO(printed))
    elif kind == "json":
        found = pd.DataFrame(json.loads(printed))
    else:
        assert "rwp" in printed
        assert printed.count("Holm over methods") == 2
        return
    at = found.set_index(["noise", "level"])["difference"]
    assert set(found["baseline"]) == {"sgd"}
    assert at["gaussian", 0.0] == 0
    assert at["gaussian", 0.2] == pytest.approx(2 * (1 + 1 / 9))
    assert at["pcm", 86400.0] == pytest.approx(1 + 1 / 9)


def test_compare_takes_text_by_default(run, results):
    assert run("compare", results) == run("compare", results, "--format", "text")


def test_compare_apart_and_with_another_baseline(run, tmp_path):
    one, two = (write_results(tmp_path / name, {"sgd": shift}) for name, shift in (("one", 0.0), ("two", 3.0)))
    assert "--apart" in refused(run("compare", one))
    status, printed, _ = run("compare", one, two, "--apart", "--baseline", "two", "--format", "csv")
    found = pd.read_csv(io.StringIO(printed))
    assert status == 0
    assert set(found["method"]) == {"one"}
    assert found["difference"].min() == pytest.approx(-3 * (1 + 1 / 9))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--format", "yaml"],
            "Expected `format` to be one of 'csv', 'json', 'latex', 'markdown', 'text', but got 'yaml'",
        ),
        (["--baseline", "none"], "Expected `baseline` to be one of 'rwp', 'sgd', but got 'none'"),
    ],
)
def test_compare_refuses_in_one_line(run, results, tmp_path, arguments, said):
    assert said in refused(run("compare", results, *arguments))
    assert "nowhere" in refused(run("compare", results, tmp_path / "nowhere"))


def finished(path: Path, methods: dict[str, float], **how) -> Path:
    """Write results that have their ``draws.csv``."""
    write_results(path, methods, **how)
    configuration = json.loads((path / "manifest.json").read_text())["configuration"]
    with DrawStore(path, configuration, {}) as store:
        store.finish(summarize(as_frame(store.rows)))
    return path


@pytest.mark.parametrize("name", ["draws.csv", "manifest.json", "summary.csv", "new.txt"])
def test_a_comparison_does_not_get_into_results(run, tmp_path, name):
    folder = finished(tmp_path / "g", {"sgd": 0.0, "rwp": 2.0})
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert "`out` to be a file outside of results" in refused(run("compare", folder, "--out", folder / name))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_what_is_no_file_is_written_to_and_not_replaced(run, results, tmp_path):
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    target.write_text("old")
    link.symlink_to(target)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_text)
        assert run("compare", results / "g", "--out", pipe)[0] == 0
        text = reading.result(timeout=60)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert run("compare", results / "g", "--out", link)[0] == 0
    assert link.is_symlink()
    assert target.read_text() == text
    assert "accuracy under gaussian" in text


@pytest.mark.parametrize("option", ["--out", "--spec", "--drop", "--baseline"])
def test_options_without_a_value_are_refused(run, results, option):
    said = refused(run("report", results, "--out", "somewhere", option, ""))
    assert f"Expected `{option}` to be followed by a value" in said
    assert not Path("somewhere").exists()


@pytest.mark.usefixtures("unrendered")
def test_two_levels_for_one_noise_are_refused(run, results, tmp_path):
    said = refused(run("report", results, "--target", "0.1", "0.2", "--out", tmp_path / "out"))
    assert "`target` to be one level for each noise" in said
    assert run("report", results, "--target", "0.1", "1d", "gaussian=0.2", "--out", tmp_path / "out")[0] == 0


def test_a_report_does_not_get_into_a_training(run, results, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "manifest.json").write_text('{"kind": "training", "configuration": {}}')
    assert "for the report alone" in refused(run("report", results, "--out", tmp_path / "runs"))
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["manifest.json"]


def _twice(text: str) -> str:
    last = text.rstrip("\n").rpartition("\n")[2]
    *key, _, examples = last.split(",")
    return f"{text}{','.join([*key, '1.0', examples])}\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_twice, "to have each draw once, but got"),
        (lambda text: text.rpartition(",accuracy,")[0] + ",accuracy,150.0,1000\n", "to be percentages, but got 150"),
        (lambda text: text.replace(",0.2,2,", f",0.2,{'9' * 26},"), "to be a row of draws, but got"),
    ],
    ids=["two values", "150 percent", "26 digits"],
)
def test_draws_that_cannot_be_are_refused(run, tmp_path, change, said):
    folder = finished(tmp_path / "g", {"sgd": 0.0, "rwp": 2.0})
    (folder / "draws.csv").write_text(change((folder / "draws.csv").read_text()))
    for verb in ("report", "compare"):
        assert said in refused(run(verb, folder, "--out", tmp_path / "out"))


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    "weights",
    [[{"method": ["sgd"], "train_seed": 0}], [{"method": "sgd", "train_seed": {}, "sha256": "x"}], [7], {"a": 1}, None],
    ids=str,
)
def test_a_manifest_that_says_odd_things_of_weights_is_no_obstacle(run, tmp_path, weights):
    folder = finished(tmp_path / "g", {"sgd": 0.0, "rwp": 2.0})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["configuration"] |= {"weights": weights, "draws": 10**400, "data": [1]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for verb in ("report", "compare"):
        assert run(verb, folder, "--out", tmp_path / f"{verb}-out")[0] == 0


def test_a_manifest_without_end_is_refused(run, tmp_path):
    folder = finished(tmp_path / "g", {"sgd": 0.0, "rwp": 2.0})
    (folder / "manifest.json").write_text("[" * 100_000)
    assert "to hold JSON" in refused(run("report", folder, "--out", tmp_path / "out"))


def test_compare_says_first_what_does_not_compare(run, tmp_path):
    finished(tmp_path / "a" / "sgd", {"sgd": 0.0})
    finished(tmp_path / "a" / "rwp", {"rwp": 2.0})
    manifest = json.loads((tmp_path / "a" / "rwp" / "manifest.json").read_text())
    manifest["configuration"]["seed"] = 1
    (tmp_path / "a" / "rwp" / "manifest.json").write_text(json.dumps(manifest))
    for more in ((), ("--apart",)):
        status, out, err = run("compare", tmp_path / "a" / "sgd", tmp_path / "a" / "rwp", *more)
        assert status == 0
        assert "under different settings" in err
        assert "seed" in err
        assert "note:" not in out
