"""Every grid under ``experiments/`` is one, and the papers' numbers are such."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from noiserobust.cli.sweep import read as sweep

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
GRIDS = [p for p in sorted(EXPERIMENTS.rglob("*.yaml")) if "grid" in yaml.safe_load(p.read_text(encoding="utf-8"))]


@pytest.mark.slow  # hundreds of configurations
@pytest.mark.parametrize("path", GRIDS, ids=lambda p: p.relative_to(EXPERIMENTS).as_posix())
def test_each_grid_is_valid_and_has_several_train_seeds(path: Path) -> None:
    found = sweep(path)
    assert len({job.seed for job in found.jobs.values()}) >= 2
    assert found.criteria.get("baseline") in {None, *(job.method for job in found.jobs.values())}


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["", "small/"])
def test_tables_share_trainings(scale: str) -> None:
    table = {n: set(sweep(EXPERIMENTS / f"incorruptible/{scale}table{n}.yaml").jobs) for n in (1, 2, 3, 8, 9)}
    seeds = 3
    for other, least in {1: 2, 2: 2, 8: 2, 9: 1}.items():  # and SGD, which all have
        assert len(table[3] & table[other]) >= seeds * (1 + least), other


def test_published_numbers_of_a_table_are_where_the_paper_has_them() -> None:
    """Spot checks against the text: Table 1, last row; Table 4, SAM 0.5; Table 8, the best; Table 9, the last."""
    numbers = pd.read_csv(EXPERIMENTS / "incorruptible/published.csv")
    assert numbers.groupby("table").size().to_dict() == {1: 35, 2: 25, 3: 32, 4: 28, 5: 16, 6: 16, 7: 8, 8: 9, 9: 9}
    assert numbers["mean"].between(15, 85).all()

    def row(table: int, method: str, level: float, model: str = "resnet18") -> list[float]:
        found = numbers.query("table == @table and method == @method and level == @level and model == @model")
        return found[["mean", "noise_std", "seed_std"]].to_numpy().tolist()[0]

    assert row(1, "rwp 0.08", 0.07) == [61.36, 2.85, 0.9]
    assert row(4, "sam 0.5", 0.04) == [58.35, 5.19, 2.01]
    assert row(7, "sam quadratic", 0.07, "resnet50") == [45.36, 2.45, 2.67]
    assert row(8, "rwp 0.1 quadratic 45000", 0.07) == [65.57, 2.05, 0.64]
    assert row(9, "sam 1.2 quadratic 25000", 0.07) == [56.97, 1.92, 1.87]
