"""``noiserobust report`` and ``compare``."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.help import examples
from noiserobust.errors import InvalidValueError, check_choice
from noiserobust.log import note

FORMATS = ("text", "markdown", "latex", "csv", "json")


def add_report(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples("noiserobust report results runs --spec 90 --target 0.2 --out report")
    parser.add_argument(
        "folders", type=Path, nargs="+", help="result folders, or folders that contain some; also trainings, diagnoses"
    )
    parser.add_argument(
        "--spec",
        type=float,
        help="accuracy in percent that a good chip has; default: clean - drop",
    )
    parser.add_argument(
        "--target",
        type=str,
        nargs="+",
        default=[],
        help="the level that counts, 0.1 or 1d or gaussian=0.1; default: the largest of each noise",
    )
    parser.add_argument(
        "--drop", type=float, default=5.0, help="points of accuracy that may be lost at a tolerable level"
    )
    parser.add_argument("--baseline", type=str, help="the method that others are compared with; default: the first")
    parser.add_argument(
        "--published", type=Path, nargs="+", default=[], help="CSV files of what others found, to be shown beside"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, tables and figures")


def report(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.report import write_report

    names = ("spec", "target", "drop", "baseline")
    criteria = {name: settings[name] for name in names}
    print(write_report(settings.folders, settings.out, published=settings.published, **criteria).html)


def add_compare(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples(
        "noiserobust compare results/gaussian --baseline sgd",
        "noiserobust compare results/gaussian --format latex --out table.tex",
    )
    parser.add_argument("folders", type=Path, nargs="+", help="result folders, or folders that contain some")
    parser.add_argument("--baseline", type=str, help="the method that others are compared with; default: the first")
    parser.add_argument("--apart", action="store_true", help="take each folder for a method of its own, named after it")
    parser.add_argument("--format", type=str, default="text", help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    parser.add_argument("--out", type=Path, help="a file; default: the terminal")


def compare(settings: Namespace) -> None:
    """Run it."""
    check_choice("format", settings.format, FORMATS)
    from noiserobust.report.gather import kind_of

    if settings.out is not None and (settings.out.is_dir() or kind_of(settings.out.parent)):
        raise InvalidValueError(f"Expected `out` to be a file outside of results, but got {settings.out}")
    from noiserobust.report.compare import compare_folders, write_comparison
    from noiserobust.results.files import write_atomic

    found = compare_folders(settings.folders, settings.baseline, apart=settings.apart)
    for text in found.notes:
        note(text)
    table = write_comparison(found, settings.format)
    if settings.out is None:
        print(table)
        return
    write_atomic(settings.out.resolve(), table + "\n")
    print(settings.out)
