"""The tables of the READMEs are what is recorded, and verdicts follow from the draws."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from test_record import EXPERIMENTS, load

from noiserobust.cli.sweep import read
from noiserobust.errors import InvalidValueError
from noiserobust.noise.registry import build_noise
from noiserobust.report.gather import gather
from noiserobust.results.files import read_json
from noiserobust.results.schema import DRAW_COLUMNS, MANIFEST_FILE

recorded, verdicts = load("recorded"), load("verdicts")
finding, findings = sys.modules["finding"], sys.modules["findings"]
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


def test_recorded_trainings_are_whole() -> None:
    folders = [path.parent for path in EXPERIMENTS.rglob("train/*/manifest.json")]
    assert folders
    for folder in folders:
        epochs = read_json(folder / MANIFEST_FILE)["configuration"]["epochs"]
        for file in folder.glob("seed*/metrics.csv"):
            assert pd.read_csv(file)["epoch"].tolist() == list(range(1, epochs + 1)), file


@pytest.mark.parametrize("folder", ["incorruptible/small/results", "robust/small/final", "robust/small/digits"])
def test_recorded_evaluations_are_of_the_recorded_trainings(folder: str) -> None:
    found = gather([EXPERIMENTS / folder])
    assert found.trainings
    assert found.strangers == ()


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
    finding._accuracies.cache_clear()
    monkeypatch.setattr(finding, "_draws", lambda folder: draws(values))
    yield values
    finding._accuracies.cache_clear()


def judged(difference: object) -> dict[str, object]:
    return verdicts.judged(finding.Finding("(x)", "a claim", "a − b", difference))


def ahead(a: object, b: object, level: float) -> object:
    return finding.ahead("folder", a, b, level)


def test_a_difference_is_paired_by_train_seed(planted) -> None:
    row = judged(ahead("a", "b", 0.1))
    by_seed = np.array([61.0 - 52.0, 62.0 - 53.0])
    assert (row["difference"], row["n_seeds"]) == (by_seed.mean(), 2)
    assert judged(finding.Minus(ahead("a", "b", 0.1)))["difference"] == -row["difference"]


def test_a_difference_of_differences_is_what_it_is_called(planted) -> None:
    row = judged(ahead("a", "b", 0.1) - ahead("a", "b", 0.0))
    by_seed = np.array([9.0 - (70 - 72), 9.0 - (71 - 70)])
    assert row["difference"] == pytest.approx(by_seed.mean())
    error = by_seed.std(ddof=1) / 2**0.5
    quantile = 12.706204736  # of Student's t, 97.5%, one degree of freedom
    assert (row["low"], row["high"]) == pytest.approx(
        (by_seed.mean() - quantile * error, by_seed.mean() + quantile * error)
    )
    assert verdicts.verdict(row) == "open"


def test_of_several_methods_the_best_counts(planted) -> None:
    best = judged(ahead(["b", "a"], "b", 0.1))
    assert best["difference"] == judged(ahead("a", "b", 0.1))["difference"]


def test_the_best_of_one_level_is_compared_at_another(planted) -> None:
    planted["b", 0, 0.0] = [73.0]  # without noise b is best, with noise a is
    planted["c", 0, 0.0], planted["c", 1, 0.0] = [10.0], [10.0]
    planted["c", 0, 0.1], planted["c", 1, 0.1] = [90.0, 90.0], [20.0, 20.0]
    found = finding.StillBest("folder", ("a", "b", "c"), 0.0, 0.1).values()
    # The best of the others is a where c has 20 in the other train seed, and c where it has 90.
    assert {s: v.tolist() for s, v in found.items()} == {0: [50.0 - 60, 54.0 - 62], 1: [52.0 - 20, 54.0 - 20]}


def test_one_train_seed_decides_nothing(planted) -> None:
    row = judged(ahead("a", "c", 0.1))
    assert (row["n_seeds"], verdicts.verdict(row)) == (1, "open")
    assert np.isnan([row["low"], row["high"], row["p"]]).all()


def rows(*findings: object) -> pd.DataFrame:
    return verdicts.verdicts([finding.Finding(name, "a claim", "said", d, m) for name, d, m in findings])


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "supported"), (-30.0, "contradicted"), (-9.0, "open")])
def test_a_verdict_is_where_the_interval_lies(planted, shift: float, verdict: str) -> None:
    for key in [k for k in planted if k[0] == "a"]:
        planted[key] = [v + shift + 0.01 * key[1] for v in planted[key]]
    assert rows(("x", ahead("a", "b", 0.1), 0.0))["verdict"].tolist() == [verdict]


def test_as_good_as_is_up_to_a_margin(planted) -> None:
    planted["a", 0, 0.1], planted["a", 1, 0.1] = [51.9, 51.9], [52.91, 52.91]  # 0.1 and 0.09 below b
    difference = ahead("a", "b", 0.1)
    assert rows(("x", difference, 0.0))["verdict"].tolist() == ["contradicted"]
    (row,) = rows(("x", difference, 0.5)).to_dict("records")
    assert row["verdict"] == "supported"
    assert row["difference"] == pytest.approx(-0.095)
    assert row["low"] < row["difference"] < row["high"] < 0


def test_p_is_after_holm_over_what_measures_one_finding(planted) -> None:
    planted["a", 0, 0.1] = [60.5, 63.0]
    one = ahead("a", "b", 0.1)
    p = judged(one)["p"]
    assert 0.01 < p < 0.05
    both = rows(("x", one, 0.0), ("x", finding.Minus(one), 0.0), ("y", one, 0.0))
    assert both["p"].tolist() == pytest.approx([min(2 * p, 1), min(2 * p, 1), p])
    assert both["verdict"].tolist() == ["leans for", "leans against", "supported"]


def test_a_method_that_is_not_recorded_is_named(planted) -> None:
    with pytest.raises(InvalidValueError, match=r"Expected d to be recorded in folder at gaussian 0\.1"):
        judged(ahead("a", ["b", "d"], 0.1))


def trainings(folder: Path, curves: dict[str, list[list[float]]]) -> None:
    """Write trainings as they are recorded, with held-out accuracy under noise by epoch."""
    for name, seeds in curves.items():
        (folder / "f/train" / name).mkdir(parents=True)
        (folder / "f/train" / name / "manifest.json").write_text(f'{{"configuration": {{"label": "{name}"}}}}')
        for seed, curve in enumerate(seeds):
            epochs = range(1, len(curve) + 1)
            rows = pd.DataFrame({"epoch": epochs, "steps": epochs, "held_out_perturbed_accuracy": curve})
            rows = rows.assign(train_loss=1.0, held_out_accuracy=60.0, best=True, seconds=1.0)
            (folder / "f/train" / name / f"seed{seed}").mkdir()
            rows.to_csv(folder / "f/train" / name / f"seed{seed}/metrics.csv", index=False)


def test_a_fall_is_from_early_epochs_to_late_ones(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(finding, "HERE", tmp_path)
    curves = {"sgd": [[30, 90, 50, 45, 39, 41], [30, 40, 56, 57, 46, 42]], "rwp": [[1, 2, 10, 20, 30, 40]] * 2}
    trainings(tmp_path, curves)
    found = finding.Fall("f", "sgd", (2, 3), (5, 6)).values()
    assert {seed: value.item() for seed, value in found.items()} == {0: 70 - 40, 1: 48 - 44}
    assert judged(finding.Fall("f", "rwp", (2, 3), (5, 6)))["difference"] == 6 - 35
    with pytest.raises(InvalidValueError, match="Expected sam to be recorded in f, but it is not"):
        finding.Fall("f", "sam", (2, 3), (5, 6)).values()


GRIDS = {
    "incorruptible/small/results": [
        f"incorruptible/small/{g}" for g in ("table1", "table2", "table3", "table8", "table9", "readings")
    ],
    "incorruptible/small/last": [f"incorruptible/small/table{n}" for n in (1, 2, 3)],
    "incorruptible/small/depths": ["incorruptible/small/table5"],
    "incorruptible/small/widths": ["incorruptible/small/table6"],
    "rwp/small/results": ["rwp/small/tables"],
    **{f"rwp/small/corrupted/evaluate/severity-{n}": ["rwp/small/corrupted"] for n in range(6)},
    "marwp/small/results": ["marwp/small/ablation"],
    "was/small/results": ["was/small/digits"],
    "robust/small/ablation": ["robust/small/ablation"],
    "robust/small/final": ["robust/small/final"],
    "robust/small/final-last": ["robust/small/final"],
    "robust/small/digits": ["robust/small/digits"],
    "robust/small/parts": ["robust/small/parts"],
}
"""Which grids are recorded where."""
BESIDE = {"robust/small/final": "aihwkit, ideal converters", "robust/small/parts": "distilled"}
"""What is recorded beside a grid, by scripts."""
OF_NO_GRID = ("gpu-hours", "gains-digits")


@cache
def of_grids(folder: str) -> pd.DataFrame:
    """Return draws of all methods, train seeds, noises, levels and metrics that the grids of a folder have."""
    found = []
    for grid in GRIDS[folder]:
        sweep = read(EXPERIMENTS / f"{grid}.yaml")
        for job, evaluation in product(sweep.jobs.values(), sweep.evaluations.values()):
            noise = build_noise(evaluation.noise)
            name = noise.name + (f"+{evaluation.calibrate}-calibration" if evaluation.calibrate else "")
            levels = [0.0 if level == "clean" else noise.parse_level(level) for level in evaluation.levels]
            for level, metric in product(levels, evaluation.metrics):
                where = {"method": job.method, "train_seed": job.seed, "weights": job.name, "n_examples": 100}
                where |= {"noise": name, "level_name": noise.level_name, "level": level}
                found += [where | {"metric": metric, "draw": k} for k in range(1 if level == 0 else 3)]
    if folder in BESIDE:
        found += [row | {"method": BESIDE[folder]} for row in found if row["method"] == found[0]["method"]]
    draws = pd.DataFrame(found).drop_duplicates()
    values = np.random.default_rng(0).uniform(20, 60, len(draws))
    return draws.assign(value=np.where(draws["metric"] == "accuracy", values, 1e6)).reindex(columns=list(DRAW_COLUMNS))


@pytest.fixture
def all_grids(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What it would be if all grids had been recorded."""
    caches = (recorded.summary, finding._draws, finding._accuracies)
    for cached in caches:
        cached.cache_clear()

    def gathered(folders: list[Path]) -> SimpleNamespace:
        return SimpleNamespace(draws=pd.concat([of_grids(f.relative_to(EXPERIMENTS).as_posix()) for f in folders]))

    for module in (finding, recorded):
        monkeypatch.setattr(module, "gather", gathered)
    monkeypatch.chdir(EXPERIMENTS.parent)
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("paper", list(findings.PAPERS))
def test_every_finding_is_of_what_its_grids_evaluate(paper: str, all_grids) -> None:
    measured = [said for said in findings.PAPERS[paper] if said.name != "(f)"]  # of trainings, not of draws
    found = verdicts.verdicts(measured)
    assert found["difference"].abs().max() < 200  # and not of a loss
    assert len(verdicts.markdown(found)) == len(measured) + 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in recorded.TABLES if n not in OF_NO_GRID and "verdicts" not in n])
def test_every_table_is_of_what_its_grids_evaluate(name: str, all_grids) -> None:
    lines = recorded.TABLES[name]()
    numbers = [float(n) for line in lines[2:] for n in re.findall(r"\d+\.\d+", line)]
    assert max(numbers) < 100


@pytest.mark.slow
def test_the_file_of_verdicts_is_of_what_is_recorded(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(verdicts, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["verdicts.py"])
    verdicts.main()
    assert (tmp_path / "verdicts.csv").read_bytes() == (EXPERIMENTS / "verdicts.csv").read_bytes()


def test_figure_1_is_of_its_grid() -> None:
    labels = {job.method for job in read(EXPERIMENTS / "incorruptible/small/figure1.yaml").jobs.values()}
    falls = [d.difference if isinstance(d, finding.Minus) else d for d in (f.difference for f in findings.FIGURE_1)]
    assert {fall.method for fall in falls} == labels


@pytest.mark.parametrize(
    ("chosen_at", "level", "expected"),
    [(0.02, 0.03, 1.55), (0.02, 0.05, 2.15), (0.0, 0.05, -2.15)],
)
def test_one_rho_is_best_in_the_papers_own_numbers(
    monkeypatch, chosen_at: float, level: float, expected: float
) -> None:
    """From level 0.02 on, as it says; without noise it has another one."""
    numbers = pd.read_csv(EXPERIMENTS / "incorruptible/published.csv").query("table == 2")
    draws = pd.concat(
        [numbers.assign(train_seed=seed, draw=0, value=numbers["mean"], metric="accuracy") for seed in (0, 1)]
    )
    finding._accuracies.cache_clear()
    monkeypatch.setattr(finding, "_draws", lambda folder: draws)
    sams = tuple(f"sam {rho}" for rho in (0.2, 0.3, 0.5, 0.8))
    found = finding.StillBest("paper", sams, chosen_at, level).values()
    finding._accuracies.cache_clear()
    assert found[0].item() == pytest.approx(expected)


def test_all_findings_of_the_main_paper_are_there() -> None:
    assert {said.name for said in findings.PAPERS["incorruptible"]} == {f"({letter})" for letter in "abcdefg"}
