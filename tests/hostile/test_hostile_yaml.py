"""YAML of strangers: nothing runs, nothing grows, nothing is waited for."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from noiserobust.cli import main
from noiserobust.cli.parsing import model_args
from noiserobust.errors import InvalidValueError, NoiseRobustError
from noiserobust.noise.profiles import load_profile
from noiserobust.noise.registry import build_noise
from noiserobust.sweep.grid import expand
from noiserobust.yamlfile import parse_yaml, read_settings, read_yaml


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "file.yaml") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def bomb(kind: str, depth: int) -> str:
    """Return lists of lists, or mappings, or merges: nine to the power of ``depth`` values."""
    lines = ["b0: &b0 [x]" if kind == "lists" else "b0: &b0 {a: x}"]
    for i in range(1, depth + 1):
        inner = ", ".join([f"*b{i - 1}"] * 9)
        named = ", ".join(f"k{j}: *b{i - 1}" for j in range(9))
        lines.append(
            f"b{i}: &b{i} " + {"lists": f"[{inner}]", "mappings": f"{{{named}}}", "merges": f"{{<<: [{inner}]}}"}[kind]
        )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", ["lists", "mappings", "merges"])
@pytest.mark.parametrize("depth", [8, 60])
def test_aliases_are_counted_as_if_they_were_written_out(write, kind, depth):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidValueError, match="more than 200,000 values") as caught:
        read_yaml(write(bomb(kind, depth)))
    assert len(str(caught.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_anchors_that_do_not_grow_are_read(write):
    assert len(read_settings(write(bomb("lists", 3)))["b3"]) == 9
    shared = "base: &base {a: 1, b: 2}\n" + "".join(f"c{i}: {{<<: *base, b: {i}}}\n" for i in range(500))
    assert read_settings(write(shared))["c499"] == {"a": 1, "b": 499}


@pytest.mark.parametrize(
    "tagged",
    [
        "!!python/object/apply:os.system ['touch owned']",
        "!!python/object/new:subprocess.Popen [['touch', 'owned']]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object/apply:builtins.open [owned, w]",
    ],
)
def test_tags_build_nothing(write, tmp_path, monkeypatch, tagged):
    monkeypatch.chdir(tmp_path)
    path = write(f"model: {tagged}\nnoise: {tagged}\n")
    for read in (read_yaml, load_profile, lambda p: build_noise(str(p))):
        with pytest.raises(InvalidValueError, match="could not determine a constructor"):
            read(path)
    for arguments in (["train", "--config", str(path)], ["sweep", "--config", str(path), "--dry-run"]):
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    with pytest.raises(InvalidValueError, match="to give x a value"):
        model_args([f"x={tagged}"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file.yaml"]


@pytest.mark.parametrize("depth", [65, 300, 5_000, 100_000])
@pytest.mark.parametrize("signs", ["[]", "{}"])
def test_nesting_has_an_end(depth, signs):
    inner = "{a: " if signs == "{}" else "["
    with pytest.raises(ValueError, match="more than 64 deep"):
        parse_yaml(inner * depth + signs[1] * depth)
    assert parse_yaml(inner * 60 + "1" + signs[1] * 60) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 0x" + "f" * 6000, "an integer of 6002 digits"),
        ("a: " + "9" * 5000, "an integer of 5000 digits"),
        ("a: 0b" + "1" * 20_000, "an integer of 20002 digits"),
        ("? {a: [1]}\n: 1", "unhashable"),
        ("a: 1\nb: {a: 1, a: 2}", "'a' twice"),
        ("1: a\n1.0: b", "1.0 twice"),
        ("a\x00b: 1", "the code 0"),
        ("a: \x1b[31m", "special characters are not allowed"),
        (b"a: \xff", "can't decode byte 0xff"),
        ("a: 1\n---\na: 2", "expected a single document"),
        ("a: b: c", "mapping values are not allowed"),
        ("a: 'x", "while scanning a quoted scalar"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_no_file_of_settings_has(write, text, said):
    with pytest.raises(InvalidValueError, match="to be YAML of plain data in UTF-8, but got") as caught:
        read_yaml(write(text))
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_files_as_other_systems_write_them_are_read(write):
    for content in (b"\xef\xbb\xbfa: 1\r\nb: [2, 3]\r\n", b"a: 1\nb: [2, 3]", "a: 1\nb: [2, 3]\n".encode("utf-8-sig")):
        assert read_settings(write(content)) == {"a": 1, "b": [2, 3]}


def test_a_file_of_settings_has_a_size(write):
    with pytest.raises(InvalidValueError, match="at most 1,048,576 bytes, but it has more"):
        read_yaml(write(b"a: '" + b"x" * (1 << 20) + b"'"))


def test_a_configuration_given_with_an_equals_sign_is_checked_as_well(write, tmp_path, capsys):
    path = write("model: digits-mlp\ndata: digits\nmethod: other.yaml\nmethod: {name: sgd}\n")
    for arguments in ([f"--config={path}"], ["--config", str(path)]):
        assert main(["train", *arguments, "--out", str(tmp_path / "out")]) == 2
        assert "'method' twice" in capsys.readouterr().err


def test_a_group_of_settings_opens_no_other_file(write, tmp_path, capsys):
    write("name: sgd\n", "other.yaml")
    path = write(f"model: digits-mlp\ndata: digits\nmethod: {tmp_path}/other.yaml\n")
    assert main(["train", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "Expected `method` of" in capsys.readouterr().err


def test_arguments_of_models_are_as_strict():
    for value in ("2021-13-45", "[" * 5000, "!!bool x", "{a: 1, a: 2}", "&a [*a]"):
        with pytest.raises(InvalidValueError, match="to give x a value"):
            model_args([f"x={value}"])


def test_a_grid_that_would_fill_the_memory_is_refused():
    with pytest.raises(InvalidValueError, match="at most 100,000 points"):
        expand({f"a{i}": list(range(10)) for i in range(20)})
    assert len(expand({"a": list(range(100)), "b": list(range(100))})) == 10_000


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "nowhere"])
@pytest.mark.parametrize(
    "read", [read_yaml, load_profile, lambda p: build_noise(str(p))], ids=["yaml", "profile", "noise"]
)
def test_only_files_are_read_and_nothing_is_waited_for(tmp_path, kind, read):
    path = tmp_path / "odd.yaml"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path.name),
        "nowhere": lambda: path.symlink_to("nowhere"),
    }[kind]()
    with pytest.raises(NoiseRobustError, match=r"odd\.yaml"):
        read(path)
