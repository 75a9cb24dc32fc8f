"""Servers that never stop, that lie about the length, or that send something else: nothing is kept."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from noiserobust.data import download
from noiserobust.data.download import fetch
from noiserobust.errors import InvalidValueError, MissingFileError

LIMIT = 3 * 2**20


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        kind = self.path.split("/")[1]
        self.send_response(302 if kind == "elsewhere" else 200)
        if kind == "elsewhere":
            self.send_header("Location", "file:///etc/passwd")
        if kind in ("negative", "huge", "word"):
            self.send_header("Content-Length", {"negative": "-5", "huge": "9" * 30, "word": "many"}[kind])
        self.end_headers()
        try:
            for _ in range(LIMIT if kind == "endless" else 1):
                self.wfile.write(bytes(2**16))
        except OSError:
            pass  # the other side has had enough

    def log_message(self, *_):
        pass


@pytest.fixture
def url(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "SIZE_LIMIT", LIMIT)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("endless", MissingFileError, "more than 3,145,728 bytes, which is none of the files it could be"),
        ("elsewhere", MissingFileError, "to be downloadable, but got: .*file:///etc/passwd"),
        ("negative", InvalidValueError, "to have the SHA-256"),
        ("huge", MissingFileError, "to be downloadable, but got: "),
        ("word", MissingFileError, "to be downloadable, but got: invalid literal"),
        ("other", InvalidValueError, "to have the SHA-256"),
    ],
)
def test_nothing_is_kept_of_it(untouched, url, kind, error, message):
    with pytest.raises(error, match=message):
        fetch("cifar10", untouched, f"{url}{kind}/")
    assert list(untouched.iterdir()) == []
