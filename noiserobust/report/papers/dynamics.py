"""Figures of what was recorded while trainings went on: gradients, perturbed losses, sharpness, paths."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from noiserobust.report.figures.panels import LINES, PATHS, Panel, Series
from noiserobust.report.papers.runs import Found, Run
from noiserobust.report.papers.selection import (
    GROUPS,
    RECORD,
    TRAIN,
    Asked,
    Selection,
    lettered,
    select,
    series_of,
    training_with,
    unrecorded,
)

_LABELS = {
    "update_gradient_norm": "norm of the update gradient",
    "gradient_sharpness": "L(w_p) - L(w)",
    "cosine": "cosine of the two gradients",
    "perturbed_loss": "perturbed loss L(w_p)",
    "full_strength_loss": "L(w_p) at full strength",
    "epoch_path_length": "path length, from epoch to epoch",
}
_TRAIN_LOSS, _HELD_OUT_LOSS = ("loss", "train"), ("loss", "held-out")
_OWN_LOSS = ("training_loss", "train")
RAMPED = f"a training with a ramped strength ({TRAIN} --method.schedule.name quadratic)"


def gradients(found: Found, asked: Asked) -> Selection:
    """Figure 3: norm of the update gradient by epoch; gradient sharpness against training loss."""
    del asked
    perturbing = _perturbing(found)
    return select(
        *_by_epoch(found, found.runs, "update_gradient_norm", "a", "update gradient"),
        *_gradient_sharpness(found, perturbing, "b"),
        notes=_older(perturbing),
    )


def sharpness(found: Found, asked: Asked) -> Selection:
    """Figure 4: average-direction sharpness at the lowest level, on training and on held-out data."""
    return _sharpness(found, asked, 0, both=True)


def sharpness_high(found: Found, asked: Asked) -> Selection:
    """Figure 9: average-direction sharpness at the highest level, on training and on held-out data."""
    return _sharpness(found, asked, -1, both=False)


def cosines(found: Found, asked: Asked) -> Selection:
    """Figure 5: cosine of the clean and the perturbed gradient by epoch, of SAM and of RWP."""
    del asked
    return _by_group(found, "cosine")


def perturbed_losses(found: Found, asked: Asked) -> Selection:
    """Figure 10: loss at the perturbed weights by epoch, of SAM and of RWP."""
    del asked
    return _by_group(found, "perturbed_loss")


def paths(found: Found, asked: Asked) -> Selection:
    """Figure 8: norm of the update gradient and length of the path by epoch."""
    del asked
    return select(
        *_by_epoch(found, found.runs, "update_gradient_norm", "a", "update gradient"),
        *_by_epoch(found, found.runs, "epoch_path_length", "b", "distance travelled"),
    )


def ramped_sharpness(found: Found, asked: Asked) -> Selection:
    """Figure 11: gradient sharpness and average-direction sharpness against training loss, ramped and constant."""
    perturbing = _perturbing(found)
    if not any(run.recipe.ramped for run in perturbing):
        return select(RAMPED)
    level = _level(perturbing, asked, 0)
    return select(
        *_gradient_sharpness(found, perturbing, "a"),
        *_average(found, perturbing, "train", level, "b", asked),
        notes=_older(perturbing),
    )


def ramped_losses(found: Found, asked: Asked) -> Selection:
    """Figure 12: loss at full strength by epoch, ramped and constant, of SAM and of RWP."""
    del asked
    parts: list[Panel | str | None] = []
    for letter, group in zip("abc", GROUPS, strict=True):
        runs = found.of(*GROUPS[group])
        if not any(run.recipe.ramped for run in runs):
            if group == "WAS":
                continue
            parts.append(lettered(letter, f"{RAMPED.replace('a training', f'a training with {group}', 1)}"))
            continue
        drawn = _by_epoch(found, runs, "full_strength_loss", letter, group)
        first = drawn[0]
        if isinstance(first, Panel):
            shown = {one.label for one in first.series}
            ends = sorted({end for run in runs if run.name in shown and (end := ramp_end(run)) is not None})
            first = Panel(
                first.kind, first.title, first.xlabel, first.ylabel, first.series,
                verticals=tuple(("full strength reached", end) for end in ends),
            )  # fmt: skip
        parts += [first, *drawn[1:]]
        if all(run.recipe.ramped for run in runs):
            parts.append(lettered(letter, f"to compare with, {training_with(group)} of constant strength"))
    return select(*parts)


def ramp_end(run: Run) -> float | None:
    """Return the epoch at which a ramped training reaches its full strength, None for a constant one."""
    if not run.recipe.ramped:
        return None
    steps, fraction = run.recipe.ramp
    if steps is not None:
        last = run.trainings[0].metrics.iloc[-1]
        return float(steps * last["epoch"] / last["steps"])
    epochs = run.configuration.get("epochs")
    total = epochs if isinstance(epochs, int) else int(run.trainings[0].metrics["epoch"].iloc[-1])
    return float((1.0 if fraction is None else fraction) * total)


def _perturbing(found: Found) -> tuple[Run, ...]:
    return found.of(*(family for families in GROUPS.values() for family in families))


def _by_group(found: Found, quantity: str) -> Selection:
    parts: list[Panel | str | None] = []
    for letter, group in zip("abc", GROUPS, strict=True):
        runs = found.of(*GROUPS[group])
        if runs:
            parts += _by_epoch(found, runs, quantity, letter, group)
        elif group != "WAS":
            parts.append(lettered(letter, training_with(group)))
    return select(*parts)


def _by_epoch(found: Found, runs: Sequence[Run], quantity: str, letter: str, title: str) -> list[Panel | str | None]:
    """Return a panel of a quantity by epoch, and what it lacks."""
    if not runs:
        return [lettered(letter, f"{quantity} of a training {RECORD}")]
    series = []
    for run in runs:
        rows = run.quantity(quantity)
        if len(rows):
            frame = pd.DataFrame(
                {"train_seed": rows["train_seed"], "at": rows["step"], "x": rows["epoch"], "y": rows["value"]}
            )
            series.append(series_of(found, run, frame))
    if not series:
        return [lettered(letter, f"{quantity} of {', '.join(r.name for r in runs)} {RECORD}")]
    panel = Panel(LINES, lettered(letter, title), "epoch", _LABELS[quantity], tuple(series))
    return [panel, unrecorded(runs, series, quantity, letter)]


def _sharpness(found: Found, asked: Asked, place: int, *, both: bool) -> Selection:
    level = _level(found.runs, asked, place)
    parts = _average(found, found.runs, "train", level, "a", asked)
    parts += _average(found, found.runs, "held-out", level, "b", asked)
    if both and level is not None:
        parts += _against(
            found, found.runs, ("average_sharpness", "train"), ("average_sharpness", "held-out"), level, "c",
            "sharpness on training data", "sharpness on held-out data",
            f"held-out against training, σ = {level:g}", diagonal=True,
        )  # fmt: skip
    return select(*parts)


def _gradient_sharpness(found: Found, runs: Sequence[Run], letter: str) -> list[Panel | str | None]:
    """Return a panel of what the method's own perturbation adds to the loss, against the loss, and what it lacks."""
    kinds = {_own_loss(run) for run in runs if len(run.quantity("gradient_sharpness"))} or {_OWN_LOSS}
    xlabel = "training loss L(w), in a training pass" if kinds == {_OWN_LOSS} else "training loss L(w)"
    return _against(
        found, runs, _own_loss, ("gradient_sharpness", "train"), None, letter, xlabel, _LABELS["gradient_sharpness"],
        "gradient sharpness",
    )  # fmt: skip


def _own_loss(run: Run) -> tuple[str, str]:
    """Return the loss from which the gradient sharpness is measured, else, in older recordings, what is near to it."""
    seeds = set(run.quantity(_OWN_LOSS[0])["train_seed"])
    return _OWN_LOSS if seeds >= set(run.quantity("gradient_sharpness")["train_seed"]) else _TRAIN_LOSS


def _older(runs: Sequence[Run]) -> list[str]:
    """Say it if in one panel there are both kinds of loss."""
    drawn = [run for run in runs if len(run.quantity("gradient_sharpness"))]
    older = [run.name for run in drawn if _own_loss(run) == _TRAIN_LOSS]
    if not older or len(older) == len(drawn):
        return []
    return [f"the training loss of {', '.join(older)} is that of an evaluation, of the others that of a training pass"]


def _average(
    found: Found, runs: Sequence[Run], split: str, level: float | None, letter: str, asked: Asked
) -> list[Panel | str | None]:
    """Return a panel of the average-direction sharpness against the loss on a split, and what it lacks."""
    if level is None:
        there = sorted({v for run in runs for v in run.levels("average_sharpness")})
        wanted = f" at {', '.join(f'{v:g}' for v in asked.levels)}, not at {', '.join(f'{v:g}' for v in there)}"
        wanted = wanted if there else ""
        return [lettered(letter, f"average_sharpness on {split} data{wanted} {RECORD}")]
    data = "training" if split == "train" else "held-out"
    loss = _TRAIN_LOSS if split == "train" else _HELD_OUT_LOSS
    return _against(
        found, runs, loss, ("average_sharpness", split), level, letter, f"{data} loss L(w)",
        f"sharpness on {data} data", f"average direction, σ = {level:g}",
    )  # fmt: skip


def _against(
    found: Found,
    runs: Sequence[Run],
    across: tuple[str, str] | Callable[[Run], tuple[str, str]],
    upwards: tuple[str, str],
    level: float | None,
    letter: str,
    xlabel: str,
    ylabel: str,
    title: str,
    *,
    diagonal: bool = False,
) -> list[Panel | str | None]:
    """Return a panel of one quantity against another, each a name and a split, and what it lacks.

    ``across`` may tell which it is of a training. ``level`` is that of the quantities that have one.
    """
    series: list[Series] = []
    for run in runs:
        own = across(run) if callable(across) else across
        x, y = (run.quantity(*which, None if which[0] == "loss" else level) for which in (own, upwards))
        rows = x.merge(y, on=["train_seed", "step"], suffixes=("_x", "_y"))
        if len(rows):
            frame = pd.DataFrame({"train_seed": rows["train_seed"], "at": rows["step"]})
            series.append(series_of(found, run, frame.assign(x=rows["value_x"], y=rows["value_y"])))
    split = "" if upwards[1] == "train" else " on held-out data"
    what = f"{_OWN_LOSS[0] if callable(across) else across[0]} and {upwards[0]}{split}"
    if not series:
        whose = ", ".join(run.name for run in runs) or "a training with SAM or RWP"
        return [lettered(letter, f"{what} of {whose} {RECORD}")]
    panel = Panel(PATHS, lettered(letter, title), xlabel, ylabel, tuple(series), diagonal=diagonal)
    return [panel, unrecorded(runs, series, what, letter)]


def _level(runs: Sequence[Run], asked: Asked, place: int) -> float | None:
    """Return the lowest (0) or highest (-1) recorded level of the average-direction sharpness."""
    levels = asked.among(sorted({v for run in runs for v in run.levels("average_sharpness")}))
    return levels[place] if levels else None
