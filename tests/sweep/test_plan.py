"""What a sweep's file says is to be done."""

import numpy as np
import pytest
from sweeps import GRID, read, written

from noiserobust.errors import InvalidValueError, MissingFileError, NoiseRobustError


def test_jobs_are_points_by_seeds(tmp_path):
    sweep = read(written(tmp_path / "grid.yaml"))
    assert [job.title for job in sweep.jobs.values()] == [
        f"{label}, seed {seed}" for label in ("sgd", "rwp 0.1", "rwp 0.2") for seed in (0, 1)
    ]
    assert sweep.name == "grid"
    assert [job.config.method.noise.level for job in sweep.jobs.values()] == [None, None, 0.1, 0.1, 0.2, 0.2]


@pytest.mark.slow
def test_a_job_keeps_its_name_in_another_grid_and_under_other_evaluations(tmp_path):
    one = read(written(tmp_path / "one.yaml"))
    other = read(
        written(
            tmp_path / "other.yaml",
            grid={"method": {"name": "rwp", "noise": {"level": [0.2, 0.4]}}},
            seeds=[1, 7],
            evaluate={"noise": "laplace", "levels": [0.1]},
        )
    )
    shared = set(one.jobs) & set(other.jobs)
    assert [one.jobs[name].title for name in shared] == ["rwp 0.2, seed 1"]
    assert list(other.evaluations) == ["laplace"]  # one alone is called after its noise


@pytest.mark.parametrize(
    "change", [{"epochs": 3}, {"optimizer": {"lr": 0.06}}, {"seed": 1}, {"select": {"draws": 2}}], ids=str
)
@pytest.mark.slow
def test_any_other_setting_is_another_job(tmp_path, change):
    one, other = (read(written(tmp_path / "g.yaml", base=GRID["base"] | more)) for more in ({}, change))
    assert not set(one.jobs) & set(other.jobs)


@pytest.mark.slow
def test_an_edited_file_is_another_job(tmp_path):
    network = tmp_path / "net.py"
    names = []
    for hidden in (8, 16):
        network.write_text(
            f"from noiserobust import build_model\ndef net(): return build_model('digits-mlp', {{'hidden': {hidden}}})"
        )
        names.append(set(read(written(tmp_path / "g.yaml", base=GRID["base"] | {"model": f"{network}:net"})).jobs))
    assert not names[0] & names[1]


@pytest.mark.slow
def test_edited_data_are_another_job(tmp_path):
    names = []
    for value in (0, 1):
        np.savez(tmp_path / "d.npz", x=np.full((2, 4), value, np.float32), y=np.array([0, 1]))
        names.append(
            set(read(written(tmp_path / "g.yaml", base=GRID["base"] | {"data": f"npz:{tmp_path}/d.npz"})).jobs)
        )
    assert not names[0] & names[1]


def test_points_that_mean_the_same_are_one(tmp_path):
    grid = [{"method.name": "rwp", "method.noise.level": [0.1]}, {"method": {"name": "rwp", "noise": {"level": 0.1}}}]
    assert len(read(written(tmp_path / "g.yaml", grid=grid, seeds=[0])).jobs) == 1


def test_different_trainings_of_one_label_are_refused(tmp_path):
    base = GRID["base"] | {"label": "mine"}
    with pytest.raises(InvalidValueError, match="two are called 'mine'"):
        read(written(tmp_path / "g.yaml", base=base))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate": None}, "`evaluate` of .* to be settings of an evaluation"),
        ({"evaluate": {"gaussian": {"noise": "gaussian", "levls": [0]}}}, "'levls'"),
        ({"evaluate": {"gaussian": {"levels": [0]}}}, "noise"),
        ({"evaluate": {"g": [1]}}, "`evaluate.g` of .* to be settings"),
        ({"grids": []}, "'grids'; did you mean 'grid'"),
        ({"seeds": [0, 0]}, "`seeds` to be distinct"),
        ({"seeds": [-1]}, "`seeds` to be an integer >= 0"),
        ({"seeds": []}, "`seeds` to be distinct"),
        ({"name": "../there"}, "`name` of .* to be the name of a folder"),
        ({"name": "jobs"}, "`name` of .* to be the name of a folder"),
        ({"base": [1]}, "`base` of .* to be settings"),
        ({"base": {"data": "digits"}}, "model"),
        ({"base": GRID["base"] | {"label": "#1"}}, "`label` to be text that means something"),
        ({"base": GRID["base"] | {"normalize": "~"}}, "`normalize` to be text that means something"),
        ({"grid": {"method.nme": ["rwp"]}}, "'method.nme'|nme"),
        ({"grid": {"method": {"name": "sgd", "rho": 0.1}}}, "`method.rho` .*sgd.* 0.1"),
        ({"grid": {"epochs": ["many"]}}, "`epochs` to be of type int"),
        ({"evaluate": {"noise": "gaussian", "levels": [0], "precision": "fp61"}}, r"`precision` to be one of"),
        ({"evaluate": {"noise": "gaussian", "levels": [0], "split": "valid"}}, r"`split` to be one of"),
        ({"evaluate": {"noise": "gaussian", "levels": [0], "draws": 0}}, r"`draws` to be an integer >= 1"),
        ({"evaluate": {"noise": "gaussian", "levels": [0], "calibrate": "foo"}}, r"`calibrate` to be one of"),
        ({"evaluate": {"noise": "gaussian", "levels": [0], "reads": "x"}}, r"`reads` to be one of"),
        ({"evaluate": {"noise": "gaussian", "levels": [0], "until": 0}}, r"`until` to be a finite number > 0"),
        ({"grid": {"optimizer.name": "adamw", "optimizer.momentum": [0.3]}}, r"`optimizer.momentum` .* sgd only"),
        ({"report": {"spek": 3}}, "'spek'; did you mean 'spec'"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, changes, said):
    with pytest.raises(NoiseRobustError, match=said):
        read(written(tmp_path / "grid.yaml", **changes))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.yaml"):
        read(tmp_path / "none.yaml")
    sweep = read(written(tmp_path / "g.yaml", evaluate={"noise": "none.yaml", "levels": [0]}))
    with pytest.raises(MissingFileError, match=r"none\.yaml"):
        _ = sweep.evaluations["none.yaml"].sha256
