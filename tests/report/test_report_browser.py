"""The report in a real browser: that it shows without errors and network, on a phone, in the dark and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import OpenPage
from report_folders import given_rows, make_folder

from noiserobust.report import Report, write_report

pytestmark = pytest.mark.slow

TIMES = (3600.0, 86400.0, 31557600.0)
PHONE = {"width": 390, "height": 844}
FAULTY = """<!doctype html><meta charset="utf-8"><title>faulty</title>
<body style="margin: 0"><img src="other.png" alt=""><div style="width: 500px">wide</div>
<script>
console.error("said"); console.log("not an error");
fetch("https://example.org/data").catch(() => {});
try { new WebSocket("wss://example.org/socket") } catch {}
document.title = "run"; undefined_function()
</script>"""


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
    open_page: OpenPage, rich: Report, javascript: bool
) -> None:
    with open_page(rich.html, javascript=javascript) as opened:
        assert opened.page.title().startswith("Robustness to weight noise")
        assert opened.page.locator("svg:visible").count() >= 2
        assert opened.page.locator("table:visible").count() >= 2
        assert opened.errors == []
        assert opened.requests == []


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_does_not_scroll_sideways(open_page: OpenPage, rich: Report, color_scheme: str) -> None:
    with open_page(rich.html, **PHONE, color_scheme=color_scheme) as opened:
        whole, seen = width_of(opened)
        assert seen == 390
        assert whole <= seen


def test_the_page_is_dark_where_dark_is_wished_for(open_page: OpenPage, rich: Report) -> None:
    with open_page(rich.html) as opened:
        assert brightness(opened) > 220
    with open_page(rich.html, color_scheme="dark") as opened:
        assert brightness(opened) < 60


def test_the_page_can_be_printed(open_page: OpenPage, rich: Report) -> None:
    with open_page(rich.html) as opened:
        assert n_pages(opened.page.pdf(format="A4")) >= 1
        assert opened.errors == []


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_paper_is_white_has_no_switch_and_holds_all_numbers(
    open_page: OpenPage, rich: Report, color_scheme: str
) -> None:
    with open_page(rich.html, media="print", color_scheme=color_scheme) as opened:
        page = opened.page
        assert brightness(opened) == 255
        assert page.locator(".switch").count() == 2
        assert page.locator(".switch:visible").count() == 0
        numbers = page.locator(".noise details table.long")
        assert numbers.count() == 2
        for table in numbers.all():
            assert table.evaluate("table => table.getBoundingClientRect().height") > 200
            assert table.evaluate("table => table.checkVisibility({contentVisibilityAuto: true})")
        # What the switch shows at first is on paper, under a heading that says the level.
        shown = page.locator(".panel:visible h3")
        assert [heading.inner_text() for heading in shown.all()] == ["Chips at sigma = 0.2", "Chips at t = 1 d"]
        assert all(heading.bounding_box()["height"] > 5 for heading in shown.all())
        assert opened.errors == []
        assert opened.requests == []


LEVELS = "table.levels >> nth=0"


def column_of(opened, table: str, place: int) -> list[str]:
    """Return the first line of the cells of a column, as they stand."""
    rows = opened.page.locator(table).locator("tbody tr").all()
    return [row.locator("th, td").nth(place).inner_text().split("\n")[0].strip() for row in rows]


def numbers_of(opened, table: str, place: int) -> list[float]:
    return [float(text.split()[0]) for text in column_of(opened, table, place)]


def head_of(opened, table: str, place: int):
    return opened.page.locator(table).locator(f"th[data-sort='{place}']")


def test_a_click_on_a_head_sorts_by_number_and_another_one_back(open_page: OpenPage, rich: Report) -> None:
    with open_page(rich.html) as opened:
        before = numbers_of(opened, LEVELS, 3)
        names = dict(zip(before, column_of(opened, LEVELS, 0), strict=True))
        assert before != sorted(before, reverse=True)
        head = head_of(opened, LEVELS, 3)
        assert head.inner_text().strip() == "0.2"
        assert head.get_attribute("aria-sort") is None
        head.locator("button").click()
        assert numbers_of(opened, LEVELS, 3) == sorted(before, reverse=True)
        assert column_of(opened, LEVELS, 0) == [names[v] for v in sorted(before, reverse=True)]
        assert head.get_attribute("aria-sort") == "descending"
        head.locator("button").click()
        assert numbers_of(opened, LEVELS, 3) == sorted(before)
        assert head.get_attribute("aria-sort") == "ascending"
        # Names go up first; only one head says that it is the order.
        head_of(opened, LEVELS, 0).locator("button").click()
        assert column_of(opened, LEVELS, 0) == ["RWP-0.1", "RWP-0.2", "RWP-0.3", "SAM", "SGD"]
        assert head.get_attribute("aria-sort") is None
        assert opened.page.locator(LEVELS).locator("[aria-sort]").count() == 1
        assert opened.errors == []


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts_too(open_page: OpenPage, rich: Report, key: str) -> None:
    with open_page(rich.html) as opened:
        button = head_of(opened, LEVELS, 2).locator("button")
        button.focus()
        opened.page.keyboard.press(key)
        found = numbers_of(opened, LEVELS, 2)
        assert found == sorted(found, reverse=True)
        assert head_of(opened, LEVELS, 2).get_attribute("aria-sort") == "descending"
        opened.page.keyboard.press(key)
        assert numbers_of(opened, LEVELS, 2) == sorted(found)


def test_numbers_that_are_no_text_are_sorted_as_numbers(open_page: OpenPage, rich: Report) -> None:
    """Differences have a minus sign of their own, shares a percent sign."""
    with open_page(rich.html) as opened:
        table = ".panel:visible table.sortable:not(.chips) >> nth=0"
        for place in (1, 4):
            texts = column_of(opened, table, place)
            values = [float(re.sub(r"[+%<>]", "", text.replace("−", "-"))) for text in texts]
            head_of(opened, table, place).locator("button").click()
            found = [float(re.sub(r"[+%<>]", "", t.replace("−", "-"))) for t in column_of(opened, table, place)]
            assert found == sorted(values, reverse=True)


def test_what_is_missing_stands_last_and_what_is_beyond_all_levels_first(open_page: OpenPage, tmp_path: Path) -> None:
    """B falls by so much, A not at all, D not within the times that it has, and C has no clean number."""
    falls = {"B": [92.0, 80.0, 60.0], "A": [92.0, 91.0, 90.0], "D": [92.0, 90.0, 70.0], "C": [91.0, 85.0, 75.0]}
    rows = given_rows(
        {
            (m, s): ({} if m == "C" else {0.0: [92.5]}) | {t: [v, v + 1] for t, v in zip(TIMES, row, strict=True)}
            for m, row in falls.items()
            for s in (0, 1)
        },
        noise="pcm",
        level_name="t",
    )
    folder = make_folder(tmp_path / "r", [r for r in rows if (r["method"], r["level"]) != ("D", TIMES[2])])
    with open_page(write_report([folder], tmp_path / "out").html) as opened:
        summary = ".summary table"
        place = 3
        assert head_of(opened, summary, place).inner_text().startswith("Tolerable")
        head_of(opened, summary, place).locator("button").click()
        down = column_of(opened, summary, 0)
        assert down == ["A", "D", "B", "C"]
        assert column_of(opened, summary, place)[:2] == ["> 1 y", "> 1 d"]
        head_of(opened, summary, place).locator("button").click()
        up = column_of(opened, summary, 0)
        assert up == ["B", "A", "D", "C"]  # missing values are last in both orders
        head_of(opened, LEVELS, 4).locator("button").click()
        assert column_of(opened, LEVELS, 0)[-1] == "D"
        assert column_of(opened, LEVELS, 4)[-1] == "missing"
        head_of(opened, LEVELS, 4).locator("button").click()
        assert column_of(opened, LEVELS, 0)[-1] == "D"
        assert opened.errors == []


def test_columns_of_words_are_sorted_as_words(open_page: OpenPage, rich: Report) -> None:
    with open_page(rich.html) as opened:
        opened.page.locator("summary", has_text="All layers").click()
        table = "section[aria-labelledby=sensitivity] table"
        head_of(opened, table, 1).locator("button").click()
        assert column_of(opened, table, 1) == ["SGD"] * 6 + ["RWP-0.2"] * 6
        head_of(opened, table, 1).locator("button").click()
        assert column_of(opened, table, 1) == ["RWP-0.2"] * 6 + ["SGD"] * 6


def test_the_switch_shows_another_level(open_page: OpenPage, rich: Report) -> None:
    with open_page(rich.html) as opened:
        group = opened.page.locator("[data-switch]").first
        panels, choice = group.locator(".panel"), group.locator("select")
        assert choice.is_visible()
        assert group.locator("option").all_inner_texts() == ["0.1", "0.2"]
        assert choice.input_value() == "2"  # the target
        assert [panel.is_visible() for panel in panels.all()] == [False, True]
        choice.select_option(label="0.1")
        assert [panel.is_visible() for panel in panels.all()] == [True, False]
        assert group.locator(".chips:visible").count() == 1
        other = opened.page.locator("[data-switch]").nth(1)
        assert [panel.is_visible() for panel in other.locator(".panel").all()] == [False, False, True, False]
        choice.select_option(label="0.2")
        assert [panel.is_visible() for panel in panels.all()] == [False, True]
        assert opened.errors == []
        assert opened.requests == []


def test_the_page_works_without_its_script(open_page: OpenPage, rich: Report) -> None:
    with open_page(rich.html, javascript=False) as opened:
        page = opened.page
        assert page.locator("button").count() == 0  # nothing to press that does nothing
        assert page.locator(".switch").count() == 2
        assert page.locator(".switch:visible").count() == 0
        headings = page.locator(".panel:visible h3").all_inner_texts()
        assert headings == ["Chips at sigma = 0.2", "Chips at t = 1 d"]
        assert page.locator(".panel:visible .strip").count() == 10
        page.locator("summary", has_text="All numbers of gaussian").click()
        assert page.locator("details[open] table.long").is_visible()
        assert opened.errors == []
        assert opened.requests == []


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
