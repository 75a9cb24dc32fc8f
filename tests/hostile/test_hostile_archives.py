"""Archives, arrays and pickled batches from strangers: no paths out, no bombs, no sizes that are believed."""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile

import numpy as np
import pytest

from noiserobust import untrusted
from noiserobust.data.registry import load_data
from noiserobust.errors import InvalidValueError

FOLDER = "cifar-10-batches-bin"
NEEDED = f"{FOLDER}/test_batch.bin"
RECORD = b"\x04" + bytes(3072)


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def tar(*members):
    return b"".join(members) + bytes(1024)


def link(kind, to):
    return tar(member(NEEDED, type=kind, linkname=to))


@pytest.mark.parametrize(
    "content",
    [
        tar(member(f"../{NEEDED}", RECORD)),
        tar(member(f"/{NEEDED}", RECORD)),
        tar(member(f"{FOLDER}/../../test_batch.bin", RECORD)),
        tar(member(f"{FOLDER}/../{NEEDED}", RECORD)),
        link(tarfile.SYMTYPE, "/etc/passwd"),
        link(tarfile.SYMTYPE, "../../../../etc/passwd"),
        link(tarfile.LNKTYPE, "/etc/passwd"),
        link(tarfile.LNKTYPE, NEEDED),
        tar(member(f"{FOLDER}/other", RECORD), member(NEEDED, type=tarfile.LNKTYPE, linkname=f"{FOLDER}/other")),
        tar(member(NEEDED, type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
        tar(member(NEEDED, type=tarfile.BLKTYPE, devmajor=8, devminor=0)),
        tar(member(NEEDED, type=tarfile.FIFOTYPE)),
        tar(member(NEEDED, type=tarfile.DIRTYPE)),
        tar(member(NEEDED, RECORD, size=2**33)),
        tar(member(NEEDED, RECORD, size=2**40)),
        tar(member(NEEDED, RECORD, size=2**62)),
        tar(member(f"{FOLDER}/x", RECORD, size=-1024), member(NEEDED, RECORD)),
        tar(member(f"{FOLDER}/x", RECORD, size=-(2**40)), member(NEEDED, RECORD)),
        tar(member("././@LongLink", b"x" * 100, type=tarfile.GNUTYPE_LONGNAME, size=2**40)),
        tar(*[member("././@LongLink", b"x", type=tarfile.GNUTYPE_LONGNAME)] * 3000, member(NEEDED, RECORD)),
        tar(member("pax", b"17 size=99999999\n", type=tarfile.XHDTYPE), member(NEEDED, RECORD)),
        tar(member("pax", b"99999999999 size=1\n", type=tarfile.XHDTYPE), member(NEEDED, RECORD)),
        tar(member("pax", b"0 a=b\n" * 9, type=tarfile.XHDTYPE), member(NEEDED, RECORD)),
        tar(
            member("pax", b"22 GNU.sparse.major=0\n22 GNU.sparse.minor=0\n", type=tarfile.XHDTYPE),
            member(NEEDED, RECORD),
        )[:600],
    ],
    ids=range(24),
)
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_tar_archives(untouched, monkeypatch, content, pack):
    monkeypatch.chdir(untouched)
    file = untouched / "cifar-10-binary.tar.gz"
    file.write_bytes(pack(content))
    with pytest.raises((InvalidValueError, FileNotFoundError), match=r"^Expected "):
        load_data(f"cifar10:{file}", "test")
    assert list(untouched.iterdir()) == [file]


def sparse(size):
    """Return an archive of a file of ``size`` bytes, none of which are in it."""
    info = bytearray(member(NEEDED, type=tarfile.GNUTYPE_SPARSE))
    info[386:398], info[398:410] = b"%011o\0" % size, b"%011o\0" % 0
    info[483:495] = b"%011o\0" % size
    info[148:156] = b" " * 8
    info[148:156] = b"%06o\0 " % sum(info[:512])
    return tar(bytes(info))


def test_sparse_files_are_refused(untouched):
    file = untouched / "cifar-10-binary.tar.gz"
    for size in (3073, 8 * 2**30 - 1):
        file.write_bytes(gzip.compress(sparse(size)))
        with pytest.raises(InvalidValueError, match=r"test_batch.bin to be a plain file, but it is a sparse one"):
            load_data(f"cifar10:{file}", "test")


def test_an_archive_that_unpacks_to_too_much(untouched, monkeypatch):
    file = untouched / "cifar-10-binary.tar.gz"
    content = tar(member("junk", bytes(3 * 10**6)), member(NEEDED, RECORD))
    file.write_bytes(gzip.compress(content))
    assert len(load_data(f"cifar10:{file}", "test")) == 1
    monkeypatch.setattr(untrusted, "FLOOR", 10**6)
    for whole in (content, tar(member("junk", bytes(10**6)), member(NEEDED, RECORD, size=2**30))):
        file.write_bytes(gzip.compress(whole))
        with pytest.raises(InvalidValueError, match=r"tar.gz to unpack to at most 100 times its \S+ bytes"):
            load_data(f"cifar10:{file}", "test")
    # Formats that shrink zeros to a millionth are none of ours, and neither is what is packed twice.
    for pack in (bz2.compress, lzma.compress, lambda c: gzip.compress(gzip.compress(c))):
        file.write_bytes(pack(content))
        with pytest.raises(InvalidValueError, match=r"tar.gz to be a whole .tar.gz file"):
            load_data(f"cifar10:{file}", "test")


def npy(header, content=b"", version=(1, 0)):
    text = header if isinstance(header, bytes) else repr(header).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + content


HEADER = {"descr": "|u1", "fortran_order": False, "shape": (10, 32, 32, 3)}
PIXELS = bytes(10 * 32 * 32 * 3)
BAD_ARRAYS = {
    "many": npy(HEADER | {"shape": (10**12,)}),
    "overflow": npy(HEADER | {"shape": (2**32, 2**32)}, PIXELS),
    "beyond": npy(HEADER | {"shape": (2**64 + 1, 32, 32, 3)}, PIXELS),
    "zero times many": npy(HEADER | {"shape": (2**62, 0, 2**62)}),
    "negative": npy(HEADER | {"shape": (-10, 32, 32, 3)}, PIXELS),
    "two negatives": npy(HEADER | {"shape": (-10, -32, 32, 3)}, PIXELS),
    "float": npy(HEADER | {"shape": (10.0, 32, 32, 3)}, PIXELS),
    "text": npy(HEADER | {"shape": "many"}, PIXELS),
    "deep": npy(HEADER | {"shape": (1,) * 100}, b"x"),
    "objects": npy(HEADER | {"descr": "|O"}, pickle.dumps([1])),
    "objects inside": npy(HEADER | {"descr": [("a", "|O")]}, PIXELS),
    "records": npy(HEADER | {"descr": [("a", "|u1"), ("b", "|u1")], "shape": (1,)}, b"ab"),
    "strings": npy(HEADER | {"descr": "<U3", "shape": (1,)}, b"x" * 12),
    "nothing": npy(HEADER | {"descr": "|V0", "shape": (10**12,)}),
    "empty strings": npy(HEADER | {"descr": "|S0", "shape": (10**12,)}),
    "complex": npy(HEADER | {"descr": "<c16", "shape": (1, 1)}, bytes(16)),
    "dates": npy(HEADER | {"descr": "<M8[s]", "shape": (1, 1)}, bytes(8)),
    "unknown": npy(HEADER | {"descr": "os.system"}, PIXELS),
    "huge items": npy(HEADER | {"descr": "|V2147483647", "shape": (10**6,)}),
    "call": npy(b"__import__('os').system('touch it_ran')"),
    "nested": npy(b"(" * 5000),
    "minus": npy(b"-" * 5000 + b"1"),
    "unclosed": npy(b"{'descr': '|u1', \n\n"),
    "long header": npy(b"{" + b" " * 60000 + b"}"),
    "longer header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
    "version": npy(HEADER, PIXELS, (3, 0)),
    "another version": npy(HEADER, PIXELS, (9, 9)),
    "short": npy(HEADER, PIXELS[:-1]),
    "long": npy(HEADER, PIXELS + b"x"),
}


@pytest.mark.parametrize("content", BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays(untouched, monkeypatch, content):
    monkeypatch.chdir(untouched)
    file = untouched / "d.npz"
    for x, y in ((content, npy(HEADER | {"shape": (10,)}, bytes(10))), (npy(HEADER, PIXELS), content)):
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            with zipfile.ZipFile(file, "w", compression) as archive:
                archive.writestr("x.npy", x)
                archive.writestr("y.npy", y)
            with pytest.raises(InvalidValueError, match=r"^Expected "):
                load_data(f"npz:{file}", "test")
        (untouched / "fog.npy").write_bytes(x)
        (untouched / "labels.npy").write_bytes(y)
        with pytest.raises(InvalidValueError, match=r"^Expected "):
            load_data(f"cifar10-c:{untouched}/fog/1", "test")
    assert sorted(p.name for p in untouched.iterdir()) == ["d.npz", "fog.npy", "labels.npy"]


def test_the_good_arrays(untouched):
    with zipfile.ZipFile(untouched / "d.npz", "w") as archive:
        archive.writestr("x.npy", npy(HEADER, PIXELS))
        archive.writestr("y.npy", npy(HEADER | {"shape": (10,)}, bytes(10), (2, 0)))
    assert load_data(f"npz:{untouched}/d.npz", "test").x.shape == (10, 3, 32, 32)


def test_zip_archives(untouched, monkeypatch):
    file = untouched / "d.npz"

    def write(*names, compression=zipfile.ZIP_DEFLATED, size=10):
        with zipfile.ZipFile(file, "w", compression) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in names:
                shape = (size, 5) if "x" in name else (size,)
                archive.writestr(name, npy(HEADER | {"shape": shape}, bytes(size * 5 if "x" in name else size)))

    for names in (["../x.npy", "../y.npy"], ["/x.npy", "/y.npy"], ["a/../x.npy", "y.npy"]):
        write(*names)
        with pytest.raises(InvalidValueError, match=r"to hold the arrays .*, but got"):
            load_data(f"npz:{file}", "test")
    write("x.npy", "y.npy", "../planted.npy")
    assert len(load_data(f"npz:{file}", "test")) == 10
    monkeypatch.setattr(untrusted, "FLOOR", 10**6)
    for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        write("x.npy", "y.npy", compression=compression, size=10**6)
        with pytest.raises(InvalidValueError, match=r"d.npz to unpack to at most 100 times its \S+ bytes.*unpacked"):
            load_data(f"npz:{file}", "test")
    write("x.npy", "y.npy", compression=zipfile.ZIP_STORED, size=10**6)
    assert len(load_data(f"npz:{file}", "test")) == 10**6
    assert list(untouched.iterdir()) == [file]


def test_zip_directories_that_lie(untouched):
    file = untouched / "d.npz"
    with file.open("wb") as opened:
        np.savez(opened, x=np.zeros((10, 5)), y=np.arange(10))
    whole = file.read_bytes()
    directory, refused = whole.index(b"PK\x01\x02"), 0
    for offset in (8, 10, 20, 24, 28, 42):  # flags, method, sizes, length of the name, place
        for value in (0xFFFF, 1, 0x7FFF):
            at = directory + offset
            file.write_bytes(whole[:at] + struct.pack("<H", value) + whole[at + 2 :])
            try:
                found = load_data(f"npz:{file}", "test")
            except InvalidValueError:
                refused += 1
            else:  # only what nobody needs was changed
                assert found.y.tolist() == list(range(10))
    assert refused >= 12


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "shape", [(2**31, 1, 1), (2**32 - 1,) * 3, (0, 2**32 - 1, 2**32 - 1), (10**6, 28, 28), (2**31, 0, 1)]
)
def test_idx_files(untouched, shape, packed):
    for kind, content in (
        ("images-idx3", struct.pack(">IIII", 0x803, *shape) + bytes(784)),
        ("labels-idx1", struct.pack(">II", 0x801, shape[0]) + bytes(1)),
    ):
        file = untouched / f"t10k-{kind}-ubyte{'.gz' * packed}"
        file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InvalidValueError, match=r"^Expected "):
        load_data(f"mnist:{untouched}", "test")


def test_idx_files_that_unpack_to_too_much(untouched, monkeypatch):
    for kind, content in (
        ("images-idx3", struct.pack(">IIII", 0x803, 10**4, 28, 28) + bytes(784 * 10**4)),
        ("labels-idx1", struct.pack(">II", 0x801, 10**4) + bytes(10**4)),
    ):
        (untouched / f"t10k-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    assert len(load_data(f"mnist:{untouched}", "test")) == 10**4
    monkeypatch.setattr(untrusted, "FLOOR", 10**6)
    with pytest.raises(InvalidValueError, match=r"images-idx3-ubyte.gz to unpack to at most 100 times"):
        load_data(f"mnist:{untouched}", "test")


DOUBLED = b"X\x01\x00\x00\x00a\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02" + DOUBLED + b"}h<K\x01s.",
        b"\x80\x02" + DOUBLED + b"\x8f(h<\x90.",
        b"\x80\x02X\x01\x00\x00\x00a" + b"2\x86" * 60 + b"}q\x00" + b"0}" + b"h\x00K\x01s.",
        b"\x80\x02)" + b"\x85" * 10**5 + b"}" + b"q\x000K\x01s.",
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x02}p99999999999\n.",
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x96\x00\x00\x00\x00\x02\x00\x00\x00.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",
        b"\x80\x02B\xff\xff\xff\x7fxx.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
        b"\x80\x02I" + b"9" * 10**5 + b"\n.",
        b"\x80\x02}L" + b"9" * 4000 + b"L\nK\x01s.",
        b"\x80\x02((((((.",
        b"\x80\x02.",
        b"\x82\x01.",
        b"Pid\n.",
        b"\x80\x02]q\x00h\x00a.",
    ],
    ids=lambda program: repr(program[:12]),
)
def test_pickled_batches(untouched, program):
    (untouched / "test_batch").write_bytes(program)
    with pytest.raises(InvalidValueError, match=r"^Expected "):
        load_data(f"cifar10:{untouched}", "test")


def test_a_pickle_leaves_nothing_behind_in_its_reader(untouched):
    from noiserobust.data import unpickle

    before = dict(vars(unpickle._Bytes))
    for state in (b"}X\x01\x00\x00\x00aK\x01s", b"N}X\x0c\x00\x00\x00__defaults__K\x01\x85s\x86"):
        (untouched / "test_batch").write_bytes(b"\x80\x02c_codecs\nencode\n" + state + b"b.")
        with pytest.raises(InvalidValueError, match=r"whole pickled dictionary"):
            load_data(f"cifar10:{untouched}", "test")
    assert dict(vars(unpickle._Bytes)) == before


def test_a_batch_of_python_3_is_read(untouched):
    content = {b"data": np.arange(3072, dtype=np.uint8)[None], b"labels": [7]}
    for protocol in (0, 2, 4, 5):
        (untouched / "test_batch").write_bytes(pickle.dumps(content, protocol))
        if protocol == 5:  # a form of arrays that CIFAR never had
            with pytest.raises(InvalidValueError, match="never run"):
                load_data(f"cifar10:{untouched}", "test")
        else:
            assert load_data(f"cifar10:{untouched}", "test").y.tolist() == [7]


def test_bytes_given_by_a_stream_are_counted():
    stream = io.BytesIO(b"x" * 10)
    assert untrusted.read_at_most(stream, 4) == b"xxxx"
    assert untrusted.read_at_most(stream, 10**18) == b"xxxxxx"
