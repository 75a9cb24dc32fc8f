"""The tables of the READMEs are what is recorded, and verdicts follow from the draws."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_record import EXPERIMENTS, load

from noiserobust.cli.sweep import read
from noiserobust.errors import InvalidValueError
from noiserobust.results.schema import DRAW_COLUMNS

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
    assert row["verdict"] == "open"


def test_of_several_methods_the_best_counts(planted) -> None:
    best = judged(ahead(["b", "a"], "b", 0.1))
    assert best["difference"] == judged(ahead("a", "b", 0.1))["difference"]


@pytest.mark.parametrize(("at", "sign"), [(0.0, -1), (0.1, 1)])
def test_the_best_of_one_level_is_compared_at_another(planted, at: float, sign: int) -> None:
    planted["b", 0, 0.0] = [73.0]  # without noise b is best, with noise a is
    found = judged(finding.StillBest("folder", ("a", "b"), at, 0.1))
    assert found["difference"] == pytest.approx(sign * np.mean([61.0 - 52.0, 62.0 - 53.0]))


def test_one_train_seed_decides_nothing(planted) -> None:
    row = judged(ahead("a", "c", 0.1))
    assert (row["n_seeds"], row["verdict"]) == (1, "open")
    assert np.isnan([row["low"], row["high"], row["p"]]).all()


@pytest.mark.parametrize(("shift", "verdict"), [(0.0, "supported"), (-30.0, "contradicted")])
def test_a_verdict_is_where_the_interval_lies(planted, shift: float, verdict: str) -> None:
    for key in [k for k in planted if k[0] == "a"]:
        planted[key] = [v + shift + 0.01 * key[1] for v in planted[key]]
    assert judged(ahead("a", "b", 0.1))["verdict"] == verdict


def test_p_is_after_holm(planted) -> None:
    planted["a", 0, 0.1] = [60.0, 63.0]
    one = ahead("a", "b", 0.1)
    table = verdicts.verdicts([finding.Finding("(x)", "a claim", "said", d) for d in (one, finding.Minus(one))])
    assert table["p"].tolist() == pytest.approx([min(2 * judged(one)["p"], 1)] * 2)


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


def test_a_fall_is_from_the_middle_third_to_the_last(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(finding, "HERE", tmp_path)
    trainings(
        tmp_path, {"sgd": [[30, 90, 50, 45, 39, 41], [30, 40, 55, 57, 46, 42]], "rwp": [[1, 2, 10, 20, 30, 40]] * 2}
    )
    falls = {0: 47.5 - 40, 1: 56 - 44}
    assert {seed: value.item() for seed, value in finding.Fall("f", "sgd").values().items()} == falls
    assert judged(finding.Fall("f", "sgd"))["difference"] == pytest.approx((7.5 + 12) / 2)
    assert judged(finding.Fall("f", "sgd", "rwp"))["difference"] == pytest.approx((7.5 + 12) / 2 + 20)
    with pytest.raises(InvalidValueError, match="Expected trainings of sam to be recorded in f, but got none"):
        finding.Fall("f", "sam").values()


def asked(difference: object) -> set[str]:
    """Return the methods of a difference."""
    if isinstance(difference, finding.Sum):
        return {method for part in difference.parts for method in part.methods}
    if isinstance(difference, finding.Minus):
        return asked(difference.difference)
    if isinstance(difference, finding.StillBest):
        return set(difference.methods)
    return {difference.method, difference.other or difference.method}


@pytest.mark.parametrize(
    ("paper", "grids"),
    {
        "incorruptible": [
            f"incorruptible/small/{name}" for name in ("table1", "table2", "table3", "table8", "table9", "figure1")
        ],
        "rwp": ["rwp/small/tables"],
        "marwp": ["marwp/small/ablation"],
        "was": ["was/small/digits"],
    }.items(),
)
def test_every_finding_is_of_methods_that_its_grids_have(paper: str, grids: list[str]) -> None:
    labels = {job.method for grid in grids for job in read(EXPERIMENTS / f"{grid}.yaml").jobs.values()}
    for said in findings.PAPERS[paper]:
        assert asked(said.difference) <= labels, said


def test_all_findings_of_the_main_paper_are_there() -> None:
    assert {said.name for said in findings.INCORRUPTIBLE} == {f"({letter})" for letter in "abcdefg"}
