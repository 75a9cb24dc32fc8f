"""What can be claimed of methods, and how surely: yields and tails, comparisons, tolerable levels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from noiserobust.errors import check_number, unknown_name
from noiserobust.results import cells
from noiserobust.results.schema import (
    CHIP_COLUMNS,
    CLEAN,
    COMPARISON_COLUMNS,
    TOLERANCE_COLUMNS,
    is_accuracy,
    is_milder_upwards,
)
from noiserobust.stats.compare import Comparison, compare, holm
from noiserobust.stats.curves import curve_area, tolerable_level
from noiserobust.stats.tails import ChipSample, Estimated, draws_needed

NOTHING = Estimated(math.nan, math.nan, math.nan)


def chip_table(draws: pd.DataFrame, spec: float, share: float = 0.05, ci_level: float = 0.95) -> pd.DataFrame:
    """Tell how many chips reach a specification, and what the worst reach.

    Args:
        draws: DataFrame with the columns of ``draws.csv``.
        spec: the least accuracy that a chip has to have; of other metrics nothing is said.
        share: the worst chips, in (0, 1).
        ci_level: level of the intervals, in (0, 1).

    Returns:
        DataFrame with the columns of :data:`noiserobust.results.schema.CHIP_COLUMNS`, one row a (method, noise, level >
        0), shares in [0, 1]. Intervals are for a chip of any training of the method (``over`` is ``"trainings"``), with
        one weight file for its own chips (``"chips"``). What too few draws cannot tell is NaN: ``quantile`` and
        ``cvar`` take ``draws_needed``; so is all of draws on some of the examples only.
    """
    check_number("spec", spec)
    needed = draws_needed(share, ci_level)
    rows: list[dict[str, Any]] = []
    for curve in cells.curves(draws):
        if not is_accuracy(curve.metric):
            continue
        for level, chips in curve.chips.items():
            if level == CLEAN:
                continue
            values = [c.values for c in chips.values()]
            told = not any(c.sampled for c in chips.values())
            found = dict.fromkeys(("yield", "quantile", "cvar"), NOTHING)
            if told:
                own = ChipSample(values)
                found = {
                    "yield": own.chip_yield(spec, ci_level),
                    "quantile": _possible(own.quantile(share, ci_level), curve.metric),
                    "cvar": _possible(own.cvar(share, ci_level), curve.metric),
                }
            rows.append(
                {
                    **curve.key,
                    "level": level,
                    "spec": spec,
                    **{k: v for name, e in found.items() for k, v in _columns(name, e).items()},
                    "worst_share": share,
                    "worst": min(float(v.min()) for v in values) if told else math.nan,
                    "draws_needed": needed,
                    "n_seeds": len(values),
                    "n_draws": min(v.size for v in values),
                    "over": "trainings" if len(values) > 1 else "chips",
                    "ci_level": ci_level,
                }
            )
    table: pd.DataFrame = pd.DataFrame(rows, columns=CHIP_COLUMNS)
    return table


def comparison_table(draws: pd.DataFrame, baseline: str, ci_level: float = 0.95) -> pd.DataFrame:
    """Compare each method with one of them, on the train seeds and chips that both have.

    Of several weight files of a train seed the first is compared with the first, and so on.

    Args:
        draws: DataFrame with the columns of ``draws.csv``.
        baseline: the method that others are compared with.
        ci_level: level of the intervals, in (0, 1).

    Returns:
        DataFrame with the columns of :data:`noiserobust.results.schema.COMPARISON_COLUMNS`, one row a (other method,
        noise, level); differences are those of the method minus the baseline. ``p_holm`` is adjusted for all methods of
        a (noise, level, metric) that are tested over the same. ``over`` says what tests and intervals are over,
        ``"train seeds"``, or with one common train seed ``"chips"``: then of these weights alone. Without a common one
        numbers are NaN.

    Raises:
        InvalidValueError: if there is no method of that name.
    """
    found = list(cells.curves(draws))
    methods = {curve.method for curve in found}
    if baseline not in methods:
        raise unknown_name("baseline", baseline, methods)
    bases = {(c.noise, c.level_name, c.metric): c for c in found if c.method == baseline}
    rows: list[dict[str, Any]] = []
    for curve in found:
        base = bases.get((curve.noise, curve.level_name, curve.metric))
        if base is None or curve is base:
            continue
        for level, chips in curve.chips.items():
            if level in base.chips:
                named = {**curve.key, "baseline": baseline, "level": level, "ci_level": ci_level}
                rows.append(named | _compared(list(chips.items()), list(base.chips[level].items()), ci_level))
    table: pd.DataFrame = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    families = table.groupby(["noise", "level_name", "level", "metric", "over"], sort=False)["p_value"]
    table["p_holm"] = families.transform(lambda p: holm(p.to_numpy(dtype=float)))
    return table


def tolerance_table(draws: pd.DataFrame, drop: float, ci_level: float = 0.95) -> pd.DataFrame:
    """Tell at which level methods have lost so much, and their mean over levels.

    Args:
        draws: DataFrame with the columns of ``draws.csv``; of other metrics than accuracies nothing is said.
        drop: what may be lost against no noise, in units of the metric, > 0.
        ci_level: level of the intervals, in (0, 1).

    Returns:
        DataFrame with the columns of :data:`noiserobust.results.schema.TOLERANCE_COLUMNS`, one row a (method, noise,
        metric). ``tolerable`` is the level at which the mean is ``drop`` lower than without noise: infinite if it is
        not so far at any level, 0 if it is so at the first already, NaN without a value without noise; ``area`` is the
        area under the curve over the range of levels, for times over their logarithm. Of numbers of bits, of which more
        are milder, there is no tolerable one. Weight files count that have all levels.
    """
    check_number("drop", drop, above=0)
    rows: list[dict[str, Any]] = []
    for curve in cells.curves(draws):
        if not is_accuracy(curve.metric):
            continue
        timed = curve.level_name == "t"
        milder = is_milder_upwards(curve.level_name)
        levels = sorted(level for level in curve.chips if level > CLEAN or not (timed or milder))
        whole = [t for t in curve.chips[levels[-1]] if all(t in curve.chips[v] for v in levels)] if levels else []
        area = tolerable = NOTHING
        n_seeds = len(whole)
        if whole and len(levels) > 1:
            x = np.log10(levels) if timed else np.array(levels)
            means = np.array([[curve.chips[v][t].mean for v in levels] for t in whole])
            area = curve_area(x, means, ci_level)
            clean = curve.chips.get(CLEAN, {})
            if all(t in clean for t in whole) and not milder:
                drops = np.array([[clean[t].mean] for t in whole]) - means
                tolerable = _levels(tolerable_level(x, drops, drop, ci_level), timed=timed)
        rows.append(
            {
                **curve.key,
                **_columns("area", area),
                "drop": drop,
                **_columns("tolerable", tolerable),
                "largest_level": max(levels, default=math.nan),
                "n_seeds": n_seeds,
                "ci_level": ci_level,
            }
        )
    table: pd.DataFrame = pd.DataFrame(rows, columns=TOLERANCE_COLUMNS)
    return table


def _possible(found: Estimated, metric: str) -> Estimated:
    """Return an interval of an accuracy without what no accuracy can be."""
    if not is_accuracy(metric):
        return found
    return Estimated(
        found.value, *(min(max(end, 0.0), 100.0) if end == end else end for end in (found.low, found.high))
    )


def _levels(found: Estimated, *, timed: bool) -> Estimated:
    """Return logarithms of times as times; a level below the first is 0."""

    def level(x: float) -> float:
        if x == -math.inf:
            return 0.0
        return 10**x if timed and math.isfinite(x) else x

    return Estimated(level(found.value), level(found.low), level(found.high))


def _compared(
    ours: Sequence[tuple[cells.Training, cells.Chips]],
    theirs: Sequence[tuple[cells.Training, cells.Chips]],
    ci_level: float,
) -> dict[str, Any]:
    others = dict(_numbered(theirs))
    pairs = [(chips, others[key]) for key, chips in _numbered(ours) if key in others]
    found: Comparison | None = None
    n_draws = 0
    sampled = any(a.sampled or b.sampled for a, b in pairs)
    if sampled:
        # Draws on some of the examples are compared by the means they stand for; single ones say nothing.
        if len(pairs) > 1:
            found = compare([[a.mean] for a, _ in pairs], [[b.mean] for _, b in pairs], ci_level)
        n_draws = min(min(a.values.size, b.values.size) for a, b in pairs)
    else:
        pairs = [(a, b) for a, b in pairs if np.intersect1d(a.numbers, b.numbers).size]
        common = [np.intersect1d(a.numbers, b.numbers) for a, b in pairs]
        if pairs:
            a_values = [a.values[np.isin(a.numbers, n)] for (a, _), n in zip(pairs, common, strict=True)]
            b_values = [b.values[np.isin(b.numbers, n)] for (_, b), n in zip(pairs, common, strict=True)]
            found = compare(a_values, b_values, ci_level)
            n_draws = min(n.size for n in common)
    return {
        **_columns("difference", found.difference if found else NOTHING),
        "p_value": found.p_value if found else math.nan,
        "p_sign_flip": found.p_sign_flip if found else math.nan,
        "least_p_sign_flip": found.least_p_sign_flip if found else math.nan,
        **_columns("improvement", found.improvement if found and n_draws > 1 and not sampled else NOTHING),
        "n_seeds": len(pairs),
        "n_draws": n_draws,
        "over": found.over if found else "",
    }


def _numbered(
    trainings: Sequence[tuple[cells.Training, cells.Chips]],
) -> Iterator[tuple[tuple[int, int], cells.Chips]]:
    """Yield weight files under their train seed and which of it they are, so that each is compared once."""
    met: Counter[int] = Counter()
    for (seed, _), chips in trainings:
        yield (seed, met[seed]), chips
        met[seed] += 1


def _columns(name: str, found: Estimated) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
