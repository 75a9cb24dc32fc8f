"""Names from files of strangers do not move the cursor of who looks at them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from noiserobust.cli import main
from noiserobust.config import TrainConfig
from noiserobust.errors import InvalidValueError
from noiserobust.printing import Visible, error_line, visible
from noiserobust.results.store import DrawStore

CONTROL = [*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066", "\u2028"]
NASTY = "\x1b]0;owned\x07\x1b[2J\u202eevil\x9b31m\x7f"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    with DrawStore(tmp_path / "results", {}, {}) as store:
        for method in ("sgd", NASTY):
            for seed in (0, 1):
                named = {"method": method, "train_seed": seed, "weights": f"{method}{seed}", "noise": NASTY}
                said = {"level_name": "sigma", "level": 0.1, "draw": 0, "metric": "accuracy"}
                store.append({**named, **said, "value": 50.0 + seed, "n_examples": 100})
    return tmp_path / "results"


@pytest.mark.parametrize("format", ["text", "markdown", "csv", "json", "latex"])
def test_names_are_written_out_in_tables(results, capsys, format):
    assert main(["compare", str(results), "--baseline", "sgd", "--format", format]) == 0
    out, err = capsys.readouterr()
    assert not set(out + err) & (set(CONTROL) - {"\n", "\t"})
    assert "evil" in out


def test_names_are_written_out_in_errors(results, tmp_path, capsys):
    odd = tmp_path / f"a{NASTY[:4]}b"
    (tmp_path / "c.yaml").write_bytes(b'model: "\\e[2J"\ndata: digits\n')
    for arguments in (
        ["compare", str(odd)],
        ["profiles", "show", f"{odd}.yaml"],
        ["profiles", NASTY],
        ["train", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out")],
        [NASTY],
    ):
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert not set(out + err) & (set(CONTROL) - {"\n"})
        assert err.count("\n") == 1


def test_the_name_of_a_training_stands_in_its_progress_and_is_plain():
    with pytest.raises(InvalidValueError, match="Expected `label` to be a name without control characters"):
        TrainConfig(model="m", data="d", label="a\x1b[2J")
    assert TrainConfig(model="m", data="d", label="größer ≥ 0,1 😀").method_label == "größer ≥ 0,1 😀"


def test_every_control_character_is_visible_and_nothing_else_changes():
    for sign in CONTROL:
        assert visible(f"a{sign}b") == (
            f"a{sign}b"
            if sign in "\n\t"
            else f"a\\{'x' if ord(sign) < 256 else 'u'}"
            + (f"{ord(sign):02x}b" if ord(sign) < 256 else f"{ord(sign):04x}b")
        )
    text = "größer ≥ 0,1 😀 漢字 \u00a0 µS"
    assert visible(text) == text


def test_an_error_has_a_bearable_length():
    line = error_line(ValueError("Expected `x`" + "y" * 10**6 + "the end"))
    assert len(line) < 2100
    assert line.startswith("Expected `x`")
    assert line.endswith("the end")
    assert "998,019 characters" in line


def test_output_is_otherwise_that_of_the_stream(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    shown = Visible(stream)
    assert print("a\x1bb", file=shown) is None
    shown.flush()
    assert stream.buffer.getvalue() == b"a\\x1bb\n"  # type: ignore[attr-defined]
    assert not shown.isatty()
    with pytest.raises(io.UnsupportedOperation):
        shown.fileno()
    assert sys.stdout is not shown
