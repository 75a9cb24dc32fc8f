"""Downloads from a server of our own, which also does what servers should not do."""

import errno
import gzip
import hashlib
import io
import struct
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from noiserobust.data import download, registry
from noiserobust.data.download import SOURCES, Source, fetch
from noiserobust.data.registry import load_data
from noiserobust.errors import InvalidValueError, MissingFileError, OutputError

ARCHIVE = "cifar-10-binary.tar.gz"
RECORD = b"\x04" + bytes(3072)


def archive():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size = len(RECORD)
        tar.addfile(member, io.BytesIO(RECORD))
    return buffer.getvalue()


def idx_files():
    images = gzip.compress(struct.pack(">IIII", 0x803, 1, 28, 28) + bytes(784))
    labels = gzip.compress(struct.pack(">II", 0x801, 1) + b"\x05")
    return {
        f"{part}-{kind}-ubyte.gz": content
        for part in ("train", "t10k")
        for kind, content in (("images-idx3", images), ("labels-idx1", labels))
    }


FILES = {ARCHIVE: archive(), **idx_files()}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.asked.append(name)
        if name not in FILES or self.server.broken == "absent":
            self.send_error(404)
            return
        content = FILES[name]
        self.send_response(200)
        if self.server.broken != "no length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.server.broken == "cut":
            content = content[: len(content) // 2]
        if self.server.broken == "changed":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.broken = [], None
        server.url = f"http://127.0.0.1:{server.server_port}/"
        sources = {
            name: Source(server.url, {file: hashlib.sha256(FILES[file.split("/")[-1]]).hexdigest() for file in files})
            for name, files in (("cifar10", [ARCHIVE]), ("mnist", SOURCES["mnist"].files))
        }
        for module in (download, registry):
            monkeypatch.setattr(module, "SOURCES", sources)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("broken", [None, "no length"])
def test_what_is_missing_is_fetched_once(server, tmp_path, monkeypatch, broken):
    server.broken = broken
    monkeypatch.setenv("NOISEROBUST_DATA", str(tmp_path / "deep" / "data"))
    with pytest.raises(MissingFileError):
        load_data("cifar10", "test")
    assert server.asked == []
    assert load_data("cifar10", "test", download=True).y.tolist() == [4]
    assert [p.name for p in (tmp_path / "deep" / "data").iterdir()] == [ARCHIVE]
    assert load_data("cifar10", "test", download=True).y.tolist() == [4]
    assert server.asked == [ARCHIVE]
    assert load_data("mnist", "train", download=True).y.tolist() == [5]
    assert load_data("mnist", "test").y.tolist() == [5]
    assert sorted(server.asked[1:]) == sorted(FILES.keys() - {ARCHIVE})


def test_a_folder_of_ones_own_and_another_server(server, tmp_path, monkeypatch):
    assert load_data(f"mnist:{tmp_path / 'mine'}", "test", download=True).y.tolist() == [5]
    assert len(list((tmp_path / "mine" / "mnist").iterdir())) == 4
    mirror = server.url
    monkeypatch.setitem(
        download.SOURCES, "cifar10", Source("http://absent.invalid/", download.SOURCES["cifar10"].files)
    )
    fetch("cifar10", tmp_path, mirror)
    assert (tmp_path / ARCHIVE).read_bytes() == FILES[ARCHIVE]


def test_only_what_is_missing_or_wrong_is_fetched(server, tmp_path):
    fetch("mnist", tmp_path)
    gone, wrong, *_ = sorted((tmp_path / "mnist").iterdir())
    gone.unlink()
    wrong.write_bytes(b"half of i")
    server.asked.clear()
    fetch("mnist", tmp_path)
    assert sorted(server.asked) == sorted([gone.name, wrong.name])
    (tmp_path / ARCHIVE).write_bytes(FILES[ARCHIVE][:50])
    with pytest.raises(InvalidValueError, match="to be a whole"):
        load_data(f"cifar10:{tmp_path}", "test")
    assert load_data(f"cifar10:{tmp_path}", "test", download=True).y.tolist() == [4]


def test_data_that_are_there_in_another_form_are_not_fetched(server, tmp_path):
    file = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    file.parent.mkdir()
    file.write_bytes(RECORD)
    assert len(load_data(f"cifar10:{tmp_path}", "test", download=True)) == 1
    file.write_bytes(RECORD[:-1])
    with pytest.raises(InvalidValueError, match="whole records"):
        load_data(f"cifar10:{tmp_path}", "test", download=True)
    with pytest.raises(MissingFileError, match=r"absent\.tar\.gz to hold"):
        load_data(f"cifar10:{tmp_path / 'absent.tar.gz'}", "test", download=True)
    assert server.asked == []


@pytest.mark.parametrize(
    ("broken", "kind", "message"),
    [
        ("absent", MissingFileError, r"Expected http.*/cifar-10-binary\.tar\.gz to be downloadable, but got: .*404"),
        ("cut", MissingFileError, r"to be downloadable, but got: the connection ended \d+ bytes too early"),
        (
            "changed",
            InvalidValueError,
            r"cifar-10-binary\.tar\.gz to have the SHA-256 [0-9a-f]{64}, but got [0-9a-f]{64}",
        ),
    ],
)
@pytest.mark.parametrize("before", [None, b"damaged"])
def test_a_download_that_fails_leaves_everything_as_it_was(server, tmp_path, broken, kind, message, before):
    server.broken = broken
    if before:
        (tmp_path / ARCHIVE).write_bytes(before)
    with pytest.raises(kind, match=message):
        load_data(f"cifar10:{tmp_path}", "test", download=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([before] if before else [])
    assert server.asked == [ARCHIVE]


def test_no_server(tmp_path, server):
    with pytest.raises(MissingFileError, match=r"to be downloadable, but got: .*refused"):
        fetch("cifar10", tmp_path, "http://127.0.0.1:1/")
    with pytest.raises(MissingFileError, match="to be downloadable, but got: unknown url type"):
        fetch("cifar10", tmp_path, "nowhere/")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_and_a_folder_that_is_a_file(server, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Expected to be able to write .*file"):
        fetch("cifar10", tmp_path / "file")
    (tmp_path / "file").unlink()
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=rf"Expected to be able to write .*{ARCHIVE}, but got: No space left"):
        fetch("cifar10", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_table():
    for name, source in SOURCES.items():
        assert name in registry.DATASETS
        assert source.url.endswith("/")
        for file, digest in source.files.items():
            assert len(bytes.fromhex(digest)) == 32
            assert not file.startswith("/")
    with pytest.raises(InvalidValueError, match=r"one of .*'cifar10'.*, but got 'cifar'; did you mean"):
        fetch("cifar", "anywhere")
