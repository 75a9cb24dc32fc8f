"""Which folders are read, and when they are refused."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest
from report_folders import make_folder, make_rows

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.report import write_report
from noiserobust.report.compare import compare_folders
from noiserobust.report.gather import gather, kind_of


def rows_of(method="SGD", seeds=(0,), levels=(0.0, 0.1), draws=2):
    return list(make_rows([method], seeds, "gaussian", "sigma", levels, draws))


def test_a_parent_is_searched(tmp_path):
    make_folder(tmp_path / "a" / "deep", rows_of("SGD"))
    make_folder(tmp_path / "b", rows_of("SAM"), finish=False)
    make_folder(tmp_path / ".hidden", rows_of("RWP"))
    gathered = gather([tmp_path])
    assert [s.folder for s in gathered.sources] == [tmp_path / "a" / "deep", tmp_path / "b"]
    assert gathered.methods == ("SGD", "SAM")


def test_an_interrupted_run_counts_with_its_torn_line_dropped(tmp_path):
    folder = make_folder(tmp_path / "a", rows_of(), finish=False)
    journal = folder / ".draws.journal.csv"
    journal.write_bytes(journal.read_bytes()[:-4])
    assert len(gather([folder]).draws) == len(rows_of()) - 1


def test_the_same_folder_twice_and_the_same_rows_in_two_folders_count_once(tmp_path):
    a = make_folder(tmp_path / "a", rows_of(seeds=(0, 1)))
    b = make_folder(tmp_path / "b", rows_of(seeds=(1, 2)))
    gathered = gather([a, a, b, tmp_path])
    assert len(gathered.sources) == 2
    alone = pd.DataFrame(rows_of(seeds=(0, 1, 2)))
    assert len(gathered.draws) == len(alone)
    assert gathered.draws["value"].sum() == pytest.approx(alone["value"].sum())


@pytest.mark.parametrize("change", [{"value": 12.5}, {"n_examples": 99}])
def test_contradictory_draws_are_refused_naming_both_folders(tmp_path, change):
    a = make_folder(tmp_path / "a", rows_of())
    other = rows_of()
    other[1] = {**other[1], **change}
    b = make_folder(tmp_path / "b", other)
    with pytest.raises(InvalidValueError, match=r"^Expected .* but got ") as error:
        gather([a, b])
    assert str(a) in str(error.value)
    assert str(b) in str(error.value)


def on(split, **more):
    """Return a configuration that names the split of the data."""
    return {"data": {"name": "cifar10", "sha256": split or "d", **({"split": split} if split else {}), **more}}


@pytest.mark.parametrize("method", ["SGD", "SAM"])
def test_evaluations_of_both_splits_are_refused_naming_folders_and_splits(tmp_path, method):
    a = make_folder(tmp_path / "a", rows_of("SGD"))
    b = make_folder(tmp_path / "b", rows_of(method), configuration=on("train"))
    for join in (gather, partial(compare_folders, apart=True)):
        with pytest.raises(InvalidValueError, match=r"^Expected evaluations of one split .* but got ") as error:
            join([a, b])
        assert f"'test' in {a}" in str(error.value)
        assert f"'train' in {b}" in str(error.value)


def test_a_split_is_test_unless_the_manifest_says_otherwise(tmp_path):
    a = make_folder(tmp_path / "a", rows_of("SGD"), configuration=on("test"))
    b = make_folder(tmp_path / "b", rows_of("SAM"))
    assert gather([a, b]).split == "test"
    c = make_folder(tmp_path / "c", rows_of("RWP"), configuration=on("train"))
    (b / "manifest.json").unlink()  # then it is not known
    gathered = gather([b, c])
    assert (gathered.split, gathered.data) == ("train", "training")


def test_a_folder_without_results_is_refused(tmp_path):
    make_folder(tmp_path / "good", rows_of())
    (tmp_path / "empty").mkdir()
    for bad in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(MissingFileError, match=r"^Expected .* to be a result folder .*, but there is none$"):
            gather([tmp_path / "good", bad])


def test_a_run_without_a_finished_draw_is_refused_alone_and_told_beside_others(tmp_path):
    make_folder(tmp_path / "started", [], finish=False)
    with pytest.raises(MissingFileError, match="no draw is finished"):
        gather([tmp_path / "started"])
    make_folder(tmp_path / "good", rows_of())
    assert len(gather([tmp_path]).sources) == 2


def test_a_missing_manifest_is_tolerated(tmp_path):
    folder = make_folder(tmp_path / "a", rows_of())
    (folder / "manifest.json").unlink()
    assert gather([folder]).sources[0].manifest is None


@pytest.mark.parametrize("text", ["[1]", "{", "null"])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    folder = make_folder(tmp_path / "a", rows_of())
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InvalidValueError, match=r"manifest\.json"):
        gather([folder])


@pytest.mark.parametrize("change", [{"value": float("nan")}, {"value": float("inf")}, {"level": -0.1}])
def test_numbers_that_are_none_are_refused(tmp_path, change):
    rows = rows_of()
    rows[-1] = {**rows[-1], **change}
    folder = make_folder(tmp_path / "a", rows, finish=False, configuration={"levels": []})
    with pytest.raises(InvalidValueError, match="finite values and levels >= 0"):
        gather([folder])


def test_no_folders_at_all_are_refused():
    with pytest.raises(InvalidValueError, match="at least one"):
        gather([])


@pytest.mark.parametrize("kind", ["landscape", "filters"])
def test_a_landscape_is_no_evaluation_although_it_has_draws(tmp_path, kind):
    make_folder(tmp_path / "good", rows_of())
    other = make_folder(tmp_path / "around", rows_of("SAM"))
    make_folder(other / "inside", rows_of("RWP"))
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"evaluation"', f'"{kind}"'))
    assert kind_of(other) == kind
    assert gather([tmp_path]).methods == ("SGD",)
    with pytest.raises(MissingFileError, match="to hold an evaluation beside"):
        gather([other])
    with pytest.raises(InvalidValueError, match="results of its own"):
        write_report([tmp_path / "good"], other)


def test_draws_with_the_manifest_of_somebody_else_are_an_evaluation(tmp_path):
    folder = make_folder(tmp_path / "a", rows_of())
    (folder / "manifest.json").write_text('{"kind": "cargo"}')
    assert kind_of(folder) == "evaluation"
