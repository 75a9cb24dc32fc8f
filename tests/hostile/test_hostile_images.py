"""Folders of images from strangers: links that lead in circles, files that are no images, images of any size."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from noiserobust.data import imagefolder
from noiserobust.data.registry import load_data
from noiserobust.errors import InvalidValueError


def save(path, size=(4, 5), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)).save(path, **options)


def read(folder, split="train"):
    return load_data(f"imagefolder:{folder}", split)


def png(width, height, rows=b"", chunks=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(width, height):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


FOREIGN = {
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n(it_ran) (w) file closefile\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="4" height="5"><image href="file:///etc/passwd"/></svg>',
    "tiff": b"II*\0\x08\0\0\0\0\0",
    "gif": b"GIF89a\x04\0\x05\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x04\0\x05\0\0\x02\x05\x84\x8f\xa9\xcb\x05\0;",
    "pickle": b"cos\nsystem\n(S'touch it_ran'\ntR.",
    "wide png": png(2**31 - 1, 2**31 - 1),
    "negative png": png(2**32 - 1, 1),
    "empty png": png(0, 0),
    "large png": png(20_000, 20_000),
    "short png": png(4, 5, b"\0" * 3),
    "large bmp": bmp(2**31 - 1, 2**31 - 1),
    "negative bmp": bmp(-4, -5),
    "lowest bmp": bmp(4, -(2**31)),
    "webp": b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
    "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("extension", ["png", "jpg", "bmp", "webp"])
def test_what_is_no_image_of_the_known_formats(untouched, monkeypatch, content, extension):
    monkeypatch.chdir(untouched)
    for name in ("0", "z"):  # the first one and another
        save(untouched / "class" / "5.png")
        (untouched / "class" / f"{name}.{extension}").write_bytes(content)
        for scale in ("", "@size=4"):
            with pytest.raises(InvalidValueError, match=rf"{name}\.{extension}"):
                read(f"{untouched}{scale}")
        (untouched / "class" / f"{name}.{extension}").unlink()
    assert [p.name for p in untouched.rglob("*")] == ["class", "5.png"]


def test_a_small_file_of_many_pixels(untouched):
    save(untouched / "class" / "0.png")
    rows = zlib.compress(bytes(10**6))
    assert len(rows) < 2000
    (untouched / "class" / "1.png").write_bytes(png(9_500, 9_500, bytes(10**6)))  # 270 MB, if it was true
    with pytest.raises(InvalidValueError, match=r"1\.png .*decompression bomb"):
        read(f"{untouched}@size=4")


def test_text_that_unpacks_to_too_much(untouched):
    content = b"Comment\0\0" + zlib.compress(bytes(2**26))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    (untouched / "class").mkdir()
    (untouched / "class" / "0.png").write_bytes(png(4, 5, bytes(65), chunk))
    with pytest.raises(InvalidValueError, match=r"0\.png to be a readable image, but got: .*(too large|larg)"):
        read(untouched)


def test_links_that_lead_in_circles(untouched):
    save(untouched / "class" / "0.png")
    (untouched / "class" / "again").symlink_to("..", target_is_directory=True)
    with pytest.raises(InvalidValueError, match=r"to hold every folder once, but .*again.* is a link to one of them"):
        read(untouched)
    (untouched / "class" / "again").unlink()
    # Each folder holds the next one twice: after 60 of them there would be 2^60 images.
    deepest = untouched / "0"
    save(deepest / "0.png")
    for number in range(1, 60):
        folder = untouched / f"{number}"
        folder.mkdir()
        for name in "ab":
            (folder / name).symlink_to(f"../{number - 1}", target_is_directory=True)
    with pytest.raises(InvalidValueError, match="to hold every folder once"):
        read(untouched)


def test_links_that_lead_to_one_place_are_followed(untouched, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "0.png")
    save(elsewhere / "deep" / "1.png")
    (untouched / "class").symlink_to(elsewhere, target_is_directory=True)
    assert len(read(untouched)) == 2


def test_links_to_nothing_and_to_themselves(untouched):
    save(untouched / "class" / "0.png")
    for target in ("absent", "1.png"):
        (untouched / "class" / "1.png").symlink_to(target)
        with pytest.raises((InvalidValueError, FileNotFoundError), match=r"^Expected .*1\.png"):
            read(untouched)
        (untouched / "class" / "1.png").unlink()


def test_names_that_are_not_utf8(untouched):
    save(untouched / "class" / "0.png")
    os.mkdir(os.fsencode(untouched) + b"/\xff\xfe")
    save(untouched / os.fsdecode(b"\xff\xfe") / "0.png")
    with pytest.raises(InvalidValueError, match=r"names of classes in .* to be UTF-8, but got \\udcff\\udcfe"):
        read(untouched)


def test_no_image_is_opened_as_a_format_that_runs_programs():
    assert set(imagefolder._FORMATS) == {"PNG", "JPEG", "BMP", "WEBP"}
