"""The folder of an evaluation: continued, refused, and read back."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import row
from test_whole_files import largest_file

from noiserobust.errors import InvalidValueError, OutputError
from noiserobust.results.manifest import environment
from noiserobust.results.schema import DRAW_COLUMNS, DRAW_KEY, SAMPLED_DTYPES
from noiserobust.results.store import JOURNAL_FILE, DrawStore, ResultFolder, as_frame, read_rows
from noiserobust.results.summary import summarize

CONFIGURATION = {"noise": {"kind": "gaussian", "tile": [512, 512]}, "draws": 3, "select": None}
HEADER = ",".join(DRAW_COLUMNS)
GOOD = "sgd,0,w.pt,gaussian,sigma,0.1,0,accuracy,90.5,797"
ROWS = [row(seed, level, draw, 80 + seed + draw / 3) for seed in (1, 0) for level in (0.1, 0.05) for draw in (0, 1)]


def store_in(folder: Path, configuration: object = None) -> DrawStore:
    return DrawStore(folder, configuration or CONFIGURATION, {})


def finished(folder: Path) -> Path:
    store = store_in(folder)
    for r in ROWS:
        store.append(r)
    store.finish(summarize(as_frame(store.rows)))
    return folder


def test_draws_come_back_as_they_were_in_the_order_of_their_key(tmp_path: Path) -> None:
    draws = as_frame(read_rows(finished(tmp_path)))
    pd.testing.assert_frame_equal(draws, as_frame(ROWS))
    assert draws[DRAW_KEY].apply(tuple, axis=1).is_monotonic_increasing
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "draws.csv", "manifest.json", "summary.csv"]
    assert (tmp_path / "draws.csv").read_text().splitlines()[0] == HEADER


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\",\n;'|"), min_size=1, max_size=12)
cells = st.tuples(names, names, st.integers(0, 5), st.floats(0, 1e9), st.integers(0, 9), st.floats(0, 100))


@settings(deadline=None, max_examples=25)
@given(st.lists(cells, max_size=4, unique_by=lambda c: c[:5]))
def test_any_names_and_numbers_survive_journal_and_file(contents: list[tuple]) -> None:
    rows = [
        row(seed, level, draw, value, method=method, weights=weights)
        for method, weights, seed, level, draw, value in contents
    ]
    with tempfile.TemporaryDirectory() as name:
        with store_in(Path(name)) as store:
            for r in rows:
                store.append(r)
        with store_in(Path(name)) as store:
            assert store.rows == rows
            store.finish(summarize(as_frame(store.rows)))
        key = [*DRAW_KEY]
        again = store_in(Path(name)).rows
        assert sorted(again, key=lambda r: [r[k] for k in key]) == sorted(rows, key=lambda r: [r[k] for k in key])


def test_each_row_is_on_the_disk_when_append_returns(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for number, r in enumerate(ROWS, start=1):
        store.append(r)
        assert len(list(read_rows(tmp_path))) == number
        assert not (tmp_path / "draws.csv").exists()


def test_an_interrupted_evaluation_can_be_read_already(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for r in ROWS[:3]:
        store.append(r)
    pd.testing.assert_frame_equal(as_frame(read_rows(tmp_path)), as_frame(ROWS[:3]))


def test_every_torn_end_costs_at_most_its_own_row(tmp_path: Path) -> None:
    with store_in(tmp_path) as store:
        for r in ROWS[:2]:
            store.append(r)
    journal = tmp_path / JOURNAL_FILE
    whole = journal.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(len(whole) + 1):
        journal.write_bytes(whole[:size])
        survivors = (size >= first) + (size >= len(whole))
        with store_in(tmp_path) as reopened:
            assert reopened.rows == ROWS[:survivors]
            reopened.append(ROWS[2])
        assert list(read_rows(tmp_path)) == [*ROWS[:survivors], ROWS[2]]
        assert journal.read_bytes().startswith(whole[: first * (survivors > 0)])


def test_a_disk_that_fills_up_in_the_middle_of_a_row_costs_that_row(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.append(ROWS[0])
    size = (tmp_path / JOURNAL_FILE).stat().st_size
    with largest_file(size + 20), pytest.raises(OutputError, match="Expected to be able to write"):
        store.append(ROWS[1])
    assert store.rows == list(read_rows(tmp_path)) == ROWS[:1]
    store.append(ROWS[1])
    assert store.rows == list(read_rows(tmp_path)) == ROWS[:2]


def test_a_kill_between_draws_and_journal_counts_no_row_twice(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for r in ROWS:
        store.append(r)
    journal = (tmp_path / JOURNAL_FILE).read_bytes()
    store.finish(summarize(as_frame(store.rows)))
    (tmp_path / JOURNAL_FILE).write_bytes(journal)
    assert len(as_frame(read_rows(tmp_path))) == len(ROWS)


def test_a_damaged_line_inside_the_journal_is_left_out(tmp_path: Path) -> None:
    store_in(tmp_path)
    (tmp_path / JOURNAL_FILE).write_text(f"{GOOD}\nsgd,0,w.p\n{GOOD.replace(',0,acc', ',1,acc')}\n")
    assert [r["draw"] for r in store_in(tmp_path).rows] == [0, 1]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"draws": 4}, "draws"),
        ({"noise": {"kind": "laplace", "tile": [512, 512]}}, r"noise\.kind"),
        ({"noise": {"kind": "gaussian", "tile": [512, 256]}}, r"noise\.tile"),
        ({"extra": 1}, "extra"),
        ({"draws": 4, "select": ["a"]}, "draws, select"),
        ({"noise": "gaussian"}, "noise"),
    ],
    ids=str,
)
def test_another_configuration_is_refused_naming_what_differs(tmp_path: Path, changed: dict, named: str) -> None:
    finished(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InvalidValueError, match=f"differing: {named}$"):
        store_in(tmp_path, {**CONFIGURATION, **changed})
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_missing_key_is_another_configuration(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(InvalidValueError, match=r"differing: select$"):
        store_in(tmp_path, {k: v for k, v in CONFIGURATION.items() if k != "select"})


def test_tuples_and_key_order_make_no_difference(tmp_path: Path) -> None:
    finished(tmp_path)
    same = {"select": None, "draws": 3, "noise": {"tile": (512, 512), "kind": "gaussian"}}
    store_in(tmp_path, same)


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    ResultFolder(tmp_path, "training", CONFIGURATION, {})
    (tmp_path / "seed0").mkdir()
    (tmp_path / "seed0" / "metrics.csv").write_text("epoch\n1\n")
    with pytest.raises(InvalidValueError, match="another kind: 'training'"):
        store_in(tmp_path)


def test_a_manifest_without_any_result_binds_nobody(tmp_path: Path) -> None:
    ResultFolder(tmp_path, "training", {"draws": 9}, {})
    store_in(tmp_path).append(ROWS[0])
    assert json.loads((tmp_path / "manifest.json").read_text())["configuration"] == CONFIGURATION
    with pytest.raises(InvalidValueError, match="differing: draws"):
        store_in(tmp_path, {**CONFIGURATION, "draws": 9})


CONTINUED = json.dumps({"kind": "evaluation", "configuration": CONFIGURATION, "continued_in": None})


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "null", "{}", '{"configuration": []}', '{"kind": "evaluation"}', CONTINUED, "\xff"],
    ids=repr,
)
def test_a_damaged_manifest_is_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    manifest = finished(tmp_path) / "manifest.json"
    manifest.write_bytes(damage.encode("latin-1"))
    with pytest.raises(InvalidValueError, match=r"manifest\.json"):
        store_in(tmp_path)
    assert manifest.read_bytes() == damage.encode("latin-1")


def test_the_manifest_says_when_and_with_what(tmp_path: Path) -> None:
    DrawStore(tmp_path, CONFIGURATION, environment())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert list(manifest) == ["schema_version", "kind", "configuration", "environment"]
    assert manifest["configuration"] == CONFIGURATION
    assert {"python", "noiserobust", "torch", "numpy"} <= set(manifest["environment"]["versions"])
    assert manifest["environment"]["started"].endswith("+00:00")


def environments(folder: Path) -> list[dict]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return [manifest["environment"], *manifest.get("continued_in", [])]


def test_a_session_in_another_environment_is_recorded_once(tmp_path: Path) -> None:
    first, later = {"versions": {"torch": "2.10"}, "device": "cpu"}, {"versions": {"torch": "2.11"}, "device": "cpu"}
    other = {**later, "device": "cuda:0"}
    with DrawStore(tmp_path, CONFIGURATION, {**first, "started": "1"}) as store:
        store.append(ROWS[0])
    for started, session in enumerate([first, later, later, first, other, later], start=2):
        DrawStore(tmp_path, CONFIGURATION, {**session, "started": str(started)}).close()
    assert environments(tmp_path) == [
        {**first, "started": "1"},
        {**later, "started": "3"},
        {**other, "started": "6"},
    ]
    assert json.loads((tmp_path / "manifest.json").read_text())["configuration"] == CONFIGURATION


def test_a_session_that_is_refused_is_not_recorded(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(InvalidValueError, match="differing: draws"):
        DrawStore(tmp_path, {**CONFIGURATION, "draws": 4}, {"device": "cuda:0"})
    assert environments(tmp_path) == [{}]


DAMAGED = {
    "an empty file": ("", "columns .* but got none"),
    "another header": ("a,b\n1,2\n", "columns .* but got a, b"),
    "a header in another order": (",".join(DRAW_COLUMNS[::-1]) + "\n", "columns"),
    "no header": (f"{GOOD}\n", "columns"),
    "a bad number": (f"{HEADER}\n{GOOD}\n{GOOD.replace('90.5', 'ninety')}\n", "line 3 .* but got 'sgd,.*ninety"),
    "a fraction for a seed": (f"{HEADER}\n{GOOD.replace('sgd,0', 'sgd,0.5')}\n", "line 2"),
    "a cell too few": (f"{HEADER}\n{GOOD}\n{GOOD}\n{GOOD[:-4]}\n", "line 4"),
    "a cell too many": (f"{HEADER}\n{GOOD},1\n", "line 2"),
    "a blank line": (f"{HEADER}\n\n{GOOD}\n", "line 2"),
    "a huge cell": (f"{HEADER}\n{'x' * 200_000}\n", "comma-separated values, but got: field larger"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_draws_are_an_error_that_says_where(tmp_path: Path, case: str) -> None:
    text, said = DAMAGED[case]
    (tmp_path / "draws.csv").write_text(text)
    with pytest.raises(InvalidValueError, match=said):
        as_frame(read_rows(tmp_path))


def test_draws_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "draws.csv").write_bytes(f"{HEADER}\n".encode() + b"\xff\xfe\n")
    with pytest.raises(InvalidValueError, match="UTF-8"):
        as_frame(read_rows(tmp_path))
    (tmp_path / "draws.csv").unlink()
    (tmp_path / "draws.csv").mkdir()
    with pytest.raises(InvalidValueError, match="to be a file, but it is a folder"):
        as_frame(read_rows(tmp_path))


def test_results_and_statistics_need_no_torch() -> None:
    import subprocess
    import sys

    code = "import noiserobust.results.store, noiserobust.results.summary, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_kill_has_left_of_a_write_is_removed_and_binds_nobody(tmp_path: Path) -> None:
    with DrawStore(tmp_path, {"seed": 0}, {}):
        pass
    (tmp_path / "seed0").mkdir()
    left = [tmp_path / ".manifest.json.4711.tmp", tmp_path / "seed0" / ".metrics.csv.12.tmp"]
    kept = [tmp_path / "seed0" / ".notes.tmp"]
    for path in left:
        path.touch()
    with DrawStore(tmp_path, {"seed": 1}, {}):
        pass
    assert not any(path.exists() for path in left)
    for path in kept:
        path.touch()
    with pytest.raises(InvalidValueError, match="differing: seed"):  # a file that is not ours is something
        DrawStore(tmp_path, {"seed": 2}, {})
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("cells", ["0,100,1.5", "-5,100,1.5", "101,100,1.5", "50,100,-1.0", "50,100,nan", "50,100,inf"])
def test_numbers_that_no_sampled_draw_has_are_damage(tmp_path: Path, cells: str) -> None:
    header = ",".join([*DRAW_COLUMNS, *SAMPLED_DTYPES])
    good = "sgd,0,w,gaussian,sigma,0.1,0,accuracy,80.5,50,100,1.5"
    (tmp_path / "draws.csv").write_text(f"{header}\n{good}\n")
    assert [row["of_examples"] for row in read_rows(tmp_path)] == [100]
    (tmp_path / "draws.csv").write_text(f"{header}\n{good}\nsgd,0,w,gaussian,sigma,0.1,1,accuracy,80.5,{cells}\n")
    with pytest.raises(InvalidValueError, match="Expected line 3 of"):
        list(read_rows(tmp_path))
