"""What the papers find, as it can be seen in what is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from finding import At, Fall, Finding, Minus, StillBest, Sum, ahead
from recorded import KERNELS, LAST, MARWP, OF_DEPTHS, OF_WIDTHS, PLAIN, RAMPED, SMALL, WAS, severity

EPOCHS = "incorruptible/small/figure1"
RWPS = tuple(f"rwp {s:g}" for s in (0.05, 0.1, 0.2, 0.3))
SAMS = tuple(f"sam {s:g}" for s in (0.05, 0.1, 0.2))
RAMPED_RWPS = (RAMPED, "rwp 0.3 quadratic 0.7")
RAMPED_SAMS = ("sam 0.2 quadratic 0.5",)


def incorruptible(folder: str) -> tuple[Finding, ...]:
    """Return the findings (a) to (e) and (g) of "Incorruptible neural networks", measured in a folder."""
    return (
        *(
            Finding(
                "(a)",
                "training noise above test noise is best: twice as much",
                f"RWP {more:g} − RWP {same:g} at {same:g}",
                ahead(folder, f"rwp {more:g}", f"rwp {same:g}", same),
            )
            for same, more in ((0.05, 0.1), (0.1, 0.2))
        ),
        Finding(
            "(a)",
            "training noise above test noise is best: half as much again",
            "RWP 0.3 − RWP 0.2 at 0.2",
            ahead(folder, "rwp 0.3", "rwp 0.2", 0.2),
        ),
        Finding("(b)", "SAM wins at small test noise", "best SAM − best RWP at 0.05", ahead(folder, SAMS, RWPS, 0.05)),
        Finding("(b)", "RWP wins at large test noise", "best RWP − best SAM at 0.2", ahead(folder, RWPS, SAMS, 0.2)),
        *(
            Finding(
                "(c)",
                "one rho is best at all test noises",
                f"SAM with the rho that is best at 0.05 − best other SAM, at {level:g}",
                StillBest(folder, SAMS, 0.05, level),
            )
            for level in (0.1, 0.2)
        ),
        Finding(
            "(c)",
            "of RWP no one sigma is",
            "best other RWP − RWP with the sigma that is best at 0.05, at 0.2",
            Minus(StillBest(folder, RWPS, 0.05, 0.2)),
        ),
        *(
            Finding(
                "(d)",
                "a quadratic ramp beats constant strength",
                f"{said}, best ramped − best constant at {level:g}",
                ahead(folder, ramped, constant, level),
            )
            for said, ramped, constant in (("RWP", RAMPED_RWPS, RWPS), ("SAM", RAMPED_SAMS, SAMS))
            for level in (0.05, 0.2)
        ),
        Finding(
            "(d)",
            "a ramp gains the more the larger the test noise",
            "RWP, the same at 0.2 − at 0.05",
            ahead(folder, RAMPED_RWPS, RWPS, 0.2) - ahead(folder, RAMPED_RWPS, RWPS, 0.05),
        ),
        *(
            Finding(
                "(d)",
                f"a quadratic ramp beats {said}",
                f"{name}, quadratic − {other.split()[0]} at 0.2",
                ahead(folder, ramped, f"{method} {other}", 0.2),
            )
            for name, method, ramped, length in (
                ("RWP 0.2", "rwp 0.2", RAMPED, 0.7),
                ("SAM 0.2", "sam 0.2", RAMPED_SAMS[0], 0.5),
            )
            for said, other in (("a linear one", f"linear {length:g}"), ("off-to-on", "off-to-on 0.5"))
        ),
        Finding(
            "(e)",
            "larger strength becomes usable under a ramp",
            "RWP 0.3 − 0.2 at 0.2, ramped − constant",
            ahead(folder, "rwp 0.3 quadratic 0.7", RAMPED, 0.2) - ahead(folder, "rwp 0.3", "rwp 0.2", 0.2),
        ),
        Finding(
            "(e)",
            "larger strength under a ramp beats any constant one",
            "RWP 0.3 ramped − best constant RWP at 0.2",
            ahead(folder, "rwp 0.3 quadratic 0.7", RWPS, 0.2),
        ),
        Finding(
            "(g)",
            "SAM wins at small Laplace noise",
            "best SAM − best RWP at b = 0.05",
            ahead(folder, SAMS, RWPS, 0.05, "laplace"),
        ),
        Finding(
            "(g)",
            "RWP wins at large Laplace noise",
            "best RWP − best SAM at b = 0.1",
            ahead(folder, RWPS, SAMS, 0.1, "laplace"),
        ),
    )


def on_networks(folder: str, unit: str, sizes: Sequence[int]) -> tuple[Finding, ...]:
    """Return the findings (b) on networks of other sizes than that of the other tables."""
    return tuple(
        Finding(
            "(b)",
            "RWP wins at large test noise",
            f"{size} {unit}: RWP 0.2 − SAM 0.1 at 0.2",
            ahead(folder, f"{size} rwp 0.2", f"{size} sam 0.1", 0.2),
        )
        for size in sizes
    )


WIDTHS = (
    *on_networks(OF_WIDTHS, "channels", (4, 12)),
    *(
        Finding(
            "(d)",
            "a quadratic ramp beats constant strength",
            f"{width} channels: RWP 0.2, ramped − constant at 0.2",
            ahead(OF_WIDTHS, f"{width} {RAMPED}", f"{width} rwp 0.2", 0.2),
        )
        for width in (4, 12)
    ),
)
"""Findings that tables 6 and 7 have on networks of other widths."""

# Epochs 6 to 10 are where the three trainings recorded in `diagnostics/digits` were best.
FIGURE_1 = (
    Finding(
        "(f)",
        "SGD's perturbed accuracy peaks early and falls",
        "digits, held out, sigma = 0.2: epochs 6 to 10 − 26 to 30",
        Fall(EPOCHS, "sgd", (6, 10), (26, 30)),
    ),
    Finding(
        "(f)",
        "strong RWP's perturbed accuracy does not fall",
        "RWP 0.3, the same: epochs 26 to 30 − 6 to 10",
        Minus(Fall(EPOCHS, "rwp 0.3", (6, 10), (26, 30))),
    ),
)


def _clean(a: str, b: str) -> Sum:
    return ahead(severity(0), a, b, 0)


LI = (
    Finding("table 1", "RWP (mixed, two batches) beats SGD", "RWP − SGD, clean", _clean("rwp", "sgd")),
    Finding("table 1", "RWP is as good as SAM, within 0.5", "RWP − SAM, clean", _clean("rwp", "sam"), 0.5),
    Finding(
        "table 2", "RWP beats SGD at equal compute", "RWP with half the epochs − SGD", _clean("rwp 2 epochs", "sgd")
    ),
    Finding(
        "table 2",
        "RWP beats SAM at equal compute",
        "RWP − SAM, both with half the epochs",
        _clean("rwp 2 epochs", "sam 2 epochs"),
    ),
    Finding(
        "table 3",
        "RWP is more robust to corruption than SGD",
        "RWP − SGD, severity 5",
        ahead(severity(5), "rwp", "sgd", 0),
    ),
    Finding(
        "table 3",
        "RWP is more robust to corruption than SAM",
        "RWP − SAM, severity 5",
        ahead(severity(5), "rwp", "sam", 0),
    ),
    Finding("table 7", "two batches are slightly better for RWP", "two − one, clean", _clean("rwp", "rwp one batch")),
    Finding("table 8", "SAM needs one batch", "one − two, clean", _clean("sam", "sam two batches")),
    Finding(
        "table 8",
        "SAM with two batches is nearer to SGD than to SAM with one",
        "SAM + SGD − 2 SAM with two batches, clean",
        _clean("sam", "sam two batches") - _clean("sam two batches", "sgd"),
    ),
)
"""Of "Efficient generalization improvement guided by random weight perturbation"."""

SIGMAS = (0.01, 0.02, 0.04, 0.08)


def _all(family: str, share: str) -> tuple[str, ...]:
    return tuple(f"{family} {sigma:g} lambda {share}" for sigma in SIGMAS)


LI_2024 = (
    Finding(
        "m-RWP",
        "mixing the clean gradient in beats the perturbed one alone",
        "lambda 0.5 − lambda 1, the best sigma of each, clean",
        ahead(MARWP, _all("rwp", "0.5"), _all("rwp", "1"), 0),
    ),
    Finding(
        "m-RWP",
        "mixing allows larger perturbations",
        "lambda 0.5 − lambda 1: at sigma 0.08 − at 0.01",
        ahead(MARWP, "rwp 0.08 lambda 0.5", "rwp 0.08 lambda 1", 0)
        - ahead(MARWP, "rwp 0.01 lambda 0.5", "rwp 0.01 lambda 1", 0),
    ),
    *(
        Finding(
            "ARWP",
            "scaling by past gradients is better than none",
            f"{said}, ARWP − RWP, the best sigma of each, clean",
            ahead(MARWP, _all("arwp", share), _all("rwp", share), 0),
        )
        for said, share in (("lambda 1", "1"), ("lambda 0.5", "0.5"))
    ),
    Finding(
        "m-ARWP",
        "with scaling and mixing as good as SAM, or better, within 0.2",
        "best m-ARWP − best SAM, clean",
        ahead(MARWP, _all("arwp", "0.5"), SAMS, 0),
        0.2,
    ),
)
"""Of "Revisiting random weight perturbation for efficiently improving generalization"."""

WEIGHT_AUGMENTATION = (
    *(
        Finding(
            "AOM", "plain weights gain accuracy", f"WAS {p:g} − SGD", ahead(WAS, f"was {p:g}", "sgd", PLAIN, KERNELS)
        )
        for p in (0.05, 0.1, 0.22)
    ),
    Finding(
        "DOM",
        "transformed weights are as good as plain ones, within 1",
        "WAS 0.22, transformed − plain",
        Sum(WAS, (At("was 0.22", 0.22, 1, KERNELS), At("was 0.22", PLAIN, -1, KERNELS))),
        1.0,
    ),
    Finding(
        "DOM",
        "transformed weights of WAS beat transformed ones of SGD",
        "WAS 0.22 − SGD, both transformed",
        ahead(WAS, "was 0.22", "sgd", 0.22, KERNELS),
    ),
)

PAPERS = {
    "incorruptible": tuple(sorted((*incorruptible(SMALL), *FIGURE_1), key=lambda finding: finding.name)),
    "incorruptible-last": incorruptible(LAST),
    "incorruptible-depths": on_networks(OF_DEPTHS, "layers", (8, 14)),
    "incorruptible-widths": WIDTHS,
    "rwp": LI,
    "marwp": LI_2024,
    "was": WEIGHT_AUGMENTATION,
}
"""Findings by the folder of a paper; ``-last`` are those of its last epoch, whatever is best under noise, ``-depths``
and ``-widths`` those on networks of other sizes."""
