"""``noiserobust sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.executing import add_executing, executing
from noiserobust.cli.help import examples
from noiserobust.cli.parsing import DOWNLOAD, checked_settings
from noiserobust.config import TrainConfig
from noiserobust.errors import MissingFileError, NoiseRobustError
from noiserobust.progress import duration

if TYPE_CHECKING:
    from noiserobust.sweep.plan import Sweep
    from noiserobust.sweep.run import SweepResult
    from noiserobust.sweep.state import State


class UnfinishedSweepError(NoiseRobustError, RuntimeError):
    """Some jobs of a sweep could not be done."""


def add_sweep(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples(
        "noiserobust sweep --config sweep.yaml --dry-run --out sweeps/digits",
        "noiserobust sweep --config sweep.yaml --executor processes --out sweeps/digits",
        "noiserobust sweep --config sweep.yaml --status --out sweeps/digits",
    )
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        help="YAML file: `base` (settings of train), `grid` (settings with lists of alternatives, or several such), "
        "`seeds`, `evaluate` (settings of evaluate, or several by name)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="train seeds, integers >= 0, in place of the file's")
    add_executing(parser)
    parser.add_argument("--retry", action="store_true", help="do jobs again that have failed")
    parser.add_argument("--resume", action="store_true", help="insist that the folder holds jobs already")
    parser.add_argument("--status", action="store_true", help="only say how far the jobs are; may be asked at any time")
    parser.add_argument("--dry-run", action="store_true", help="only list the jobs")
    parser.add_argument("--download", action="store_true", help=DOWNLOAD)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for jobs and joint results; finished jobs are kept, also those of other sweeps that use it",
    )


def read(path: Path, seeds: Sequence[int] | None = None) -> Sweep:
    """Read the file of a sweep, its settings checked as those of ``train`` and ``evaluate`` are.

    Args:
        path: YAML.
        seeds: train seeds in place of those of the file.

    Raises:
        NoiseRobustError: if it does not exist or a setting is not valid.
    """
    from noiserobust.sweep.plan import EvaluationConfig, read_sweep

    return read_sweep(
        path,
        lambda content: checked_settings(TrainConfig, content),
        lambda content: checked_settings(EvaluationConfig, content),
        seeds,
    )


def sweep(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.sweep.plan import JOBS_FOLDER

    found = read(settings.config, settings.seeds)
    if settings.resume and not (settings.out / JOBS_FOLDER).is_dir():
        raise MissingFileError(f"Expected {settings.out} to hold a sweep to resume, but it does not")
    if settings.status or settings.dry_run:
        _show(found, settings.out)
        return
    from noiserobust.sweep.run import run_sweep

    executor, device = executing(settings)
    result = run_sweep(
        found,
        settings.out,
        device=device,
        executor=executor,
        threads=settings.threads,
        retry=settings.retry,
        download=settings.download,
        progress=True,
    )
    if result.joined is not None:
        print(f"{result.joined.folder}: jobs.csv, draws.csv, summary.csv, manifest.json")
        print(result.joined.report)
    check_all_done(found, settings.out, result)


def check_all_done(found: Sweep, out: Path, result: SweepResult) -> None:
    """Say of jobs that failed why, and raise, if there are any."""
    from noiserobust.sweep.run import failures

    if result.failed:
        print(*failures(found, out, result.states), sep="\n")
        raise UnfinishedSweepError(
            f"Expected all {len(found.jobs)} jobs to be done, but {len(result.failed)} failed; the others are done, "
            "`--retry` tries these again"
        )


def _show(found: Sweep, out: Path) -> None:
    """Print how far each job is."""
    from noiserobust.sweep.state import FAILED, STATES, last_lines, state_of

    states = {name: state_of(out, job, found) for name, job in found.jobs.items()}
    width = max(len(job.title) for job in found.jobs.values())
    for name, job in found.jobs.items():
        state = states[name]
        lines = last_lines(out, job, 1)
        more = (
            state.error
            if state.word == FAILED
            else _took(state) or (lines[0] if state.word == "running" and lines else "")
        )
        print(f"{name}  {job.title:<{width}}  {state.word:<8}  {more}".rstrip())
    counts = [(word, sum(state.word == word for state in states.values())) for word in STATES]
    print(", ".join(f"{number} {word}" for word, number in counts if number))


def _took(state: State) -> str:
    return "" if state.seconds is None else duration(state.seconds)
