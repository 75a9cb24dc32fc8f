"""``noiserobust figures``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.help import examples
from noiserobust.config import PRECISIONS
from noiserobust.log import say

if TYPE_CHECKING:
    from noiserobust.report.papers import PaperFigure

PORTRAITS = {"7": "plane", "7-surface": "plane", "rwp-2": "line", "rwp-4": "filters"}
"""What the weights have to be looked at for, by the figure that shows it."""


def add_figures(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples(
        "noiserobust figures --from runs results --out figures --only 1 3 --points 11 --examples 200",
        "noiserobust figures --from runs results --out figures --recorded-only",
    )
    parser.add_argument(
        "--from",
        type=Path,
        nargs="+",
        required=True,
        metavar="RUN",
        help="folders of trainings, evaluations, landscapes and filters, or folders that contain some",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures and figures.json, their list")
    parser.add_argument(
        "--only", type=str, nargs="+", metavar="NAME", help="1 to 12 or rwp-2 to rwp-8; default: all there are data for"
    )
    parser.add_argument("--methods", type=str, nargs="+", help="labels of the trainings to draw; default: all")
    parser.add_argument(
        "--levels",
        type=float,
        nargs="+",
        help="noise levels, >= 0, for figures at one level: the highest in 2 and 9, the lowest in 4, 6 and 11; "
        "default: of those there are",
    )
    parser.add_argument("--narrow", action="store_true", help="panels below each other, for one column")
    parser.add_argument(
        "--recorded-only",
        action="store_true",
        help="draw what is recorded; else the landscapes of 7 and rwp-2 and the filters of rwp-4 are computed from the "
        "last weights of the trainings, into OUT/portraits, where they lack",
    )
    parser.add_argument("--points", type=int, default=25, help="of such landscapes, along each direction, >= 2")
    parser.add_argument("--examples", type=int, default=1000, help="of each split for such landscapes, >= 1")
    parser.add_argument("--precision", type=str, default="fp32", help=f"of such landscapes: {' or '.join(PRECISIONS)}")
    parser.add_argument("--device", type=str, default="auto", help="for such landscapes: auto, cpu, cuda:0, ...")
    parser.add_argument("--executor", type=str, default="serial", help="for such landscapes: serial, processes or ray")
    parser.add_argument(
        "--workers", type=int, help="how many, with processes and ray, >= 1; default: one a core, or GPU"
    )


def figures(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.report.papers import check_figures, draw_figures

    folders = list(settings["from"])
    asked = {name: settings[name] for name in ("methods", "levels", "narrow")}
    found = check_figures(folders, settings.out, settings.only, methods=settings.methods, levels=settings.levels)
    failed: list[str] = []
    kinds = list(dict.fromkeys(kind for name, kind in PORTRAITS.items() if not settings.only or name in settings.only))
    if kinds and not settings.recorded_only:
        from noiserobust.diagnose.portraits import PortraitConfig, make_portraits
        from noiserobust.executors import make_executor

        config = PortraitConfig(settings.points, settings.examples, settings.precision, settings.device)
        executor = make_executor(settings.executor, settings.workers)
        runs = {run.name: run.trainings for run in found.runs}
        out = settings.out / "portraits"
        made, failed = make_portraits(runs, folders, out, kinds, config, executor=executor, progress=True)
        folders += made
    for reason in failed:
        say(f"not computed: {reason}")
    for figure in draw_figures(folders, settings.out, settings.only, **asked):
        print(told(figure))


def told(figure: PaperFigure) -> str:
    """Return what is said of a figure: where it is, what it lacks, and what to know."""
    where = [next((str(f) for f in figure.files if f.suffix == ".png"), str(figure.files[0]))] if figure.files else []
    missing = [f"missing: {'; '.join(figure.missing)}"] if figure.missing else []
    notes = [f"note: {'; '.join(figure.notes)}"] if figure.notes else []
    return f"figure {figure.name}: {'; '.join([*where, *missing, *notes])}"
