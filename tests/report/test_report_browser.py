"""The report in a real browser: that it shows without errors and network, on a phone, in the dark and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import OpenPage
from report_folders import PCM, make_folder, make_rows

from noiserobust.report import write_report

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
FAULTY = """<!doctype html><meta charset="utf-8"><title>faulty</title>
<body style="margin: 0"><img src="other.png" alt=""><div style="width: 500px">wide</div>
<script>
console.error("said"); console.log("not an error");
fetch("https://example.org/data").catch(() => {});
try { new WebSocket("wss://example.org/socket") } catch {}
document.title = "run"; undefined_function()
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of two noises, one of them drift."""
    base = tmp_path_factory.mktemp("report")
    trained = (["SGD", "SAM"], [0, 1, 2])
    make_folder(base / "runs" / "g", list(make_rows(*trained, "gaussian", "sigma", (0.0, 0.1, 0.2), 3)))
    make_folder(base / "runs" / "p", list(make_rows(*trained, *PCM, 3)))
    return write_report([base / "runs"], base / "out").html


def width_of(opened) -> tuple[int, int]:
    """Return how wide the document is, and what of it is in view."""
    root = "document.documentElement"
    return opened.page.evaluate(f"[{root}.scrollWidth, {root}.clientWidth]")


def brightness(opened) -> float:
    """Return the mean of red, green and blue of the page's background, of 255."""
    color = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    parts = [float(part) for part in re.findall(r"[\d.]+", color)]
    assert len(parts) == 3, f"{color} is no opaque colour"
    return sum(parts) / 3


def n_pages(pdf: bytes) -> int:
    assert pdf.startswith(b"%PDF-")
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.parametrize("javascript", [True, False], ids=["script", "no script"])
def test_the_page_shows_without_errors_and_asks_for_nothing(
    open_page: OpenPage, report: Path, javascript: bool
) -> None:
    with open_page(report, javascript=javascript) as opened:
        assert opened.page.title().startswith("Robustness to weight noise")
        assert opened.page.locator("svg:visible").count() >= 2
        assert opened.page.locator("table:visible").count() >= 2
        assert opened.errors == []
        assert opened.requests == []


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_does_not_scroll_sideways(open_page: OpenPage, report: Path, color_scheme: str) -> None:
    with open_page(report, **PHONE, color_scheme=color_scheme) as opened:
        whole, seen = width_of(opened)
        assert seen == 390
        assert whole <= seen


def test_the_page_is_dark_where_dark_is_wished_for(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as opened:
        assert brightness(opened) > 220
    with open_page(report, color_scheme="dark") as opened:
        assert brightness(opened) < 60


def test_the_page_can_be_printed(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as opened:
        assert n_pages(opened.page.pdf(format="A4")) >= 1
        assert opened.errors == []


def test_what_the_tests_above_look_for_is_found(open_page: OpenPage, tmp_path: Path) -> None:
    page = tmp_path / "faulty page.html"
    page.write_text(FAULTY, encoding="utf-8")
    with open_page(page, **PHONE) as opened:
        opened.page.wait_for_function("document.title === 'run'")
        assert "said" in opened.errors
        assert any("undefined_function" in error for error in opened.errors)
        assert "not an error" not in opened.errors
        assert set(opened.requests) == {
            (tmp_path / "other.png").as_uri(),
            "https://example.org/data",
            "wss://example.org/socket",
        }
        assert width_of(opened) == [500, 390]
    with open_page(page, javascript=False) as opened:
        assert opened.page.title() == "faulty"
        assert opened.errors == ["Failed to load resource: net::ERR_FAILED"]
        assert opened.requests == [(tmp_path / "other.png").as_uri()]
    with open_page(page, media="print") as opened:
        assert opened.page.evaluate("matchMedia('print').matches")
