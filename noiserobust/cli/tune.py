"""``noiserobust tune``."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.executing import add_executing, executing
from noiserobust.cli.help import examples
from noiserobust.cli.parsing import DOWNLOAD, checked_settings
from noiserobust.cli.sweep import check_all_done
from noiserobust.config import TrainConfig
from noiserobust.errors import MissingFileError


def add_tune(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples(
        "noiserobust tune --profile pcm-nandakumar-2019 --config base.yaml --trials 12 --out tuned/pcm"
    )
    parser.add_argument("--profile", type=str, required=True, help="the device: a profile's name, or FILE.yaml")
    parser.add_argument("--t", type=str, default="1d", help="time since programming that is tuned for; default: 1d")
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        help="YAML file with settings of train; its epochs are the budget of each trial, its method, "
        "clipping of weights and average do not count",
    )
    parser.add_argument("--trials", type=int, default=24, help="how many, >= 1; default: 24")
    parser.add_argument(
        "--together", type=int, default=4, help="trials proposed, and possibly done, at the same time, >= 1; default: 4"
    )
    parser.add_argument(
        "--trial-seeds",
        type=int,
        default=1,
        help="train seeds of each trial, >= 1: more are surer and slower; default: 1",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="train seeds of the winner and its rivals, >= 0"
    )
    parser.add_argument(
        "--times", type=str, nargs="+", default=["1s", "1d", "1y"], help="since programming, of the last comparison"
    )
    parser.add_argument("--draws", type=int, default=10, help="chips of the last comparison for each time, >= 1")
    parser.add_argument("--no-prune", action="store_true", help="let poor trials go on to their end")
    add_executing(parser)
    parser.add_argument(
        "--retry", action="store_true", help="do trainings of the last comparison again that have failed"
    )
    parser.add_argument("--resume", action="store_true", help="insist that the folder holds this search already")
    parser.add_argument("--download", action="store_true", help=DOWNLOAD)
    parser.add_argument("--out", type=Path, required=True, help="folder; trials that are over are kept")


def tune(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.tune.search import TuneConfig
    from noiserobust.tune.search import tune as search
    from noiserobust.tune.trials import TRIALS_FOLDER
    from noiserobust.yamlfile import read_settings

    if settings.resume and not (settings.out / TRIALS_FOLDER).is_dir():
        raise MissingFileError(f"Expected {settings.out} to hold a search to resume, but it does not")
    executor, device = executing(settings)
    config = TuneConfig(
        checked_settings(TrainConfig, read_settings(settings.config)),
        settings.profile,
        settings.t,
        settings.trials,
        settings.together,
        settings.trial_seeds,
        settings.seeds,
        settings.times,
        settings.draws,
        not settings.no_prune,
    )
    how = {"executor": executor, "threads": settings.threads, "retry": settings.retry, "download": settings.download}
    found = search(config, settings.out, device=device, progress=True, **how)
    print(found.table.to_string(index=False, na_rep="", float_format="%.4g"))
    print(f"each trial had at most {config.base.epochs} epochs of one pass a step, or half as many of two")
    print(f"{settings.out}: winner.yaml, trials.csv")
    if found.final.joined is not None:
        print(found.final.joined.report)
    check_all_done(found.comparison, settings.out, found.final)
