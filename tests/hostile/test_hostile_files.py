"""What stands where a file should be, and files that end too early: an error of ours, and no waiting."""

import os
import random
import shutil
from itertools import islice

import pytest
from binary_mutations import BINARY_READERS, files, mutations

from noiserobust.errors import MissingFileError, NoiseRobustError

MUTATIONS = 25
CUTS = 20
# An archive is read as far as the last file that is needed; of an image, the end may hold nothing.
MAY_END_EARLY = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz", "imagefolder")


def put_pipe(path):
    os.mkfifo(path)


def put_device(path):
    path.symlink_to("/dev/zero")


def put_folder(path):
    path.mkdir()


def put_dangling(path):
    path.symlink_to(path.parent / "absent")


def put_loop(path):
    path.symlink_to(path)


def put_empty(path):
    path.touch()


def put_nothing(path):
    pass


def refused(read, path):
    """Return whether reading raises; any other error than one of ours is one of the test."""
    try:
        read(path)
    except NoiseRobustError as error:
        if not str(error).startswith("Expected "):
            pytest.fail(f"another voice: {error}")
        return True
    return False


@pytest.fixture(params=BINARY_READERS)
def reader(request, tmp_path):
    write_valid, read = BINARY_READERS[request.param]
    path = tmp_path / request.param
    write_valid(path)
    assert not refused(read, path)
    return read, path


@pytest.mark.parametrize(
    "put", [put_pipe, put_device, put_folder, put_dangling, put_loop, put_empty, put_nothing], ids=lambda f: f.__name__
)
def test_what_is_no_file_is_not_read(reader, put):
    read, path = reader
    for file in files(path):
        file.unlink()
        put(file)
        fewer_images = path.name == "imagefolder" and put in (put_folder, put_nothing)
        assert refused(read, path) is not fewer_images
        if file == path:
            return
        shutil.rmtree(path)
        BINARY_READERS[path.name][0](path)


def test_a_link_to_a_file_is_as_good_as_the_file(reader, tmp_path):
    read, path = reader
    kept = tmp_path / "kept"
    for number, file in enumerate(files(path)):
        file.rename(kept.with_name(f"kept{number}"))
        file.symlink_to(kept.with_name(f"kept{number}"))
    read(path)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_files_that_may_not_be_read(reader):
    read, path = reader
    for file in files(path):
        file.chmod(0)
        assert refused(read, path)
        file.chmod(0o600)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "images.npz"])
def test_names_that_are_none(tmp_path, name):
    read = BINARY_READERS[name][1]
    for bad in (b"\xff\xfe" + name.encode(), b"a" * 5000 + name.encode(), b"a\0" + name.encode()):
        path = tmp_path / os.fsdecode(bad)
        if b"\xff" in bad:
            BINARY_READERS[name][0](path)
        assert refused(read, path)
    with pytest.raises(MissingFileError, match="but there is none"):
        read(tmp_path / name)


def test_files_that_end_too_early(reader):
    read, path = reader
    for file in files(path):
        valid = file.read_bytes()
        for cut in range(0, len(valid) - 1, max(1, len(valid) // CUTS)):
            if path.name == "cifar10-binary" and not cut % 3073 and cut:
                continue  # fewer images
            file.write_bytes(valid[:cut])
            assert refused(read, path) or path.name in MAY_END_EARLY
        file.write_bytes(valid)


def test_malformed_files_are_read_or_refused(reader):
    read, path = reader
    times_refused = 0
    for file in files(path):
        valid = file.read_bytes()
        for content in islice(mutations(valid, random.Random(f"{path.name}/{file.name}")), MUTATIONS):
            file.write_bytes(content)
            times_refused += refused(read, path)
        file.write_bytes(valid)
    assert not refused(read, path)
    assert times_refused >= MUTATIONS // 2
