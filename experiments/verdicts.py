"""What the papers find, against what is recorded: difference, interval and p of each finding.

    python experiments/verdicts.py        prints the table, and writes verdicts.csv

A finding is put as a difference that it says is positive, or above minus a margin where it says "as good as".
Differences are of means over chips, paired by train seed and chip; intervals are Student's over train seeds; p is after
Holm over the measurements of one finding (of one letter, or one table). A finding is ``supported`` or ``contradicted``
if p is below 0.05, ``leans for`` or ``leans against`` it if only its own interval excludes 0 or the margin, else
``open``. Where the best of several methods counts, it is chosen on the same draws, on both sides of a difference.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from finding import HERE, Finding
from findings import PAPERS
from recorded import table

from noiserobust.errors import NoiseRobustError
from noiserobust.results.files import write_atomic
from noiserobust.stats.compare import compare, holm

COLUMNS = ["finding", "claim", "measured", "difference", "low", "high", "p", "n_seeds", "margin"]
LEVEL = 0.05


def judged(finding: Finding) -> dict[str, object]:
    """Return a row of the table, with p before Holm and without a verdict."""
    values = list(finding.difference.values().values())
    found = compare(values, [np.full_like(v, -finding.margin) for v in values])
    low, high = (bound - finding.margin for bound in (found.difference.low, found.difference.high))
    p = found.p_value
    if found.n_seeds < 2:
        low = high = p = float("nan")
    said = (finding.name, finding.claim, finding.measured)
    value = found.difference.value - finding.margin
    return dict(zip(COLUMNS, (*said, value, low, high, p, found.n_seeds, finding.margin), strict=True))


def verdicts(findings: Sequence[Finding]) -> pd.DataFrame:
    """Return a row for each finding of a paper."""
    found = pd.DataFrame([judged(finding) for finding in findings])
    found["p"] = found.groupby("finding")["p"].transform(lambda p: holm(p.to_numpy(float)))
    return found.assign(verdict=[verdict(row) for row in found.to_dict("records")])


def verdict(row: Mapping[str, Any]) -> str:
    """Return what a row says."""
    positive, negative = row["low"] > -row["margin"], row["high"] < -row["margin"]
    if not (positive or negative):
        return "open"
    if row["p"] < LEVEL:
        return "supported" if positive else "contradicted"
    return "leans for" if positive else "leans against"


def markdown(found: pd.DataFrame) -> list[str]:
    """Return the table for a README."""
    rows = [
        [
            f"{row['finding']} {row['claim']}",
            str(row["measured"]),
            str(row["verdict"]),
            f"{row['difference']:+.1f}",
            "" if pd.isna(row["low"]) else f"{row['low']:+.1f} to {row['high']:+.1f}",
            "" if pd.isna(row["p"]) else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}",
            str(row["n_seeds"]),
        ]
        for row in found.to_dict("records")
    ]
    return table(["finding", "measured", "verdict", "points", "95% interval", "p (Holm)", "train seeds"], rows, text=3)


def main() -> None:
    parser = argparse.ArgumentParser(description="The papers' findings against what is recorded.")
    parser.parse_args()
    found = {}
    for paper, findings in PAPERS.items():
        try:
            found[paper] = verdicts(findings)
        except NoiseRobustError as error:
            print(f"{paper}: {error}", file=sys.stderr)
            continue
        print("\n".join([paper, "", *markdown(found[paper]), ""]))
    whole = pd.concat([rows.assign(paper=paper) for paper, rows in found.items()])
    write_atomic(HERE / "verdicts.csv", whole[["paper", *COLUMNS, "verdict"]].to_csv(index=False, float_format="%.4g"))


if __name__ == "__main__":
    main()
