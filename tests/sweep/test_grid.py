"""A grid of settings as single trainings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiserobust.errors import InvalidValueError
from noiserobust.sweep.grid import applied, expand, label_of


def test_a_mapping_is_a_product_and_a_list_a_union():
    grid = [{"method.name": "sgd"}, {"method": {"name": "rwp", "noise.level": [0.1, 0.2]}, "model": ["a", "b"]}]
    assert expand(grid) == [
        {"method.name": "sgd"},
        {"method.name": "rwp", "method.noise.level": 0.1, "model": "a"},
        {"method.name": "rwp", "method.noise.level": 0.1, "model": "b"},
        {"method.name": "rwp", "method.noise.level": 0.2, "model": "a"},
        {"method.name": "rwp", "method.noise.level": 0.2, "model": "b"},
    ]


def test_an_empty_grid_is_one_point():
    assert expand({}) == [{}]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_product_has_each_combination_once(sizes):
    points = expand({f"a{i}": list(range(n)) for i, n in enumerate(sizes)})
    number = 1
    for n in sizes:
        number *= n
    assert len(points) == number == len({tuple(p.values()) for p in points})


def test_a_mapping_in_a_list_replaces_the_whole_group():
    base = {"method": {"name": "rwp", "schedule": {"name": "linear", "fraction": 0.5}}}
    (point,) = expand({"method.schedule": [{"name": "constant"}]})
    assert applied(base, point) == {"method": {"name": "rwp", "schedule": {"name": "constant"}}}
    assert base["method"]["schedule"]["fraction"] == 0.5  # the base is left alone


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("rwp", "`grid` to be settings"),
        ([["rwp"]], "`grid` to be settings"),
        ({"method.rho": []}, "`method.rho` of `grid` to have alternatives"),
        ({1: [2]}, "names as keys"),
        ({"": [2]}, "names as keys"),
        ([], "a point at least"),
        ({"method.noise.level": [0.1], "method": [{"name": "rwp"}]}, "'method.noise.level' and 'method'"),
        ({"method": {"name": "rwp"}, "method.name": ["sam"]}, "'method.name' and 'method.name'"),
    ],
)
def test_what_is_no_grid_is_refused(grid, said):
    with pytest.raises(InvalidValueError, match=said):
        expand(grid)


def test_dotted_names_of_the_base_are_those_of_its_groups():
    base = {"optimizer.lr": 0.01, "optimizer": {"name": "sgd", "lr": 0.1}}
    assert applied(base, {"optimizer.momentum": 0.5}) == {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.5}}


def test_a_key_through_a_value_is_refused():
    with pytest.raises(InvalidValueError, match="`model` to have settings of its own"):
        applied({"model": "mlp"}, {"model.depth": 3})


@pytest.mark.parametrize(
    ("point", "label"),
    [
        ({"method.name": "sam", "method.rho": 0.2}, "sam 0.2"),
        ({"model": "resnet20"}, "sgd resnet20"),
        ({"method.name": "rwp", "method.schedule": {"name": "quadratic", "fraction": 0.7}}, "rwp quadratic 0.7"),
        ({"method": {"name": "rwp", "noise": {"level": 0.1}}}, "rwp 0.1"),
        ({"method.name": "rwp", "method.level_range": [0, 0.2]}, "rwp level_range=0-0.2"),
        ({}, "sgd"),
    ],
)
def test_labels_say_what_sets_apart(point, label):
    assert label_of(point, "sgd") == label
