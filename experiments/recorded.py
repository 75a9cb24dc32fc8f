"""The tables of the READMEs, from what is recorded; nothing is trained.

    python experiments/recorded.py            write them into the READMEs
    python experiments/recorded.py --check    only say which are not what is recorded (exit status 1)

In a README a table stands between ``<!-- table NAME -->`` and ``<!-- /table -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from noiserobust.report.gather import gather
from noiserobust.results.summary import summarize

HERE = Path(__file__).parent
_BLOCK = re.compile(r"<!-- table ([\w-]+) -->\n.*?<!-- /table -->", re.DOTALL)

Lines = list[str]
Rows = Mapping[str, Sequence[str]]
"""What rows are called, and the methods of which each cell shows the best."""


@cache
def summary(*folders: str) -> pd.DataFrame:
    """Return the summary of all accuracies below folders, by method, noise and level."""
    draws = gather([HERE / folder for folder in folders]).draws
    found = summarize(draws[draws["metric"] == "accuracy"])
    return found.set_index(["method", "noise", "level"]).sort_index()


def spread(mean: float, *stds: float) -> str:
    """Return a mean with what it varies by, as far as it is known."""
    return " ± ".join([f"{mean:.2f}", *(f"{std:.2f}" for std in stds if not pd.isna(std))])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> Lines:
    """Return a Markdown table, whose first columns are text and the others numbers."""
    lines = [" | ".join(heads), " | ".join(["---"] * text + ["---:"] * (len(heads) - text))]
    return [f"| {line} |" for line in [*lines, *(" | ".join(cells) for cells in rows)]]


def means(
    folder: str, noise: str, levels: Sequence[float], rows: Rows, *others: str, corner: str = "trained with"
) -> Lines:
    """Return a table of what a folder, and others, have: a row a method, or the best of several, a column a level.

    The highest mean of a column is bold.

    Raises:
        KeyError: if a method is not recorded at a level.
    """
    known = summary(folder, *others)
    best = {
        name: [max((known.loc[(m, noise, level)] for m in methods), key=lambda r: r["mean"]) for level in levels]
        for name, methods in rows.items()
    }
    top = [max(row[i]["mean"] for row in best.values()) for i in range(len(levels))]
    cells = {
        name: [
            spread(r["mean"], r["noise_std"], r["seed_std"]).replace(f"{high:.2f}", f"**{high:.2f}**", 1)
            if r["mean"] == high
            else spread(r["mean"], r["noise_std"], r["seed_std"])
            for r, high in zip(row, top, strict=True)
        ]
        for name, row in best.items()
    }
    return table([corner, *_heads(noise, levels)], [[name, *row] for name, row in cells.items()])


def _heads(noise: str, levels: Sequence[float]) -> Lines:
    symbol = "t" if noise.startswith("pcm") else {"laplace": "b", KERNELS: "p"}.get(noise, "sigma")
    special = {0.0: "clean", PLAIN: "clean, calibrated"}
    return [special.get(level) or f"{symbol} = {_level(symbol, level)}" for level in levels]


def _level(symbol: str, level: float) -> str:
    return {1: "1 s", 86400: "1 d", 31557600: "1 y"}.get(int(level), f"{level:g}") if symbol == "t" else f"{level:g}"


def published(folder: str, number: int, corner: str = "paper") -> Lines:
    """Return a table of a paper as ``published.csv`` has it."""
    numbers = pd.read_csv(HERE / folder / "published.csv").query("table == @number")
    several = numbers["model"].nunique() > 1
    names = [f"{m}, {w}" if several else w for m, w in zip(numbers["model"], numbers["method"], strict=True)]
    levels = sorted(numbers["level"].unique())
    symbol = numbers["level_name"].iloc[0]
    rows: dict[str, list[str]] = {name: ["–"] * len(levels) for name in dict.fromkeys(names)}
    for name, row in zip(names, numbers.to_dict("records"), strict=True):
        rows[name][levels.index(row["level"])] = spread(row["mean"], row["noise_std"], row["seed_std"])
    heads = ["clean" if level == 0 else f"{symbol} = {level:g}" for level in levels]
    return table([corner, *heads], [[name, *row] for name, row in rows.items()])


def published_rwp(model: str) -> Lines:
    """Return what the RWP paper has of one network in all of its tables: a row a method, a column a data set."""
    numbers = pd.read_csv(HERE / "rwp/published.csv").query("model == @model")
    numbers["said"] = [spread(m, s) for m, s in zip(numbers["mean"], numbers["seed_std"], strict=True)]
    cells = numbers.drop_duplicates(["method", "data"]).set_index(["method", "data"])["said"].unstack()
    cells = cells.loc[numbers["method"].unique(), numbers["data"].unique()].fillna("–")
    return table([f"paper, {model}", *cells], cells.reset_index().to_numpy().tolist())


SMALL, LAST, OF_DEPTHS, OF_WIDTHS = (f"incorruptible/small/{name}" for name in ("results", "last", "depths", "widths"))
ABLATION, FINAL, DIGITS, PARTS = (f"robust/small/{name}" for name in ("ablation", "final", "digits", "parts"))
FINAL_LAST = "robust/small/final-last"
MIXED, MARWP, WAS = "rwp/small/results", "marwp/small/results", "was/small/results"
KERNELS, PLAIN = "kernel-translate-crop+batchnorm-calibration", 1e-9
"""Noise of weight augmentation, and its level at which no kernel moves but batch norm is calibrated."""
SIGMAS = (0.0, 0.05, 0.1, 0.15, 0.2)
RWP, SAM = (0.05, 0.1, 0.2, 0.3), (0.05, 0.1, 0.2)
COMPARED, RAMPED = ("sgd", "sam 0.1", "rwp 0.2"), "rwp 0.2 quadratic 0.7"
"""Methods on networks of several sizes."""


def constant(family: str, strengths: Sequence[float]) -> dict[str, list[str]]:
    """Return a row for each strength."""
    return {"sgd": ["sgd"]} | {f"{family} {s:g}": [f"{family} {s:g}"] for s in strengths}


def ramped(family: str, strengths: Sequence[float], fractions: Sequence[float]) -> dict[str, list[str]]:
    """Return a row for each strength and length of a quadratic ramp."""
    return {f"{family} {s:g}, {100 * f:g}%": [f"{family} {s:g} quadratic {f:g}"] for s in strengths for f in fractions}


SCHEDULED = (
    "rwp 0.2 linear 0.7",
    "rwp 0.2 quadratic 0.7",
    "rwp 0.3 quadratic 0.7",
    "rwp 0.2 off-to-on 0.5",
    "sam 0.2 linear 0.5",
    "sam 0.2 quadratic 0.5",
    "sam 0.2 off-to-on 0.5",
)


def schedules() -> dict[str, list[str]]:
    """Return a row for each family and schedule."""
    return {
        "rwp constant": [f"rwp {s:g}" for s in RWP],
        "rwp linear": ["rwp 0.2 linear 0.7"],
        "rwp quadratic": ["rwp 0.2 quadratic 0.7", "rwp 0.3 quadratic 0.7"],
        "rwp off-to-on": ["rwp 0.2 off-to-on 0.5"],
        "sam constant": [f"sam {s:g}" for s in SAM],
        "sam linear": ["sam 0.2 linear 0.5"],
        "sam quadratic": ["sam 0.2 quadratic 0.5"],
        "sam off-to-on": ["sam 0.2 off-to-on 0.5"],
    }


def networks(unit: str, sizes: Sequence[int], own: int, methods: Sequence[str]) -> dict[str, list[str]]:
    """Return a row for each network and method; methods of the network of ``own`` size are recorded without it."""
    return {f"{n} {unit}, {m}": [m if n == own else f"{n} {m}"] for n in sizes for m in methods}


def each(*methods: str) -> dict[str, list[str]]:
    """Return a row for each method."""
    return {method: [method] for method in methods}


def severity(number: int) -> str:
    """Return where accuracy on corrupted images is recorded, or with 0 on all test images as they are."""
    return f"rwp/small/corrupted/evaluate/severity-{number}"


def by_severity(methods: Sequence[str]) -> Lines:
    """Return accuracy on all test images, and on corrupted ones, a row a method."""
    known = [summary(severity(n)) for n in range(6)]
    cells = {m: [found.loc[(m, "gaussian", 0.0)] for found in known] for m in methods}
    rows = [[m, *(spread(cell["mean"], cell["seed_std"]) for cell in row)] for m, row in cells.items()]
    return table(["trained with", "clean", *(f"severity {n}" for n in range(1, 6))], rows)


def by_share(family: str, level: float) -> Lines:
    """Return accuracy of (m-)RWP or (m-)ARWP, a row a strength, a column a share of the perturbed gradient."""
    known = summary(MARWP)["mean"]
    shares, strengths = (0.1, 0.3, 0.5, 0.7, 0.9, 1), (0.01, 0.02, 0.04, 0.08)
    rows = [
        [
            f"sigma = {s:g}",
            *(
                f"{known.get((f'{family} {s:g} lambda {share:g}', 'gaussian', level), float('nan')):.2f}"
                for share in shares
            ),
        ]
        for s in strengths
    ]
    rows = [[cell.replace("nan", "–") for cell in row] for row in rows]
    return table([family, *(f"lambda = {share:g}" for share in shares)], rows)


def _hours() -> Lines:
    from cost import cost, grids

    return cost(grids())


def _verdicts(paper: str) -> Lines:
    from findings import PAPERS
    from verdicts import markdown, verdicts

    return markdown(verdicts(PAPERS[paper]))


def _readings() -> Lines:
    from readings import readings

    return readings()


PCM, TIMES = "pcm-nandakumar-2019", (86400.0, 31557600.0)
AROUND_03 = each(
    "ramp + clip + average",
    "no clip",
    "no ramp",
    "no average",
    "no noise",
    "clip 1.25",
    "clip 2",
    "clip 2 tensor",
    "sigma 0.1",
    "sigma 0.15",
    "sigma 0.2",
    "sigma 0.4",
    "range",
    "arwp",
    "multiplicative",
)
MIXED_METHODS = ("sgd", "sam", "rwp", "rwp one batch", "sam two batches", "sam 2 epochs", "rwp 2 epochs")
TRAINED_HERE = (
    "one noise",
    "sgd",
    "rwp 0.2 quadratic 0.7",
    "rwp 0.3 quadratic 0.7",
    "sam 0.2 quadratic 0.5",
    "tensor 0.1 clip 2",
)
RIVALS = (*TRAINED_HERE, "aihwkit, ideal converters")
"""What the recipe is compared with: itself with one noise a step, the papers' methods, and aihwkit's."""


def _gains(
    folder: str,
    noise: str,
    levels: Sequence[float],
    rivals: Iterable[str],
    other: str | None = None,
) -> Lines:
    """Return by how many points the recipe is ahead of its rivals, here or in another folder, over train seeds."""
    from finding import Finding, ahead
    from verdicts import judged

    rows = []
    for rival in rivals:
        found = [judged(Finding("", "", "", ahead(folder, "robust", rival, level, noise, other))) for level in levels]
        rows.append([rival, *(f"{r['difference']:+.1f} ({r['low']:+.1f} to {r['high']:+.1f})" for r in found)])
    return table(["robust minus ...", *_heads(noise, levels)], rows)


TABLES: dict[str, Callable[[], Lines]] = {
    "1": lambda: means(SMALL, "gaussian", SIGMAS, constant("rwp", RWP)),
    "2": lambda: means(SMALL, "gaussian", SIGMAS, constant("sam", SAM)),
    "3": lambda: means(SMALL, "gaussian", SIGMAS, schedules()),
    "last": lambda: means(LAST, "gaussian", SIGMAS, constant("rwp", RWP) | constant("sam", SAM) | each(*SCHEDULED)),
    "4": lambda: means(SMALL, "laplace", (0.05, 0.1), constant("rwp", RWP) | constant("sam", SAM)),
    "5": lambda: means(SMALL, "gaussian", SIGMAS, networks("layers", (8, 14, 20), 20, COMPARED), OF_DEPTHS),
    "6": lambda: means(SMALL, "gaussian", SIGMAS, networks("channels", (4, 8, 12), 8, (*COMPARED, RAMPED)), OF_WIDTHS),
    "8": lambda: means(SMALL, "gaussian", SIGMAS, ramped("rwp", (0.2, 0.3), (0.5, 0.7, 0.9))),
    "9": lambda: means(SMALL, "gaussian", SIGMAS, ramped("sam", (0.2,), (0.3, 0.5))),
    "gpu-hours": _hours,
    "readings": _readings,
    "mixed": lambda: means(MIXED, "gaussian", (0.0, 0.05, 0.1), each(*MIXED_METHODS)),
    "mixed-corrupted": lambda: by_severity(MIXED_METHODS),
    **{
        f"{family}-{said}": (lambda family=family, level=level: by_share(family, level))  # type: ignore[misc]
        for family in ("rwp", "arwp")
        for said, level in (("clean", 0.0), ("noisy", 0.2))
    },
    "marwp-others": lambda: means(MARWP, "gaussian", (0.0, 0.1, 0.2, 0.3), constant("sam", SAM)),
    "was": lambda: means(WAS, KERNELS, (0.0, PLAIN, 0.05, 0.1, 0.22), constant("was", (0.05, 0.1, 0.22))),
    "parts": lambda: means(PARTS, "gaussian", SIGMAS, each("robust", "mixing", "two draws", "distilled")),
    "parts-pcm": lambda: means(PARTS, PCM, TIMES, each("robust", "mixing", "two draws", "distilled")),
    **{
        f"verdicts-{p}": (lambda p=p: _verdicts(p))
        for p in (
            "incorruptible",
            *(f"incorruptible-{part}" for part in ("last", "depths", "widths")),
            "rwp",
            "marwp",
            "was",
        )
    },  # type: ignore[misc]
    "ablation": lambda: means(ABLATION, "gaussian", SIGMAS, AROUND_03),
    "ablation-pcm": lambda: means(ABLATION, PCM, TIMES, AROUND_03),
    "final": lambda: means(FINAL, "gaussian", SIGMAS, each("robust", *RIVALS)),
    "final-pcm": lambda: means(FINAL, PCM, TIMES, each("robust", *RIVALS)),
    "gains": lambda: _gains(FINAL, "gaussian", SIGMAS, RIVALS),
    "final-last": lambda: means(FINAL_LAST, "gaussian", (0.0, 0.1, 0.2), each("robust", *TRAINED_HERE)),
    "gains-last": lambda: _gains(FINAL_LAST, "gaussian", (0.0, 0.1, 0.2), TRAINED_HERE),
    "gains-last-pcm": lambda: _gains(FINAL_LAST, PCM, TIMES, TRAINED_HERE),
    "gains-pcm": lambda: _gains(FINAL, PCM, TIMES, RIVALS),
    "gains-digits": lambda: _gains(DIGITS, PCM, (0.0, 1.0, *TIMES), ("aihwkit", "tuned"), "tune/results"),
    "digits": lambda: means(
        DIGITS, PCM, (0.0, 1.0, *TIMES), each("robust", "robust, levels from 0 to 0.4", "rwp 0.2", "sgd")
    ),
    "paper-rwp": lambda: published_rwp("resnet18"),
    **{f"paper-{n}": (lambda n=n: published("incorruptible", n)) for n in range(1, 10)},  # type: ignore[misc]
}
"""Tables by name."""


def rewritten(text: str) -> str:
    """Return the text of a README with its tables as they are recorded."""
    return _BLOCK.sub(lambda m: "\n".join([f"<!-- table {m[1]} -->", *TABLES[m[1]](), "<!-- /table -->"]), text)


def readmes() -> list[Path]:
    """Return the READMEs that have tables."""
    return [path for path in sorted(HERE.rglob("README.md")) if _BLOCK.search(path.read_text(encoding="utf-8"))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the recorded tables into the READMEs.")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if one is not as recorded")
    args = parser.parse_args(arguments)
    status = 0
    for path in readmes():
        before = path.read_text(encoding="utf-8")
        after = rewritten(before)
        if before == after:
            continue
        if args.check:
            print(f"{path} has other tables than are recorded")
            status = 1
        else:
            path.write_text(after, encoding="utf-8")
            print(path)
    return status


if __name__ == "__main__":
    sys.exit(main())
