"""What was recorded of the loss around the weights while a training went on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.results.tabular import read_table

DIAGNOSTICS_FILE = "diagnostics.csv"

TRAIN, HELD_OUT = "train", "held-out"
SPLITS = (TRAIN, HELD_OUT)

QUANTITIES = {
    "loss": "loss L(w), cross-entropy without smoothing, nats",
    "accuracy": "accuracy without noise, percent",
    "average_sharpness": "mean over draws of L(w + noise) - L(w); the level is sigma of max-scaled Gaussian noise",
    "ascent_sharpness": "mean over batches of L(w + rho g / |g|) - L(w), g the batch's gradient; the level is rho",
    "gradient_norm": "|g|, mean over batches; this and what follows down to full_strength_loss as in a training pass",
    "update_gradient_norm": "norm of the gradient that would update the weights, mean over batches",
    "cosine": "cosine of the gradients at the clean and at the perturbed weights, mean over batches",
    "perturbation_norm": "|w_p - w|, mean over batches",
    "training_loss": "L(w) as the method's gradient sees it: in a training pass, mean over batches",
    "perturbed_loss": "L(w_p), w_p being perturbed as in training at this step, mean over batches",
    "gradient_sharpness": "L(w_p) - L(w), mean over batches",
    "full_strength_loss": "L(w_p) at the full strength of the perturbation, whatever the schedule, mean over batches",
    "path_length": "sum over optimizer steps of |w(t + 1) - w(t)|",
    "epoch_path_length": "the same sum over epochs: from the weights after one to those after the next",
    "displacement": "|w - w(0)|",
}
"""What is recorded, by its name in the column ``quantity``."""

DIAGNOSTICS_DTYPES = {
    "method": "str",
    "train_seed": "int64",
    "epoch": "float64",
    "step": "int64",
    "strength": "float64",
    "split": "str",
    "quantity": "str",
    "level": "float64",
    "value": "float64",
    "standard_error": "float64",
    "n_examples": "int64",
}
"""Columns of ``diagnostics.csv``, in order; one row a (step, split, quantity, level). ``epoch`` counts finished epochs
and the share of the one under way, ``step`` finished optimizer steps; ``strength`` is the share of its full strength
that the perturbation has then. ``level`` is empty for quantities without one, ``value`` where a loss overflowed,
``standard_error`` where it cannot be estimated. Lengths in the space of the weights have the split ``train`` and no
examples."""

_MAY_BE_EMPTY = {"level", "value", "standard_error"}


def read_diagnostics(path: Path) -> pd.DataFrame:
    """Read the ``diagnostics.csv`` of one train seed; rows that are there twice count once.

    Raises:
        MissingFileError: if there is none.
        InvalidValueError: if it has other columns, or a value that cannot be one.
    """
    if not path.is_file():
        raise MissingFileError(f"Expected a file {path}, but there is none")
    frame = read_table(path, DIAGNOSTICS_DTYPES, "the diagnostics of a training", may_be_empty=_MAY_BE_EMPTY)
    unknown = set(frame["quantity"]) - set(QUANTITIES)
    if unknown:
        raise InvalidValueError(f"Expected the quantities of {path} to be known ones, but got {sorted(unknown)[0]!r}")
    other = sorted(set(frame["split"]) - set(SPLITS))
    if other:
        raise InvalidValueError(f"Expected the splits of {path} to be {' or '.join(SPLITS)}, but got {other[0]!r}")
    once: pd.DataFrame = frame.drop_duplicates(ignore_index=True)
    return once
