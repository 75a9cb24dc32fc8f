"""CIFAR in the four forms in which it is given out, written here byte by byte."""

import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from noiserobust.data import arrays
from noiserobust.data.class_names import CIFAR10, CIFAR100
from noiserobust.data.normalize import parse_normalize
from noiserobust.data.registry import default_normalize, load_data
from noiserobust.errors import InvalidValueError, MissingFileError

PER_FILE = 4
C10_FILES = [f"data_batch_{number}" for number in range(1, 6)]


def pixel(image, channel, row, column):
    """The value of a pixel by its place: every image, channel, row and column is told apart by some of them."""
    return (image * 101 + channel * 67 + row * 13 + column * 3) % 256


def image_bytes(image):
    """As on https://www.cs.toronto.edu/~kriz/cifar.html: 1024 red values row by row, then the green, then the blue."""
    return bytes(pixel(image, c, r, k) for c in range(3) for r in range(32) for k in range(32))


IMAGES = [image_bytes(number) for number in range(6 * PER_FILE)]
FINE = {"cifar10": [n % 10 for n in range(24)], "cifar100": [99 - 3 * n for n in range(24)]}


def binary(name, first, last):
    coarse = b"\x11" if name == "cifar100" else b""
    return b"".join(coarse + bytes([FINE[name][n]]) + IMAGES[n] for n in range(first, last))


def python3(name, first, last, protocol=2):
    data = np.frombuffer(b"".join(IMAGES[first:last]), np.uint8).reshape(-1, 3072)
    content = {b"batch_label": b"training batch 1 of 5", b"data": data, b"filenames": [b"a.png"] * (last - first)}
    if name == "cifar100":
        content |= {b"fine_labels": FINE[name][first:last], b"coarse_labels": [17] * (last - first)}
    else:
        content |= {b"labels": FINE[name][first:last]}
    return pickle.dumps(content, protocol)


def python2(name, first, last):
    """The opcodes that Python 2 and NumPy 1 wrote: byte strings (U, T), the array built by _reconstruct."""
    data, count = b"".join(IMAGES[first:last]), last - first
    key = b"labels" if name == "cifar10" else b"fine_labels"
    labels = b"".join(b"K" + bytes([label]) for label in FINE[name][first:last])
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03"
        + (b"U" + bytes([len(key)]) + key + b"q\x04]q\x05(" + labels + b"e")
        + b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\t"
        + b"U\x01bq\n\x87q\x0bRq\x0c"
        + (
            b"(K\x01M"
            + struct.pack("<H", count)
            + b"M\x00\x0c\x86q\rcnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11"
        )
        + b"(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89"
        + (b"T" + struct.pack("<i", len(data)) + data + b"q\x14tq\x15bu.")
    )


FORMS = {
    ("cifar10", "binary"): ("cifar-10-batches-bin", [f"{f}.bin" for f in C10_FILES], "test_batch.bin", binary),
    ("cifar10", "python"): ("cifar-10-batches-py", C10_FILES, "test_batch", python2),
    ("cifar10", "python3"): ("cifar-10-batches-py", C10_FILES, "test_batch", python3),
    ("cifar100", "binary"): ("cifar-100-binary", ["train.bin"], "test.bin", binary),
    ("cifar100", "python"): ("cifar-100-python", ["train"], "test", python2),
    ("cifar100", "python3"): ("cifar-100-python", ["train"], "test", python3),
}


def write(root, name, form):
    """Write 20 training and 4 test images, and return their folder."""
    folder, train, test, content = FORMS[name, form]
    folder = root / folder
    folder.mkdir(parents=True)
    each = 20 // len(train)
    for index, file in enumerate(train):
        (folder / file).write_bytes(content(name, index * each, (index + 1) * each))
    (folder / test).write_bytes(content(name, 20, 24))
    (folder / "readme.html").write_text("as in the original")
    return folder


def pack(folder, archive, prefix=""):
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, prefix + folder.name)
    return archive


def check(data, name, first, last):
    assert data.x.shape == (last - first, 3, 32, 32)
    assert data.x.dtype == torch.uint8
    expected = np.fromfunction(lambda n, c, r, k: pixel(n + first, c, r, k), data.x.shape, dtype=int)
    assert np.array_equal(data.x.numpy(), expected)
    assert data.y.tolist() == FINE[name][first:last]
    assert data.classes == (CIFAR10 if name == "cifar10" else CIFAR100)


@pytest.mark.parametrize(("name", "form"), FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_pixels_that_were_written(tmp_path, monkeypatch, name, form, packed):
    folder = write(tmp_path / "unpacked", name, form)
    root, place = folder.parent, folder
    if packed:
        root = tmp_path
        place = pack(folder, tmp_path / f"cifar-{name[5:]}-{form.removesuffix('3')}.tar.gz")
    for path in (root, place):
        check(load_data(f"{name}:{path}", "train"), name, 0, 20)
        check(load_data(f"{name}:{path}", "test"), name, 20, 24)
    monkeypatch.setenv("NOISEROBUST_DATA", str(root))
    check(load_data(name, "test"), name, 20, 24)
    monkeypatch.delenv("NOISEROBUST_DATA")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "data").symlink_to(root)
    check(load_data(name, "test"), name, 20, 24)


def test_an_archive_of_another_name_and_with_dots(tmp_path):
    archive = pack(write(tmp_path, "cifar10", "python"), tmp_path / "mine.tgz", prefix="./")
    check(load_data(f"cifar10:{archive}", "train"), "cifar10", 0, 20)
    plain = tmp_path / "mine.tar"
    with tarfile.open(plain, "w") as tar:
        tar.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    check(load_data(f"cifar10:{plain}", "test"), "cifar10", 20, 24)


def test_an_incomplete_folder_is_passed_over_for_a_whole_archive(tmp_path):
    pack(write(tmp_path, "cifar10", "binary"), tmp_path / "cifar-10-binary.tar.gz")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    check(load_data(f"cifar10:{tmp_path}", "train"), "cifar10", 0, 20)
    (tmp_path / "cifar-10-binary.tar.gz").unlink()
    with pytest.raises(MissingFileError, match=r"to hold all of cifar10 as .* but it does not"):
        load_data(f"cifar10:{tmp_path}", "train")


def test_missing_data_say_where_they_were_looked_for_and_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOISEROBUST_DATA", raising=False)
    with pytest.raises(MissingFileError) as caught:
        load_data("cifar100", "test")
    for part in (
        f"Expected {tmp_path / 'data'} to hold all of cifar100 as cifar-100-binary, cifar-100-binary.tar.gz, ",
        "cifar-100-python or cifar-100-python.tar.gz, but there is no such folder",
        "--download",
        "https://www.cs.toronto.edu/~kriz/",
        "cifar100:PATH",
        "$NOISEROBUST_DATA",
    ):
        assert part in str(caught.value)
    for name in ("cifar10", "cifar100"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(MissingFileError, match="empty to hold all of"):
            load_data(f"{name}:{tmp_path / 'empty'}", "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"test_batch\.bin to hold whole records of 3073 bytes, but got 0 bytes"),
        (binary("cifar10", 0, 2)[:-1], "whole records of 3073 bytes, but got 6145 bytes"),
        (b"\x0a" + IMAGES[0], r"labels of .*test_batch\.bin to be from 0 to 9, but got 10"),
    ],
)
def test_damaged_binary_files(tmp_path, content, message):
    (write(tmp_path, "cifar10", "binary") / "test_batch.bin").write_bytes(content)
    with pytest.raises(InvalidValueError, match=message):
        load_data(f"cifar10:{tmp_path}", "test")
    pack(tmp_path / "cifar-10-batches-bin", tmp_path / "a.tar.gz")
    with pytest.raises(InvalidValueError, match=message):
        load_data(f"cifar10:{tmp_path / 'a.tar.gz'}", "test")


GOOD = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 9]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(GOOD, 2)[:-500], "test_batch to be a whole pickled dictionary, but got"),
        (b"", "to be a whole pickled dictionary, but got"),
        (b"text", "to be a whole pickled dictionary, but got"),
        (pickle.dumps([1, 2], 2), "whole pickled dictionary, but got: a pickled list"),
        (pickle.dumps(GOOD | {b"labels": [0, 10]}, 2), "labels of .*test_batch to be from 0 to 9, but got 10"),
        (pickle.dumps(GOOD | {b"labels": [0, -1]}, 2), "from 0 to 9, but got -1"),
        (pickle.dumps(GOOD | {b"labels": [0]}, 2), r"N labels, but got shapes \(2, 3072\) and \(1,\)"),
        (pickle.dumps(GOOD | {b"labels": [0, True]}, 2), "a list of integers 'labels'"),
        (pickle.dumps(GOOD | {b"labels": [0, 10**30]}, 2), "a list of integers 'labels'"),
        (pickle.dumps({b"data": GOOD[b"data"]}, 2), "a list of integers 'labels', but got data"),
        (pickle.dumps(GOOD | {b"data": [1]}, 2), "to hold an array 'data'"),
        (pickle.dumps(GOOD | {b"data": np.zeros((2, 3071), np.uint8)}, 2), r"got shapes \(2, 3071\)"),
        (pickle.dumps(GOOD | {b"data": np.zeros((2, 3072), np.float32)}, 2), "array of 'f4' in place of bytes"),
        (pickle.dumps(GOOD | {b"data": np.array([[None]])}, 2), "array of 'O8' in place of bytes"),
    ],
)
def test_damaged_pickles(tmp_path, content, message):
    (write(tmp_path, "cifar10", "python") / "test_batch").write_bytes(content)
    with pytest.raises(InvalidValueError, match=message):
        load_data(f"cifar10:{tmp_path}", "test")


class Call:
    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_that_asks_for_more_is_refused_and_nothing_runs(tmp_path, protocol, packed):
    trace = tmp_path / "it_ran"
    for call in (
        Call(os.system, f"touch {trace}"),
        Call(open, str(trace), "w"),
        Call(eval, f"open({str(trace)!r}, 'w').close()"),
        Call(np.save, str(trace), np.zeros(1)),
    ):
        folder = write(tmp_path / f"{call.made_of[0].__name__}{packed}", "cifar10", "python")
        (folder / "test_batch").write_bytes(pickle.dumps(GOOD | {b"filenames": call}, protocol))
        place = pack(folder, folder.parent / "a.tar.gz") if packed else folder
        with pytest.raises(InvalidValueError, match=r"test_batch to hold plain values .* never run"):
            load_data(f"cifar10:{place}", "test")
        assert not list(tmp_path.glob("it_ran*"))
        # The file would have done it.
        with open(folder / "test_batch", "rb") as file:
            made = pickle.load(file)[b"filenames"]
        if isinstance(made, io.IOBase):
            made.close()
        for found in tmp_path.glob("it_ran*"):
            found.unlink()
            break
        else:
            pytest.fail("the pickle does no harm")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02cnumpy\nload\n.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy\ndtype.__class__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
        b"(S'touch x'\nios\nsystem\n.",
        b"c_codecs\ndecode\n.",
    ],
)
def test_names_beside_those_that_are_needed_are_refused(tmp_path, program):
    (write(tmp_path, "cifar10", "python") / "test_batch").write_bytes(program)
    with pytest.raises(InvalidValueError, match="which is never run"):
        load_data(f"cifar10:{tmp_path}", "test")


def test_codecs_other_than_that_of_bytes_and_arrays_that_lie_are_refused(tmp_path):
    file = write(tmp_path, "cifar10", "python") / "test_batch"
    good = python2("cifar10", 0, 2)
    for program, message in [
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "encoding 'rot13'"),
        (good.replace(b"(K\x01M\x02\x00", b"(K\x01M\xff\xff"), "array of shape"),
        (good.replace(b"U\x02u1", b"U\x02O8"), "array of b'O8'"),
        (good.replace(b"tq\x15b", b"tq\x150"), "to be a whole pickled dictionary"),
    ]:
        assert program != good
        file.write_bytes(program)
        with pytest.raises(InvalidValueError, match=message):
            load_data(f"cifar10:{tmp_path}", "test")


def test_damaged_archives(tmp_path, monkeypatch):
    archive = pack(write(tmp_path / "u", "cifar10", "binary"), tmp_path / "cifar-10-binary.tar.gz")
    whole = archive.read_bytes()
    for content in (b"", b"text", whole[:-200], whole[: len(whole) // 2], whole[:500] + b"\xff" * 20 + whole[520:]):
        archive.write_bytes(content)
        with pytest.raises(InvalidValueError, match=r"cifar-10-binary.tar.gz to be (a )?whole"):
            load_data(f"cifar10:{tmp_path}", "test")
    (tmp_path / "u" / "cifar-10-batches-bin" / "test_batch.bin").rename(tmp_path / "test_batch.bin")
    pack(tmp_path / "u" / "cifar-10-batches-bin", archive)
    with pytest.raises(InvalidValueError, match=r"to be whole, but it lacks cifar-10-batches-bin/test_batch\.bin"):
        load_data(f"cifar10:{archive}", "test")
    (tmp_path / "test_batch.bin").rename(tmp_path / "u" / "cifar-10-batches-bin" / "test_batch.bin")
    archive.write_bytes(whole)
    monkeypatch.setattr(arrays, "MEMORY_LIMIT", 4 * 3073 - 1)
    for place in (archive, tmp_path / "u"):
        with pytest.raises(InvalidValueError, match="GiB of memory"):
            load_data(f"cifar10:{place}", "test")


def test_links_in_an_archive_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(InvalidValueError, match=r"it lacks cifar-10-batches-bin/test_batch\.bin"):
        load_data(f"cifar10:{tmp_path}", "test")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion-mnist"])
def test_what_they_are_normalised_with(name):
    assert default_normalize(name) == default_normalize(f"{name}:somewhere") == name
    assert len(parse_normalize(name).mean) == (3 if name.startswith("cifar") else 1)


def test_the_class_names():
    assert len(set(CIFAR100)) == 100
    assert list(CIFAR100) == sorted(CIFAR100)
    assert list(CIFAR10) == sorted(CIFAR10)
