"""What the papers find, against what is recorded: difference, interval and p of each finding.

    python experiments/verdicts.py        prints the table, and writes verdicts.csv

A finding is put as a difference that it says is positive. Differences are of means over chips, paired by train seed and
chip where one level is compared with the same; intervals are Student's over train seeds. A finding is ``supported`` if
the interval is above 0, ``contradicted`` if below, else ``open``. With three train seeds only large ones are shown.
Intervals are of one finding; p is after Holm, over those of a paper. Where the best of several methods counts, it is
chosen on the same draws, on both sides of a difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
from finding import HERE, Finding
from findings import PAPERS
from recorded import table

from noiserobust.results.files import write_atomic
from noiserobust.stats.compare import compare, holm

COLUMNS = ["finding", "claim", "measured", "difference", "low", "high", "p", "n_seeds", "verdict"]


def judged(finding: Finding) -> dict[str, object]:
    """Return a row of the table."""
    values = list(finding.difference.values().values())
    found = compare(values, [np.zeros_like(v) for v in values])
    low, high = found.difference.low, found.difference.high
    verdict = "supported" if low > 0 else "contradicted" if high < 0 else "open"
    if found.n_seeds < 2:
        low, high, verdict = float("nan"), float("nan"), "open"
    said = (finding.name, finding.claim, finding.measured)
    p = found.p_value if found.n_seeds > 1 else float("nan")
    return dict(zip(COLUMNS, (*said, found.difference.value, low, high, p, found.n_seeds, verdict), strict=True))


def verdicts(findings: Sequence[Finding]) -> pd.DataFrame:
    """Return a row for each finding of a paper."""
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
    found = {paper: verdicts(findings) for paper, findings in PAPERS.items()}
    whole = pd.concat([rows.assign(paper=paper) for paper, rows in found.items()])
    write_atomic(HERE / "verdicts.csv", whole[["paper", *COLUMNS]].to_csv(index=False, float_format="%.4g"))
    for rows in found.values():
        print("\n".join([*markdown(rows), ""]))


if __name__ == "__main__":
    main()
