"""``noiserobust demo``, ``evaluate`` and ``merge``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.help import examples
from noiserobust.cli.parsing import DATA, DOWNLOAD, SPLIT, model_args
from noiserobust.config import PRECISIONS
from noiserobust.errors import InvalidValueError
from noiserobust.log import say
from noiserobust.progress import duration

if TYPE_CHECKING:
    from noiserobust.evaluate.files import EvaluateConfig
    from noiserobust.evaluate.rehearsal import Rehearsal

_PRECISION = ["method", "train_seed", "level", "mean", "half_width", "noise_std", "noise_std_low", "noise_std_high"]
_PRECISION += ["n_draws", "passes", "plain_passes"]


def add_demo(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples("noiserobust demo --out demo")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for weights, results and the report")


def demo(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.demo import run_demo

    run_demo(settings.out)


def add_evaluate(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples(
        "noiserobust evaluate --model digits-mlp --weights runs/*/seed*/best.safetensors --data digits \\\n"
        "--noise gaussian --levels 0 0.1 0.2 --draws 10 --out results/gaussian",
        "noiserobust evaluate --model digits-mlp --weights runs/*/seed*/best.safetensors --data digits \\\n"
        "--noise pcm-nandakumar-2019 --levels clean 1s 1d 1y --shard 1/2 --out parts/1",
        "noiserobust evaluate --model digits-mlp --weights runs/*/seed*/best.safetensors --data digits \\\n"
        "--noise pcm-nandakumar-2019 --levels clean 1s 1d 1y --shard 2/2 --out parts/2",
    )
    parser.add_argument("--model", type=str, required=True, help="name, package.module:callable or file.py:callable")
    parser.add_argument("--model-args", type=str, nargs="+", default=[], help="its arguments, such as num_classes=100")
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, help=".safetensors, .pt, .pth or .th files, one a train seed"
    )
    parser.add_argument("--data", type=str, required=True, help=DATA)
    parser.add_argument("--split", type=str, default="test", help=SPLIT)
    parser.add_argument("--download", action="store_true", help=DOWNLOAD)
    parser.add_argument(
        "--normalize",
        type=str,
        help="imagenet, cifar10, cifar100, digits, none or m,m,m/s,s,s; default: as trained, else the data set's own",
    )
    parser.add_argument("--noise", type=str, required=True, help="gaussian, laplace, a device profile or FILE.yaml")
    parser.add_argument(
        "--levels",
        type=str,
        nargs="+",
        required=True,
        help="severities: sigma or b as a fraction of the largest weight of a filter, or times (1s 1h 1d 1y); "
        "clean is without noise",
    )
    parser.add_argument(
        "--metrics", type=str, nargs="+", default=["accuracy"], help="accuracy, top5, loss or file.py:callable"
    )
    parser.add_argument(
        "--draws",
        type=int,
        help="noise draws (chips) for each file and level, >= 1; default: 10, or what --until takes",
    )
    parser.add_argument(
        "--until",
        type=float,
        metavar="HALFWIDTH",
        help="draw chips, each run on some of the examples, until the 95-percent interval for their mean is no wider "
        "than so many points of accuracy to both sides, > 0, such as 0.3, or there are --draws of them (10,000); not "
        "for yields and tails",
    )
    parser.add_argument("--seed", type=int, default=0, help="root seed of the noise draws, >= 0")
    parser.add_argument("--method", type=str, help="name of the method in tables; default: what the weights file says")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda:0, ...")
    parser.add_argument("--precision", type=str, default="fp32", help=f"{' or '.join(PRECISIONS)}")
    parser.add_argument("--batch-size", type=int, help="images a pass, >= 1; default: by the size of the largest layer")
    parser.add_argument(
        "--calibrate",
        type=str,
        help="what is done to each chip first: batchnorm (its statistics measured anew), layer or column (a gain and "
        "an offset for each); default: nothing",
    )
    parser.add_argument(
        "--reads", type=str, default="pass", help="how often a device is read: once a pass over the data, or each batch"
    )
    parser.add_argument(
        "--analog", action="store_true", help="simulate the full analog tile with converters, bounds and output noise"
    )
    parser.add_argument("--examples", type=int, help="how many examples, >= 1, for slow simulations; default: all")
    parser.add_argument("--calibration-examples", type=int, default=500, help="training images for --calibrate, >= 2")
    parser.add_argument("--executor", type=str, default="serial", help="serial, processes (of this machine) or ray")
    parser.add_argument(
        "--workers", type=int, help="how many, with processes and ray, >= 1; default: one a core, or GPU"
    )
    parser.add_argument("--address", type=str, help="of a Ray cluster; auto: the one that this machine is part of")
    parser.add_argument("--shard", type=str, help="compute a part of the draws, such as 2/8; `merge` joins the parts")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done and how long it would take")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results; finished draws are kept")


def evaluate(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.evaluate.files import EvaluateConfig, evaluate_files, rehearse_files
    from noiserobust.executors import make_executor

    out = settings.out
    values = {name: settings[name] for name in EvaluateConfig.__dataclass_fields__ if name in settings}
    if settings.calibrate is None and settings.calibration_examples != EvaluateConfig.calibration_examples:
        raise InvalidValueError("Expected `--calibration-examples` with `--calibrate` only, but got it alone")
    values["model_args"] = model_args(settings.model_args)
    config, more = EvaluateConfig(**values), {"download": settings.download, "shard": settings.shard}
    executor = make_executor(settings.executor, settings.workers, settings.address)
    if settings.dry_run:
        _show(rehearse_files(config, out, **more), config)
        return
    result = evaluate_files(config, out, **more, progress=True, executor=executor)
    print(result.summary().to_string(index=False, na_rep="", float_format="%.4g"))
    if settings.until is None:
        say(f"{out}: draws.csv, summary.csv, manifest.json")
        return
    found = result.precision()
    if found.empty:
        say(f"{out}: draws.csv, summary.csv, precision.csv, manifest.json; there is no level with noise")
        return
    print(found.to_string(index=False, columns=_PRECISION, float_format="%.4g"))
    spent, plain = found["passes"].sum(), found["plain_passes"].sum()
    say(f"{spent:,} examples passed on noisy chips, {plain:,} if each chip were run on all of them")
    if missed := int((found["half_width"] > settings.until).sum()):
        say(f"{missed} of {len(found)} intervals are wider than +-{settings.until:g}: they have all `draws`")
    say(f"{out}: draws.csv, summary.csv, precision.csv, manifest.json")


def _show(found: Rehearsal, config: EvaluateConfig) -> None:
    """Print what an evaluation would do."""
    how = found.settled
    lines = {
        "weights": ", ".join(map(str, config.weights)),
        "noise": f"{config.noise}, levels {' '.join(map(str, config.levels))}",
        "draws": f"{found.to_do} to do, {found.done} done",
        "data": f"{found.examples:,} examples of {config.data}",
        "network": f"{how['path']}; {how['precision']}; batches of {how['batch_size'] or 'the loader'}",
        "time": f"about {duration(found.seconds)} on all cores of this machine",
    }
    if found.sampled:
        lines["sampled"] = ", ".join(
            f"{chips} chips on about {number} examples each at level {level:g}"
            for level, (chips, number) in found.sampled.items()
        )
    if "compared" in how:
        largest = ", ".join(f"{name} by {value:g}" for name, value in how["compared"]["largest_difference"].items())
        lines["network"] += f"; bf16 differs from fp32 in {largest} at most"
    for name, text in lines.items():
        print(f"{name:<8} {text}")
    say("nothing was computed to keep, and nothing written")


def add_merge(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples("noiserobust merge parts/1 parts/2 --out results/pcm")
    parser.add_argument("folders", type=Path, nargs="+", help="results of parts of one evaluation")
    parser.add_argument("--out", type=Path, required=True, help="folder for the whole")


def merge(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.report.gather import kind_of
    from noiserobust.results.merge import merge_folders

    missing = merge_folders(settings.folders, settings.out)
    # A landscape is a table of the draws, made by the command of which they are.
    verb = "evaluate" if kind_of(settings.out) == "evaluation" else "diagnose landscape"
    if missing:
        say(f"{settings.out}: {missing} draws are missing; `noiserobust {verb}` with it as `--out` computes them")
    elif verb != "evaluate":
        say(f"{settings.out}: draws.csv, manifest.json; `noiserobust {verb}` with it as `--out` makes the landscape")
    else:
        say(f"{settings.out}: draws.csv, summary.csv, manifest.json")
