"""What the papers find, against what is recorded: difference, interval and p of each finding.

    python experiments/verdicts.py        prints the table, and writes verdicts.csv

A finding is put as a difference that it says is positive. Differences are of means over chips, paired by train seed and
chip where one level is compared with the same; intervals are Student's over train seeds. A finding is ``supported`` if
the interval is above 0, ``contradicted`` if below, else ``open``. With three train seeds only large ones are shown.
Intervals are of one finding; p is after Holm, over all of them. Where the best of several methods counts, it is chosen
on the same draws, on both sides of a difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from recorded import table

from noiserobust.errors import InvalidValueError
from noiserobust.report.gather import gather
from noiserobust.results.files import write_atomic
from noiserobust.results.trainings import read_trainings
from noiserobust.stats.compare import compare, holm

HERE = Path(__file__).parent
COLUMNS = ["finding", "claim", "measured", "difference", "low", "high", "p", "n_seeds", "verdict"]

Values = dict[int, NDArray[np.float64]]
"""Accuracies by train seed, one a chip."""


@dataclass(frozen=True)
class At:
    """A share of the accuracy of a method under a noise.

    Args:
        method: its name, or several, of which the one with the highest mean counts.
        level: of the noise.
        share: what it is multiplied with.
        noise: its name.
    """

    method: str | Sequence[str]
    level: float
    share: float = 1.0
    noise: str = "gaussian"


@dataclass(frozen=True)
class Finding:
    """Something a paper says.

    Args:
        name: where, such as ``(a)``.
        claim: what.
        measured: how it is put to the test, in words.
        folder: of what is recorded.
        parts: whose sum is said to be positive.
    """

    name: str
    claim: str
    measured: str
    folder: str
    parts: tuple[At, ...] = ()

    def values(self) -> list[NDArray[np.float64]]:
        """Return the difference of each train seed that all parts have, one a chip."""
        found = [(part.share, accuracies(self.folder, part)) for part in self.parts]
        seeds = sorted(set.intersection(*(set(values) for _, values in found)))
        chips = max(values[seed].size for _, values in found for seed in seeds)
        # Without noise there is one value, whatever the chip.
        return [sum(share * np.broadcast_to(v[s], chips) for share, v in found) + np.zeros(chips) for s in seeds]


def accuracies(folder: str, part: At) -> Values:
    """Return what a method, or the best of several, has reached."""
    methods = [part.method] if isinstance(part.method, str) else list(part.method)
    found = [_accuracies(folder, method, part.noise, part.level) for method in methods]
    if missing := [method for method, values in zip(methods, found, strict=True) if not values]:
        raise InvalidValueError(
            f"Expected {', '.join(missing)} to be recorded in {folder} at {part.noise} {part.level:g}, but it is not"
        )
    return max(found, key=lambda f: float(np.mean([v.mean() for v in f.values()])))


@cache
def _accuracies(folder: str, method: str, noise: str, level: float) -> Values:
    draws = _draws(folder)
    rows = draws[(draws["method"] == method) & (draws["noise"] == noise) & (draws["level"] == level)]
    rows = rows[rows["metric"] == "accuracy"]
    return {int(s): g.sort_values("draw")["value"].to_numpy(float) for s, g in rows.groupby("train_seed")}


@cache
def _draws(folder: str) -> pd.DataFrame:
    return gather([HERE / folder]).draws


@dataclass(frozen=True)
class Falls(Finding):
    """That held-out accuracy under noise is higher half way through the training than at its end, or the reverse.

    Args:
        method: of which.
        sign: 1 if it is said to fall, -1 if to rise.
    """

    method: str = "sgd"
    sign: int = 1

    def values(self) -> list[NDArray[np.float64]]:
        """Return the fall, or rise, of each train seed. The epoch is fixed: the best would be too good by chance."""
        runs = [
            run
            for manifest in sorted((HERE / self.folder / "train").glob("*/manifest.json"))
            for run in read_trainings(manifest.parent)
            if run.method == self.method
        ]
        curves = np.array([run.metrics["held_out_perturbed_accuracy"].to_numpy(float) for run in runs])
        middle = (curves.shape[1] - 1) // 2
        return [np.array([self.sign * (curve[middle] - curve[-1])]) for curve in curves]


SMALL = "incorruptible/small/results"
ALL_RWP = [f"rwp {s:g}" for s in (0.05, 0.1, 0.2, 0.3)]
ALL_SAM = [f"sam {s:g}" for s in (0.05, 0.1, 0.2)]
RAMP = "quadratic 0.7"


def ahead(a: str | Sequence[str], b: str | Sequence[str], level: float, noise: str = "gaussian") -> tuple[At, ...]:
    """Return by how much a method, or the best of several, is ahead of another."""
    return At(a, level, 1, noise), At(b, level, -1, noise)


def behind(parts: Sequence[At]) -> tuple[At, ...]:
    """Return a difference with its sign changed."""
    return tuple(replace(part, share=-part.share) for part in parts)


RAMPED = f"rwp 0.2 {RAMP}"

FINDINGS: tuple[Finding, ...] = (
    *(
        Finding(
            "(a)",
            "training noise above test noise is best",
            f"RWP {more:g} − RWP {same:g} at {same:g}",
            SMALL,
            ahead(f"rwp {more:g}", f"rwp {same:g}", same),
        )
        for same, more in ((0.05, 0.1), (0.1, 0.2), (0.2, 0.3))
    ),
    Finding("(b)", "SAM wins at small test noise", "best SAM − best RWP at 0.05", SMALL, ahead(ALL_SAM, ALL_RWP, 0.05)),
    Finding("(b)", "RWP wins at large test noise", "best RWP − best SAM at 0.2", SMALL, ahead(ALL_RWP, ALL_SAM, 0.2)),
    *(
        Finding(
            "(c)",
            "one rho is best at all test noises: the middle one",
            f"SAM 0.1 − SAM {other:g} at {level:g}",
            SMALL,
            ahead("sam 0.1", f"sam {other:g}", level),
        )
        for level in (0.05, 0.2)
        for other in (0.05, 0.2)
    ),
    *(
        Finding(
            "(d)",
            "a quadratic ramp beats constant strength",
            f"{said}, ramp − constant at {level:g}",
            SMALL,
            ahead(ramp, constant, level),
        )
        for said, ramp, constant in (
            ("RWP 0.2", RAMPED, "rwp 0.2"),
            ("SAM 0.2", "sam 0.2 quadratic 0.5", "sam 0.2"),
        )
        for level in (0.0, 0.2)
    ),
    Finding(
        "(d)",
        "by more the larger the test noise",
        "RWP 0.2, the same at 0.2 − at 0",
        SMALL,
        (*ahead(RAMPED, "rwp 0.2", 0.2), *behind(ahead(RAMPED, "rwp 0.2", 0))),
    ),
    Finding(
        "(d)",
        "quadratic is the best schedule",
        "RWP 0.2, quadratic − linear at 0.2",
        SMALL,
        ahead(RAMPED, "rwp 0.2 linear 0.7", 0.2),
    ),
    Finding(
        "(e)",
        "larger strength becomes usable under a ramp",
        "RWP 0.3 − 0.2 at 0.2, ramped − constant",
        SMALL,
        (*ahead(f"rwp 0.3 {RAMP}", RAMPED, 0.2), *behind(ahead("rwp 0.3", "rwp 0.2", 0.2))),
    ),
    Falls("(f)", "SGD's perturbed accuracy peaks early and falls", "epoch 3 − epoch 6, held out, at 0.1", SMALL),
    Falls(
        "(f)", "that of strong RWP does not", "RWP 0.3, epoch 6 − epoch 3, held out, at 0.1", SMALL, (), "rwp 0.3", -1
    ),
    Finding(
        "(g)",
        "the same ranking under Laplace noise",
        "RWP 0.2 ramped − SGD at b = 0.1",
        SMALL,
        ahead(RAMPED, "sgd", 0.1, "laplace"),
    ),
    Finding(
        "(g)",
        "the same ranking under Laplace noise",
        "best RWP − best SAM at b = 0.1",
        SMALL,
        ahead(ALL_RWP, ALL_SAM, 0.1, "laplace"),
    ),
)


def judged(finding: Finding) -> dict[str, object]:
    """Return a row of the table."""
    values = finding.values()
    found = compare(values, [np.zeros_like(v) for v in values])
    low, high = found.difference.low, found.difference.high
    verdict = "supported" if low > 0 else "contradicted" if high < 0 else "open"
    if found.n_seeds < 2:
        low, high, verdict = float("nan"), float("nan"), "open"
    said = (finding.name, finding.claim, finding.measured)
    p = found.p_value if found.n_seeds > 1 else float("nan")
    return dict(zip(COLUMNS, (*said, found.difference.value, low, high, p, found.n_seeds, verdict), strict=True))


def verdicts(findings: Sequence[Finding] = FINDINGS) -> pd.DataFrame:
    """Return a row a finding."""
    found = pd.DataFrame([judged(finding) for finding in findings])
    return found.assign(p=holm(found["p"].to_numpy(float)))


def markdown(found: pd.DataFrame) -> list[str]:
    """Return the table for a README."""
    rows = [
        [
            f"{row['finding']} {row['claim']}",
            str(row["measured"]),
            str(row["verdict"]),
            f"{row['difference']:+.1f}",
            "" if pd.isna(row["low"]) else f"{row['low']:+.1f} to {row['high']:+.1f}",
            "" if pd.isna(row["p"]) else f"{row['p']:.3f}",
            str(row["n_seeds"]),
        ]
        for row in found.to_dict("records")
    ]
    return table(["finding", "measured", "verdict", "points", "95% interval", "p (Holm)", "train seeds"], rows, text=3)


def main() -> None:
    parser = argparse.ArgumentParser(description="The papers' findings against what is recorded.")
    parser.parse_args()
    found = verdicts()
    write_atomic(HERE / "verdicts.csv", found.to_csv(index=False, float_format="%.4g"))
    print("\n".join(markdown(found)))


if __name__ == "__main__":
    main()
