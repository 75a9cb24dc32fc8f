"""Small files that would take many GB, read by a process that has not got them."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
import torch

GIB = 2**30
PROGRAM = """
    import json, resource, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from binary_mutations import BINARY_READERS
    from noiserobust.errors import NoiseRobustError
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + 2**30, virtual + 2**30))
    for path in map(Path, sys.argv[2:]):
        try:
            BINARY_READERS[path.name][1](path)
            said = "was read"
        except NoiseRobustError as error:
            said = str(error)
        except BaseException as error:
            said = f"raised {error!r}"
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
        print(json.dumps([str(path), said, more]), flush=True)
"""


class Zeros(io.RawIOBase):
    """A file of zeros that takes no memory."""

    def __init__(self, size):
        self.left = size

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.left)
        buffer[:count] = bytes(count)
        self.left -= count
        return count


def packed_zeros(head, size):
    """Return a gzip file of many members, each of which holds a megabyte of zeros."""
    piece = gzip.compress(bytes(2**20))
    return gzip.compress(head) + piece * (size // 2**20)


def npz(path):
    header = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 2)}".ljust(
        117
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("test_x.npy", "test_y.npy"):
            archive.writestr(name, header + b"\n")
    # The sizes in its directory are those of 4 GB each.
    content = bytearray(path.read_bytes())
    at = -1
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(bytes(content))


def overlapping(path):
    """Write weights whose records are all the one record that unpacks to 64 MB: a zip bomb without nesting."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data/0", bytes(2**26))
    with zipfile.ZipFile(buffer, "a") as archive:
        (record,) = archive.infolist()
        for number in range(500):
            clone = zipfile.ZipInfo(f"a/data/{number:03}")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(clone, field, getattr(record, field))
            archive.filelist.append(clone)
        archive._didModify = True
    path.write_bytes(buffer.getvalue())


def mnist(path):
    path.mkdir()
    head = bytes((0, 0, 8, 3)) + b"".join(n.to_bytes(4, "big") for n in (10**7, 28, 28))
    (path / "t10k-images-idx3-ubyte.gz").write_bytes(packed_zeros(head, 32 * 2**20))
    (path / "t10k-labels-idx1-ubyte.gz").write_bytes(packed_zeros(head, 2**20))


def archive(path):
    head = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    head.size = 8 * GIB - 512
    path.write_bytes(packed_zeros(head.tobuf(), 32 * 2**20))


def expanded(path):
    torch.save({"w": torch.ones(1).expand(10**11)}, path)


def boundless(path):
    torch.save({"w": torch.ones(1), "x": torch.ones(1).as_strided((2**35,), (0,))}, path)


def corruption(path):
    path.mkdir()
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000, 32, 32, 3)}".ljust(117) + b"\n"
    (path / "fog.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header + bytes(100))
    (path / "labels.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + header)


BOMBS = {
    "weights.pt": overlapping,
    "legacy.pth": expanded,
    "checkpoint.pt": overlapping,
    "images.npz": npz,
    "mnist-gz": mnist,
    "cifar-10-binary.tar.gz": archive,
    "cifar10-c": corruption,
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    paths = []
    for name, write in BOMBS.items():
        write(folder / name)
        paths.append(str(folder / name))
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(Path(__file__).parent), *paths]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    return {Path(path).name: (error, kb) for path, error, kb in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(sys.platform != "linux", reason="limits on memory are Linux's")
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(said, name):
    error, kb = said[name]
    assert error.startswith("Expected ")
    assert kb < 600_000
