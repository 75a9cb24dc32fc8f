"""Names and types of what an evaluation writes: ``draws.csv``, ``summary.csv``, ``manifest.json``.

One row of ``draws.csv`` is one (weights, level, draw); one row of ``summary.csv`` is one (method, noise, level).
Accuracies are in percent. A level is a number whatever its unit: sigma, b, or seconds since programming.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

DRAWS_FILE = "draws.csv"
SUMMARY_FILE = "summary.csv"
MANIFEST_FILE = "manifest.json"
PRECISION_FILE = "precision.csv"

DRAW_DTYPES = {
    "method": "str",
    "train_seed": "int64",
    "weights": "str",
    "noise": "str",
    "level_name": "str",
    "level": "float64",
    "draw": "int64",
    "metric": "str",
    "value": "float64",
    "n_examples": "int64",
}
DRAW_COLUMNS = list(DRAW_DTYPES)
"""Columns of ``draws.csv``, in order."""

SAMPLED_DTYPES = {"of_examples": "int64", "sampling_std": "float64"}
"""Further columns of ``draws.csv`` where chips are run on some of the examples only: how many there are, and the
standard deviation of ``value`` for that."""

DRAW_KEY = ["method", "train_seed", "weights", "noise", "level_name", "level", "draw", "metric"]
"""The columns that tell one row of ``draws.csv`` from another."""

SUMMARY_COLUMNS = [
    "method",
    "noise",
    "level_name",
    "level",
    "metric",
    "mean",
    "noise_std",
    "seed_std",
    "n_seeds",
    "n_draws",
    "ci_low",
    "ci_high",
    "ci_level",
]
"""Columns of ``summary.csv``, in order. Empty cells are quantities that cannot be estimated."""

PRECISION_COLUMNS = [
    "method",
    "train_seed",
    "weights",
    "noise",
    "level_name",
    "level",
    "metric",
    "mean",
    "half_width",
    "ci_level",
    "noise_std",
    "noise_std_low",
    "noise_std_high",
    "n_draws",
    "passes",
    "plain_passes",
]
"""Columns of ``precision.csv``, in order: the mean over chips of each of the weights and their standard deviation, with
intervals of ``ci_level``, and the passes of examples through the network that were spent on it and that chips run on
all examples would have taken."""

_INTERVAL = ("", "_low", "_high")

CHIP_COLUMNS = [
    "method",
    "noise",
    "level_name",
    "level",
    "metric",
    "spec",
    *(f"yield{end}" for end in _INTERVAL),
    "worst_share",
    *(f"quantile{end}" for end in _INTERVAL),
    *(f"cvar{end}" for end in _INTERVAL),
    "worst",
    "draws_needed",
    "n_seeds",
    "n_draws",
    "over",
    "ci_level",
]
"""Columns of ``chips.csv`` of a report, in order: the share of chips that reach ``spec``, what all but ``worst_share``
of them reach, and what that worst share reaches on average."""

COMPARISON_COLUMNS = [
    "method",
    "baseline",
    "noise",
    "level_name",
    "level",
    "metric",
    *(f"difference{end}" for end in _INTERVAL),
    "p_value",
    "p_holm",
    "p_sign_flip",
    "least_p_sign_flip",
    *(f"improvement{end}" for end in _INTERVAL),
    "n_seeds",
    "n_draws",
    "over",
    "ci_level",
]
"""Columns of ``comparison.csv`` of a report, in order: method minus baseline."""

TOLERANCE_COLUMNS = [
    "method",
    "noise",
    "level_name",
    "metric",
    *(f"area{end}" for end in _INTERVAL),
    "drop",
    *(f"tolerable{end}" for end in _INTERVAL),
    "largest_level",
    "n_seeds",
    "ci_level",
]
"""Columns of ``tolerance.csv`` of a report, in order: the mean over levels, and the level at which ``drop`` is lost."""

TRAINING_COLUMNS = ["train_seed", "weights"]
"""The columns that tell one weight file of a method from another: two may carry the same train seed."""

CLEAN = 0.0
"""The level that is without noise."""

GROUP_COLUMNS = SUMMARY_COLUMNS[:5]
"""The columns that tell one row of ``summary.csv`` from another."""


def is_accuracy(metric: str) -> bool:
    """Tell whether a metric is an accuracy in percent, of which more is better."""
    return "accuracy" in metric.lower()


def is_milder_upwards(level_name: str) -> bool:
    """Tell whether a higher level is less noise, as of numbers of bits."""
    return level_name == "bits"
