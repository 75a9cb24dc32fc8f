"""Tables that a spreadsheet opens without running them, and JSON of what is no number."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noiserobust.results.export import harmless, to_csv, to_records

START = ["=", "+", "-", "@", "\t", "\r", "\n"]
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


def read(table: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(table, newline="")))


@pytest.mark.parametrize("start", START, ids=repr)
@pytest.mark.parametrize("kind", ["str", object], ids=str)
def test_a_name_that_begins_as_a_formula_is_text(start: str, kind: object) -> None:
    name = start + 'HYPERLINK("http://example.org")'
    table = pd.DataFrame({"method": pd.Series([name, "sgd", "a" + start], dtype=kind), "value": [1.0, -2.0, 3.0]})
    found = read(to_csv(table))
    assert found == [["method", "value"], ["'" + name, "1.0"], ["sgd", "-2.0"], ["a" + start, "3.0"]]
    assert list(table["method"]) == [name, "sgd", "a" + start]  # what was given is as it was


@given(st.lists(text, min_size=1, max_size=5))
def test_no_cell_begins_as_a_formula_and_all_can_be_told(names: list[str]) -> None:
    cells = [line[0] for line in read(to_csv(pd.DataFrame({"name": names, "n": range(len(names))})))[1:]]
    assert not any(cell.startswith(tuple(START)) for cell in cells)
    for cell, name in zip(cells, names, strict=True):
        assert cell == ("'" + name if name.startswith(tuple(START)) else name)


def test_numbers_stay_numbers_also_when_negative_infinite_or_missing() -> None:
    table = pd.DataFrame(
        {"a": [-1.5, math.inf, -math.inf, math.nan], "b": [-1, 2, 3, 4], "c": [True, False, True, True]}
    )
    again = pd.read_csv(io.StringIO(to_csv(table)))
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("value", [None, 3, -2.5, math.nan, True], ids=repr)
def test_what_is_no_text_is_left_alone(value: object) -> None:
    assert harmless(value) is value


def test_records_are_json_that_every_program_reads() -> None:
    table = pd.DataFrame(
        {
            "method": ["=sgd", "sam", "ü"],
            "value": [math.nan, math.inf, -math.inf],
            "n": np.array([1, 2, 3], dtype=np.int64),
            "small": np.array([0.5, np.nan, np.inf], dtype=np.float32),
            "mixed": [np.float64("inf"), np.int32(4), None],
            "good": [True, False, True],
        }
    )
    found = json.loads(json.dumps(to_records(table), allow_nan=False))
    assert found == [
        {"method": "=sgd", "value": None, "n": 1, "small": 0.5, "mixed": "inf", "good": True},
        {"method": "sam", "value": "inf", "n": 2, "small": None, "mixed": 4, "good": False},
        {"method": "ü", "value": "-inf", "n": 3, "small": "inf", "mixed": None, "good": True},
    ]
    assert to_records(table.iloc[:0]) == []


@given(st.lists(st.floats(), min_size=1, max_size=6))
def test_every_number_comes_back(values: list[float]) -> None:
    records = json.loads(json.dumps(to_records(pd.DataFrame({"v": values})), allow_nan=False))
    again = [math.nan if r["v"] is None else float(r["v"]) for r in records]
    np.testing.assert_array_equal(again, values)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"], ids=repr)
def test_a_line_end_within_a_name_begins_no_line_with_a_formula(end: str) -> None:
    name = f"sgd{end}=1+1"
    assert read(to_csv(pd.DataFrame({"method": [name], "value": [-1.0]}))) == [["method", "value"], [name, "-1.0"]]
