"""The main job on a small scale: train for noise, evaluate the deployed weights, report."""

from __future__ import annotations

import time
from pathlib import Path

from noiserobust.config import MethodConfig, NoiseConfig, OptimizerConfig, SelectConfig, TrainConfig
from noiserobust.evaluate.files import EvaluateConfig, evaluate_files
from noiserobust.evaluate.forward import pick_device
from noiserobust.evaluate.heldout import held_out_score
from noiserobust.log import quiet, say
from noiserobust.report import write_report
from noiserobust.train.runs import train_seeds

MODEL, DATA, PROFILE = "digits-cnn", "digits", "pcm-nandakumar-2019"
SEEDS = (0, 1, 2)

# RWP trains with the largest noise it is tested with; SAM's rho is large beside the 0.05 usual without weight noise.
METHODS = (
    MethodConfig("sgd"),
    MethodConfig("sam", rho=0.3),
    MethodConfig("rwp", noise=NoiseConfig("gaussian", 0.3)),
)

# From where all methods are as good as without noise to where they have visibly come apart.
LEVELS: dict[str, tuple[float | str, ...]] = {
    "gaussian": (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    "laplace": (0, 0.05, 0.1, 0.15, 0.2),
    PROFILE: ("clean", "1s", "1h", "1d", "30d", "1y"),
}

SPEC, TARGETS = 80.0, ("gaussian=0.2", "laplace=0.15", f"{PROFILE}=1d")


def run_demo(out: Path) -> Path:
    """Train SGD, SAM and RWP with three train seeds on scikit-learn's digits, evaluate, and write the report.

    What an earlier, interrupted demo has finished in ``out`` is kept.

    Args:
        out: folder for weights (``train/``), results (``evaluate/``) and the report (``report/``).

    Returns:
        The path of the report.

    Raises:
        OutputError: if ``out`` cannot be written to.
    """
    start = time.perf_counter()
    weights = [path for method in METHODS for path in _train(method, out)]
    for noise in LEVELS:
        say(f"Evaluating under {noise} noise: {', '.join(map(str, LEVELS[noise]))}")
        config = EvaluateConfig(MODEL, weights, DATA, noise, LEVELS[noise], draws=10)
        evaluate_files(config, out / "evaluate" / noise, progress=True)
    folders = [*(out / "evaluate" / noise for noise in LEVELS), out / "train"]
    report = write_report(folders, out / "report", spec=SPEC, target=TARGETS)
    print(f"Done in {time.perf_counter() - start:.0f} s. The report: {report.html}")
    return report.html


def _train(method: MethodConfig, out: Path) -> list[Path]:
    config = TrainConfig(
        MODEL,
        DATA,
        method=method,
        optimizer=OptimizerConfig(lr=0.05),
        epochs=30,
        batch_size=32,
        held_out=0.2,
        select=SelectConfig(NoiseConfig("gaussian", 0.2)),
    )
    say(f"Training with {method.name}, train seeds {', '.join(map(str, SEEDS))}")
    return train_seeds(
        config,
        SEEDS,
        out / "train" / method.name,
        make_score=held_out_score,
        device=pick_device("auto"),
        progress=not quiet(),
    )
