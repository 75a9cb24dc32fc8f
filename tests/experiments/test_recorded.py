"""The tables of the READMEs are what is recorded, and verdicts follow from the draws."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_record import EXPERIMENTS, load

from noiserobust.cli.sweep import read
from noiserobust.errors import InvalidValueError
from noiserobust.results.schema import DRAW_COLUMNS

recorded, verdicts = load("recorded"), load("verdicts")
BLOCKS = [
    pytest.param(path, match[1], marks=[pytest.mark.slow] if match[1] == "gpu-hours" else [], id=match[1])
    for path in recorded.readmes()
    for match in recorded._BLOCK.finditer(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("path", "name"), BLOCKS)
def test_a_table_of_a_readme_is_what_is_recorded(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    (block,) = re.findall(rf"<!-- table {name} -->\n.*?<!-- /table -->", path.read_text(encoding="utf-8"), re.DOTALL)
    assert recorded.rewritten(block) == block
    row = next(line for line in block.splitlines()[3:] if re.search(r"\d", line))
    digit = re.search(r"\d(?=\D*$)", row)
    wrong = row[: digit.start()] + str((int(digit[0]) + 1) % 10) + row[digit.end() :]
    assert recorded.rewritten(block.replace(row, wrong)) == block


def test_there_are_recorded_tables() -> None:
    assert {"ablation", "gpu-hours"} <= {block.id for block in BLOCKS}


def draws(values: dict[tuple[str, int, float], list[float]]) -> pd.DataFrame:
    """Return draws of methods, train seeds and levels."""
    rows = [
        {"method": m, "train_seed": s, "level": level, "draw": k, "value": v, "noise": "gaussian", "metric": "accuracy"}
        for (m, s, level), vs in values.items()
        for k, v in enumerate(vs)
    ]
    return pd.DataFrame(rows, columns=list(DRAW_COLUMNS))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int, float], list[float]]:
    values = {
        ("a", 0, 0.0): [70.0], ("a", 0, 0.1): [60.0, 62.0], ("a", 1, 0.0): [71.0], ("a", 1, 0.1): [63.0, 61.0],
        ("b", 0, 0.0): [72.0], ("b", 0, 0.1): [50.0, 54.0], ("b", 1, 0.0): [70.0], ("b", 1, 0.1): [52.0, 54.0],
        ("c", 0, 0.1): [80.0, 20.0],
    }  # fmt: skip
    verdicts._accuracies.cache_clear()
    monkeypatch.setattr(verdicts, "_draws", lambda folder: draws(values))
    yield values
    verdicts._accuracies.cache_clear()


def finding(*parts: object) -> object:
    return verdicts.Finding("(x)", "a claim", "a − b", "folder", parts)


def test_a_difference_is_paired_by_train_seed(planted) -> None:
    row = verdicts.judged(finding(*verdicts.ahead("a", "b", 0.1)))
    by_seed = np.array([61.0 - 52.0, 62.0 - 53.0])
    assert (row["difference"], row["n_seeds"]) == (by_seed.mean(), 2)
    other = verdicts.judged(finding(*verdicts.behind(verdicts.ahead("a", "b", 0.1))))
    assert other["difference"] == -row["difference"]


def test_a_difference_of_differences_is_what_it_is_called(planted) -> None:
    parts = (*verdicts.ahead("a", "b", 0.1), *verdicts.behind(verdicts.ahead("a", "b", 0.0)))
    row = verdicts.judged(finding(*parts))
    by_seed = np.array([9.0 - (70 - 72), 9.0 - (71 - 70)])
    assert row["difference"] == pytest.approx(by_seed.mean())
    error = by_seed.std(ddof=1) / 2**0.5
    quantile = 12.706204736  # of Student's t, 97.5%, one degree of freedom
    assert (row["low"], row["high"]) == pytest.approx(
        (by_seed.mean() - quantile * error, by_seed.mean() + quantile * error)
    )
    assert row["verdict"] == "open"


def test_of_several_methods_the_best_counts(planted) -> None:
    best = verdicts.judged(finding(*verdicts.ahead(["b", "a"], "b", 0.1)))
    assert best["difference"] == verdicts.judged(finding(*verdicts.ahead("a", "b", 0.1)))["difference"]


def test_one_train_seed_decides_nothing(planted) -> None:
    row = verdicts.judged(finding(*verdicts.ahead("a", "c", 0.1)))
    assert (row["n_seeds"], row["verdict"]) == (1, "open")
    assert np.isnan([row["low"], row["high"], row["p"]]).all()


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "supported"), (-30.0, "contradicted")])
def test_a_verdict_is_where_the_interval_lies(planted, shift: float, verdict: str) -> None:
    for key in [k for k in planted if k[0] == "a"]:
        planted[key] = [v + shift + 0.01 * key[1] for v in planted[key]]
    assert verdicts.judged(finding(*verdicts.ahead("a", "b", 0.1)))["verdict"] == verdict


def test_p_is_after_holm(planted) -> None:
    planted["a", 0, 0.1] = [60.0, 63.0]
    one = finding(*verdicts.ahead("a", "b", 0.1))
    table = verdicts.verdicts([one, finding(*verdicts.behind(one.parts))])
    assert table["p"].tolist() == pytest.approx([min(2 * verdicts.judged(one)["p"], 1)] * 2)


def test_a_method_that_is_not_recorded_is_named(planted) -> None:
    with pytest.raises(InvalidValueError, match=r"Expected d to be recorded in folder at gaussian 0\.1"):
        verdicts.judged(finding(*verdicts.ahead("a", ["b", "d"], 0.1)))


@pytest.mark.parametrize(("method", "sign", "expected"), [("sgd", 1, 9.5), ("rwp", -1, 21.0)])
def test_a_fall_is_from_the_middle_to_the_end(tmp_path, monkeypatch, method, sign, expected) -> None:
    curves = {"sgd": [[30, 40, 50, 45, 39, 41], [30, 40, 52, 55, 39, 42]], "rwp": [[10, 20, 20, 30, 40, 41]] * 2}
    for name, seeds in curves.items():
        (tmp_path / "f/train" / name).mkdir(parents=True)
        (tmp_path / "f/train" / name / "manifest.json").write_text(f'{{"configuration": {{"label": "{name}"}}}}')
        for seed, curve in enumerate(seeds):
            rows = pd.DataFrame({"epoch": range(1, 7), "steps": range(1, 7), "held_out_perturbed_accuracy": curve})
            rows = rows.assign(train_loss=1.0, held_out_accuracy=60.0, best=True, seconds=1.0)
            (tmp_path / "f/train" / name / f"seed{seed}").mkdir()
            rows.to_csv(tmp_path / "f/train" / name / f"seed{seed}/metrics.csv", index=False)
    monkeypatch.setattr(verdicts, "HERE", tmp_path)
    row = verdicts.judged(verdicts.Falls("(f)", "a claim", "said", "f", (), method, sign))
    assert (row["difference"], row["n_seeds"]) == (expected, 2)


def test_every_finding_is_of_methods_that_its_grids_have() -> None:
    labels = set()
    for number in (1, 2, 3, 8, 9):
        path = EXPERIMENTS / f"incorruptible/small/table{number}.yaml"
        labels |= {job.method for job in read(path).jobs.values()}
    assert {f.name for f in verdicts.FINDINGS} >= {f"({letter})" for letter in "abcdefg"}
    asked = {
        m for f in verdicts.FINDINGS for p in f.parts for m in ([p.method] if isinstance(p.method, str) else p.method)
    }
    assert asked <= labels
    assert {f.method for f in verdicts.FINDINGS if isinstance(f, verdicts.Falls)} <= labels
