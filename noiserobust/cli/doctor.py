"""``noiserobust doctor``: what works on this machine, and why something does not."""

from __future__ import annotations

import json

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.help import examples
from noiserobust.errors import check_choice, check_number

FORMATS = ("text", "json")


def add_doctor(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples("noiserobust doctor", "noiserobust doctor --thorough --format json")
    parser.add_argument("--thorough", action="store_true", help="also start Ray and compile with torch: a minute more")
    parser.add_argument("--format", type=str, default="text", help="text or json")
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="longest time that one thing may take to be tried, in seconds, > 0"
    )


def doctor(settings: Namespace) -> None:
    """Run it."""
    check_choice("format", settings.format, FORMATS)
    timeout = check_number("timeout", settings.timeout, above=0)
    from noiserobust.doctor import as_text, examine

    found = examine(thorough=settings.thorough, timeout=timeout)
    if settings.format == "json":
        print(json.dumps(found.as_dict(), indent=2))
    else:
        print(as_text(found))
