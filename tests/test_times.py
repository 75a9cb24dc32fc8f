import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiserobust.errors import InvalidValueError
from noiserobust.times import SECONDS, format_time, parse_time

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=300)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("1", 1),
        ("2.5 min", 150),
        ("30min", 1800),
        ("1h", 3600),
        ("1D", 24 * 3600),
        ("1w", 7 * 24 * 3600),
        ("12mo", 365.25 * 24 * 3600),
        (" 1 y ", 365.25 * 24 * 3600),
        ("250e-9s", 250e-9),
        ("1E3", 1000),
        (".5h", 1800),
        (20, 20),
        (0.25, 0.25),
    ],
)
def test_times_are_read_as_people_write_them(text, seconds):
    parsed = parse_time(text)
    assert type(parsed) is float
    assert parsed == seconds


@pytest.mark.parametrize(
    "bad",
    [
        *("1x", "s", "", " ", "-1s", "+1s", "1 s s", "1h30min", "nan", "inf", "1.2.3s", "1m", "1e", "1,5 h", "1_000"),
        *("0s", "0", "1e999y", 0, 0.0, -1, math.nan, math.inf, True, None, [1], "١s"),
    ],
    ids=repr,
)
def test_what_is_no_time_after_programming_is_refused(bad):
    with pytest.raises(InvalidValueError, match=r"^Expected `t` to be .*, but got "):
        parse_time(bad)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 s"),
        (0.25, "0.25 s"),
        (60, "1 min"),
        (5400, "1.5 h"),
        (86400, "1 d"),
        (7 * 86400, "7 d"),
        (1000 * 86400, "1000 d"),
        (31557600, "1 y"),
        (10 * 31557600, "10 y"),
        (66, "1.1 min"),
        (1e6, "1000000 s"),
        (1234567, "1.23457e+06 s"),
    ],
)
def test_times_are_written_in_their_largest_plain_unit(seconds, text):
    assert format_time(seconds) == text


@PROPERTY
@given(st.integers(1, 999), st.sampled_from(["s", "min", "h", "d", "y"]))
def test_a_plain_number_of_a_unit_survives_writing_and_reading(number, unit):
    seconds = number * SECONDS[unit]
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, rel=1e-12)


@PROPERTY
@given(st.floats(1e-9, 1e12))
def test_any_time_survives_to_six_digits(seconds):
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, rel=1e-5)
