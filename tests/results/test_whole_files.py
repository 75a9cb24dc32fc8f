"""Nobody ever reads half of a file: every failure leaves what stood there, and no leavings."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noiserobust.errors import InvalidValueError, MissingFileError, NoiseRobustError, OutputError
from noiserobust.results.files import (
    make_folder,
    read_json,
    replacing,
    sha256,
    write_atomic,
    write_json,
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse files that grow beyond ``size`` bytes: a real failure in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("content", ["", "text\n", "ü\n", b"\x00\xff"], ids=repr)
def test_content_arrives_as_it_is(tmp_path: Path, content: str | bytes) -> None:
    write_atomic(tmp_path / "file", "old")
    write_atomic(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
@pytest.mark.parametrize("old", [None, b"old"], ids=repr)
def test_a_failure_at_any_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)

    def fail(*args: object, **keywords: object) -> None:
        if step == "write":  # half of it is on the disk already
            with open(args[0], "wb") as file:
                file.write(b"ne")
        raise OSError(code, os.strerror(code))

    target = {"write": (Path, "write_bytes"), "fsync": (os, "fsync"), "rename": (Path, "replace")}[step]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        with pytest.raises(OutputError, match=f"write {path}, but got: {os.strerror(code)}") as caught:
            write_atomic(path, b"new")
    assert isinstance(caught.value, NoiseRobustError)
    assert os.listdir(tmp_path) == (["file"] if old else [])
    assert not old or path.read_bytes() == old


def test_a_real_failure_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    with largest_file(1000), pytest.raises(OutputError, match="large"):
        write_atomic(tmp_path / "file", b"x" * 5000)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_durable_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = tmp_path / "file", []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (order.append(("fsync", path.exists(), os.fstat(fd).st_size)), fsync(fd))
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("rename"), replace(self, to))[1])
    write_atomic(path, b"content")
    assert order == [("fsync", False, 7), "rename"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interruption_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), replacing(tmp_path / "file") as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_atomic(tmp_path / "missing" / "file", "x")


@pytest.mark.parametrize("path", ["file", "file/below", "x" * 300], ids=["file", "below a file", "too long"])
def test_what_cannot_be_a_folder_is_an_output_error(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="Expected to be able to write"):
        make_folder(tmp_path / path)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_to_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not stop root, under which tests may run.
    def refuse(*args: object, **keywords: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        make_folder(tmp_path / "new")


def test_make_folder_creates_parents_and_leaves_no_probe(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "a" / "b")
    assert made.is_dir()
    assert not os.listdir(made)
    make_folder(made)


def test_json_goes_there_and_back_and_nan_is_refused(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None, True], "a": {"ü": "x"}}
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json") == content
    assert list(json.loads((tmp_path / "file.json").read_text())) == ["b", "a"]
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "file.json", {"x": float("nan")})
    assert read_json(tmp_path / "file.json") == content


@pytest.mark.parametrize("damage", [b"", b"{", b'{"a": 1,}', b"\xff\xfe", b"\x00"], ids=repr)
def test_damaged_json_is_an_error_that_names_the_file(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "file.json").write_bytes(damage)
    with pytest.raises(InvalidValueError, match=r"Expected .*file\.json to hold JSON"):
        read_json(tmp_path / "file.json")


def test_a_missing_or_unreadable_json_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="there is none"):
        read_json(tmp_path / "file.json")
    with pytest.raises(InvalidValueError, match="readable"):
        read_json(tmp_path)


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    # FIPS 180-4, example "abc".
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
