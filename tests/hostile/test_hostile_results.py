"""Results of strangers: damaged tables and manifests are refused by name, and nothing outside is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from noiserobust.cli import main
from noiserobust.errors import InvalidValueError, NoiseRobustError, OutputError
from noiserobust.results.diagnostics import DIAGNOSTICS_DTYPES, read_diagnostics
from noiserobust.results.files import read_json, write_atomic
from noiserobust.results.merge import merge_folders
from noiserobust.results.schema import DRAW_COLUMNS
from noiserobust.results.store import DrawStore, as_frame, known, read_rows
from noiserobust.results.summary import summarize
from noiserobust.results.tabular import read_table
from noiserobust.results.trainings import read_trainings

DTYPES = {"name": "str", "count": "int64", "value": "float64"}
CONFIGURATION: dict[str, Any] = {"weights": [{"file": "a"}], "levels": [0.1], "draws": 2, "metrics": ["accuracy"]}


def row(draw: int, **changes: Any) -> dict[str, Any]:
    named = {"method": "sgd", "train_seed": 0, "weights": "a", "noise": "gaussian", "level_name": "sigma", "level": 0.1}
    return {**named, "draw": draw, "metric": "accuracy", "value": 50.0 + draw, "n_examples": 10, **changes}


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "results"
    with DrawStore(folder, CONFIGURATION, {}) as store:
        for draw in range(2):
            store.append(row(draw))
        store.finish(summarize(as_frame(store.rows)))
    return folder


def table(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no header"),
        ("name,count\na,1\n", "the columns name, count"),
        ("name,count,value,more\na,1,2,3\n", "the columns name, count, value, more"),
        ("name,count,value\na,1,2,3\n", "4 cells in line 2, and 3 names"),
        ("name,count,value\n\na,1,2\n", "0 cells in line 2"),
        ("name,count,value\na,1\n", "2 cells in line 2"),
        ('name,count,value\n"a,1,2\n', "unexpected end of data"),
        ("name,count,value\na,1.5,2\n", "no integer in count"),
        ("name,count,value\na,nan,2\n", "no integer in count"),
        ("name,count,value\na,inf,2\n", "no integer in count"),
        (f"name,count,value\na,{'9' * 30},2\n", "int"),
        (f"name,count,value\na,{'9' * 5000},2\n", ""),
        ("name,count,value\na,1,\n", "no number in value"),
        ("name,count,value\na,1,x\n", "could not convert"),
        ("name,name,value\na,1,2\n", "two columns of one name"),
        (b"name,count,value\n\xff,1,2\n", "can't decode"),
        ("name,count,value\na\x00,1,2\n", "the code 0"),
        ("name,count,value\n" + "x" * 200_000 + ",1,2\n", "field larger than field limit"),
        ("name,count,value\n'" + "x" * 200_000 + ",1,2\n", "field larger than field limit"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", "/"),
)
def test_a_table_is_whole_or_refused(tmp_path, content, said):
    with pytest.raises(InvalidValueError, match="to hold a test, but got") as caught:
        read_table(table(tmp_path, content), DTYPES, "a test")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_tables_as_other_programs_write_them_are_read(tmp_path):
    wanted = pd.DataFrame({"name": ["007", "NA, x"], "count": [1, 2], "value": [0.1, np.inf]})
    for content in (
        '\ufeffname,count,value\r\n007,1.0,0.1\r\n"NA, x",2,inf\r\n',
        'name,count,value\n"007",+1,1e-1\n"NA, x",2,inf',
    ):
        pd.testing.assert_frame_equal(read_table(table(tmp_path, content), DTYPES, "a test"), wanted, check_dtype=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("[" * 65 + "]" * 65, "more than 64 deep"),
        ("[" * 100_000, "recursion"),
        (f'{{"a": {"9" * 5000}}}', "4300 digits"),
        ('{"a": "\x00"}', "the code 0"),
        ('{"a": 1', "Expecting"),
        ("", "Expecting value"),
        (b"\xff\xfe", "can't decode"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_json_is_what_we_write_or_refused(tmp_path, text, said):
    path = tmp_path / "m.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidValueError, match=r"Expected .*m\.json to hold JSON, but got") as caught:
        read_json(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"train_seed": 2**63},
        {"draw": "9" * 5000},
        {"level": "nan"},
        {"level": "inf"},
        {"n_examples": 0},
        {"n_examples": "1e3"},
        {"value": "high"},
    ],
    ids=lambda c: str(c)[:30],
)
def test_a_draw_that_cannot_be_is_refused_and_one_of_the_journal_made_again(results, changes):
    line = ",".join(str({**row(2), **changes}[c]) for c in DRAW_COLUMNS) + "\n"
    text = (results / "draws.csv").read_text()
    (results / "draws.csv").write_text(text + line)
    with pytest.raises(InvalidValueError, match=r"Expected line 4 of .*draws\.csv to be a row of draws"):
        list(read_rows(results))
    (results / "draws.csv").write_text(text)
    (results / ".draws.journal.csv").write_text(line)
    assert len(list(read_rows(results))) == 2


def test_names_with_line_ends_stay_names(tmp_path):
    """A carriage return that is not quoted ended the line: a finished evaluation could not be read again."""
    names = ["a\rb", "\r", "\n", "\r\n", '"', ",", "a\tb"]
    for end in (False, True):
        folder = tmp_path / str(end)
        with DrawStore(folder, {}, {}) as store:
            for name in names:
                store.append(row(0, method=name, weights=name))
            if end:
                store.finish(summarize(as_frame(store.rows)))
        assert {r["method"] for r in read_rows(folder)} == set(names)


def test_a_table_of_diagnostics_that_is_there_twice_counts_once(tmp_path):
    values = {"method": "sgd", "train_seed": 0, "epoch": 1.0, "strength": 1.0, "split": "train", "quantity": "loss"}
    rows = [
        {**values, "step": s, "level": np.nan, "value": 1.0, "standard_error": 0.1, "n_examples": 8} for s in (1, 2)
    ]
    path = tmp_path / "diagnostics.csv"
    pd.DataFrame(rows)[list(DIAGNOSTICS_DTYPES)].to_csv(path, index=False)
    once = read_diagnostics(path)
    head, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *lines, *lines]))
    pd.testing.assert_frame_equal(read_diagnostics(path), once)
    assert len(once) == 2


def test_epochs_that_are_there_twice_are_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"kind": "training", "configuration": {}}')
    (tmp_path / "seed0").mkdir()
    head = "epoch,steps,train_loss,held_out_accuracy,held_out_perturbed_accuracy,best,seconds"
    first = "1,10,2.3,50.0,40.0,True,1.5"
    for lines in (
        [first, first],
        ["2" + first[1:], first],
        [first.replace("True", "maybe")],
        [first.replace("2.3", "inf")],
    ):
        (tmp_path / "seed0" / "metrics.csv").write_text("\n".join([head, *lines]) + "\n")
        with pytest.raises(InvalidValueError, match="to hold the epochs of a training, but got"):
            read_trainings(tmp_path)


WRONG = [None, 0, -1, 1.5, "x", [], {}, [None], [[]], {"a": 1}, True, 10**400]


def places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@pytest.mark.parametrize("read", ["merge", "continue", "compare"])
def test_a_wrong_kind_at_any_place_of_a_manifest_is_borne(tmp_path, results, read, capsys):
    path = results / "manifest.json"
    valid = path.read_text()
    tried = 0
    for number in range(len(places(json.loads(valid)))):
        for wrong in WRONG[number % 4 :: 4]:  # each with some, all with each
            content = json.loads(valid)
            inside, key = places(content)[number]
            inside[key] = wrong
            path.write_text(json.dumps(content))
            tried += 1
            if read == "compare":
                if tried % 5 == 0:
                    assert main(["compare", str(results)]) == 2  # there is one method
                continue
            with suppress(NoiseRobustError):
                if read == "merge":
                    merge_folders([results], tmp_path / f"out{tried}")
                else:
                    with DrawStore(results, CONFIGURATION, {}) as store:
                        store.remember("settled", dict)
                    known(results, "settled")
    assert tried > 30


@pytest.mark.parametrize("content", ["[]", "3", '"x"', "null", "{}"])
def test_a_manifest_that_is_none_is_refused_by_name(results, tmp_path, content):
    (results / "manifest.json").write_text(content)
    assert known(results, "settled") is None
    for read in (lambda: merge_folders([results], tmp_path / "out"), lambda: DrawStore(results, CONFIGURATION, {})):
        with pytest.raises(InvalidValueError, match=r"manifest"):
            read()
    assert not (tmp_path / "out").exists()


OUTSIDE = ["../victim.csv", "figures/../../victim.csv", "/etc/hostname", "..\\victim.csv", "figures/../victim.csv"]
OUTSIDE += [
    "victim.csv\n",
    "figures/x/../../victim.csv",
    "~/victim.csv",
    "",
    ".",
    "..",
    ".csv",
    7,
    None,
    ["victim.csv"],
]


def test_an_older_list_of_files_names_none_outside_of_its_folder(results, tmp_path):
    from noiserobust.report.write import _files_of

    out = tmp_path / "report"
    out.mkdir()
    for names in ([n] for n in OUTSIDE):
        (out / "summary.json").write_text(json.dumps({"files": names}))
        assert all(path.parent in (out, out / "figures") for path in _files_of(out))
    for listed in ({"files": {"a": 1}}, {"files": "x.csv"}, {"files": 3}, [], {}, None):
        (out / "summary.json").write_text(json.dumps(listed))
        assert all(path.parent == out for path in _files_of(out))


def test_a_report_over_such_a_list_removes_nothing_else(tmp_path, unrendered):
    folder = tmp_path / "results"
    with DrawStore(folder, CONFIGURATION, {}) as store:
        store.append(row(0))
    out = tmp_path / "report"
    (out / "figures").mkdir(parents=True)
    (tmp_path / "victim.csv").write_text("of somebody else")
    (out / "mine.txt").write_text("of somebody else")
    (out / "summary.json").write_text(json.dumps({"files": [*OUTSIDE[:8], "old.csv", "mine.txt"]}))
    (out / "old.csv").write_text("of an older report")
    assert main(["report", str(folder), "--out", str(out)]) == 0
    assert (tmp_path / "victim.csv").read_text() == (out / "mine.txt").read_text() == "of somebody else"
    assert not (out / "old.csv").exists()


@pytest.mark.parametrize("name", ["draws.csv", "manifest.json", ".draws.journal.csv"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_only_files_are_read_and_nothing_is_waited_for(results, tmp_path, name, kind):
    path = results / name
    path.unlink(missing_ok=True)
    make: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    with pytest.raises(InvalidValueError, match="to be a file, but it is a"):
        merge_folders([results], tmp_path / "out")


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="Expected to be able to write"):
        write_atomic(tmp_path / "pipe", "x")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(tmp_path / "pipe", "x")
    assert os.read(reader, 10) == b"x"
    os.close(reader)
