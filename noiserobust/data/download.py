"""Fetching the data sets of the papers, whole and as published, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tqdm import tqdm

from noiserobust.errors import InvalidValueError, MissingFileError, NoiseRobustError, OutputError, unknown_name
from noiserobust.log import quiet
from noiserobust.results.files import make_folder, replacing, sha256

TIMEOUT_S = 60
#: Of a file; the largest of :data:`SOURCES` has 170 MB.
SIZE_LIMIT = 2**30
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Source:
    """Where the files of a data set are published.

    Args:
        url: of the folder that holds them, ending in ``/``.
        files: SHA-256 of each file by its path below the data folder; its last part is its name below ``url``.
    """

    url: str
    files: Mapping[str, str]


_KRIZHEVSKY = "https://www.cs.toronto.edu/~kriz/"
#: The sums were compared with those of several projects that publish them; they belong to the files with the MD5 sums
#: c32a1d4a... and 03b5dce0... (CIFAR), f68b3c2d..., d53e105e..., 9fb629c4..., ec29112d... (MNIST) and 8d4fb7e6...,
#: 25c81989..., bef4ecab..., bb300cfd... (Fashion-MNIST) of the authors and of torchvision. The binary form of CIFAR is
#: the one that needs no unpickling.
SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "cifar10": Source(
            _KRIZHEVSKY,
            {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
        ),
        "cifar100": Source(
            _KRIZHEVSKY,
            {"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
        ),
        "mnist": Source(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            {
                "mnist/train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "mnist/train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "mnist/t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "mnist/t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            },
        ),
        "fashion-mnist": Source(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            {
                f"fashion-mnist/{name}-ubyte.gz": digest
                for name, digest in {
                    "train-images-idx3": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "train-labels-idx1": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "t10k-images-idx3": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "t10k-labels-idx1": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                }.items()
            },
        ),
    }
)


def how_to_get(name: str) -> str:
    """Return what an error says about getting a data set of :data:`SOURCES`."""
    return f"get it with `--download` (in Python, `download=True`) or from {SOURCES[name].url}"


def fetch(name: str, folder: Path, url: str | None = None) -> None:
    """Download the files of a data set that are not there yet; those with the right sum are left alone.

    A file gets its name only when all of it is on the disk and its sum is right.

    Args:
        name: one of :data:`SOURCES`.
        folder: the data folder; made if it does not exist.
        url: of another folder that holds the same files, ending in ``/``.

    Raises:
        InvalidValueError: if there is no source of that name, or a file is not the one published.
        MissingFileError: if a file cannot be got: no connection, an HTTP error, or a connection that broke.
        OutputError: if it cannot be written.
    """
    if name not in SOURCES:
        raise unknown_name("data", name, SOURCES)
    source = SOURCES[name]
    for file, digest in source.files.items():
        path = folder / file
        if not (path.is_file() and sha256(path) == digest):
            make_folder(path.parent)
            _download((url or source.url) + path.name, path, digest)


def _download(url: str, path: Path, digest: str) -> None:
    found = hashlib.sha256()
    try:
        with replacing(path) as temporary:
            with temporary.open("wb") as file:
                for chunk in _chunks(url):
                    found.update(chunk)
                    file.write(chunk)
            if found.hexdigest() != digest:
                raise InvalidValueError(
                    f"Expected {url} to have the SHA-256 {digest}, but got {found.hexdigest()}; nothing was kept of it"
                )
    except NoiseRobustError:
        raise
    except OSError as error:
        raise OutputError(f"Expected to be able to write {path}, but got: {error.strerror or error}") from error


def _chunks(url: str) -> Iterator[bytes]:
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "noiserobust"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            length = int(response.headers.get("Content-Length") or 0)
            bar = tqdm(desc=url, total=length or None, unit="B", unit_scale=True, disable=quiet() or None, leave=False)
            size = 0
            with bar:
                while chunk := response.read(_CHUNK):
                    bar.update(len(chunk))
                    size += len(chunk)
                    if size > SIZE_LIMIT:
                        raise ValueError(f"more than {SIZE_LIMIT:,} bytes, which is none of the files it could be")
                    yield chunk
            # Reading in parts ends without an error when the other side hangs up.
            if size < length:
                raise ConnectionError(f"the connection ended {length - size:,} bytes too early")
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise MissingFileError(f"Expected {url} to be downloadable, but got: {error}") from error
