"""What the papers find, as it can be seen in what is recorded."""

from __future__ import annotations

from finding import At, Fall, Finding, Minus, StillBest, Sum, ahead

SMALL = "incorruptible/small/results"
EPOCHS = "incorruptible/small/figure1"
RWPS = tuple(f"rwp {s:g}" for s in (0.05, 0.1, 0.2, 0.3))
SAMS = tuple(f"sam {s:g}" for s in (0.05, 0.1, 0.2))
RAMPED = "rwp 0.2 quadratic 0.7"

INCORRUPTIBLE = (
    *(
        Finding(
            "(a)",
            "training noise above test noise is best",
            f"RWP {more:g} − RWP {same:g} at {same:g}",
            ahead(SMALL, f"rwp {more:g}", f"rwp {same:g}", same),
        )
        for same, more in ((0.05, 0.1), (0.1, 0.2), (0.2, 0.3))
    ),
    Finding("(b)", "SAM wins at small test noise", "best SAM − best RWP at 0.05", ahead(SMALL, SAMS, RWPS, 0.05)),
    Finding("(b)", "RWP wins at large test noise", "best RWP − best SAM at 0.2", ahead(SMALL, RWPS, SAMS, 0.2)),
    *(
        Finding(
            "(c)",
            "one rho is best at all test noises",
            f"SAM with the rho that is best without noise − best other SAM, at {level:g}",
            StillBest(SMALL, SAMS, 0, level),
        )
        for level in (0.05, 0.2)
    ),
    Finding(
        "(c)",
        "and not one sigma of RWP",
        "best other RWP − RWP with the sigma that is best without noise, at 0.2",
        Minus(StillBest(SMALL, RWPS, 0, 0.2)),
    ),
    *(
        Finding(
            "(d)",
            "a quadratic ramp beats constant strength",
            f"{said}, ramp − constant at {level:g}",
            ahead(SMALL, ramp, constant, level),
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
        ahead(SMALL, RAMPED, "rwp 0.2", 0.2) - ahead(SMALL, RAMPED, "rwp 0.2", 0),
    ),
    Finding(
        "(d)",
        "quadratic is the best schedule",
        "RWP 0.2, quadratic − linear at 0.2",
        ahead(SMALL, RAMPED, "rwp 0.2 linear 0.7", 0.2),
    ),
    Finding(
        "(e)",
        "larger strength becomes usable under a ramp",
        "RWP 0.3 − 0.2 at 0.2, ramped − constant",
        ahead(SMALL, "rwp 0.3 quadratic 0.7", RAMPED, 0.2) - ahead(SMALL, "rwp 0.3", "rwp 0.2", 0.2),
    ),
    Finding(
        "(f)",
        "SGD's perturbed accuracy peaks early and falls",
        "held out, digits, 30 epochs, sigma = 0.2: epochs 11 to 20 − 21 to 30",
        Fall(EPOCHS, "sgd"),
    ),
    Finding("(f)", "that of strong RWP does not", "the same of SGD − of RWP 0.3", Fall(EPOCHS, "sgd", "rwp 0.3")),
    Finding(
        "(g)",
        "the same ranking under Laplace noise",
        "RWP 0.2 ramped − SGD at b = 0.1",
        ahead(SMALL, RAMPED, "sgd", 0.1, "laplace"),
    ),
    Finding(
        "(g)",
        "the same ranking under Laplace noise",
        "best RWP − best SAM at b = 0.1",
        ahead(SMALL, RWPS, SAMS, 0.1, "laplace"),
    ),
)
"""Of "Incorruptible neural networks"; letters as in the project's notes on it."""

RWP, CORRUPTED = "rwp/small/results", "rwp/small/corrupted/severity-5"


def _clean(a: str, b: str) -> Sum:
    return ahead(RWP, a, b, 0)


LI = (
    Finding("table 1", "RWP (mixed, two batches) beats SGD", "RWP − SGD, clean", _clean("rwp", "sgd")),
    Finding("table 1", "and SAM", "RWP − SAM, clean", _clean("rwp", "sam")),
    Finding(
        "table 2", "RWP beats SGD at equal compute", "RWP with half the epochs − SGD", _clean("rwp 3 epochs", "sgd")
    ),
    Finding("table 2", "and SAM", "the same − SAM with half the epochs", _clean("rwp 3 epochs", "sam 3 epochs")),
    Finding(
        "table 3",
        "RWP is more robust to corruption than SGD",
        "RWP − SGD, severity 5",
        ahead(CORRUPTED, "rwp", "sgd", 0),
    ),
    Finding("table 3", "and than SAM", "RWP − SAM, severity 5", ahead(CORRUPTED, "rwp", "sam", 0)),
    Finding("table 7", "two batches are slightly better for RWP", "two − one, clean", _clean("rwp", "rwp one batch")),
    Finding("table 8", "SAM needs one batch", "one − two, clean", _clean("sam", "sam two batches")),
    Finding(
        "table 8", "and falls to SGD with two", "SGD − SAM with two batches, clean", _clean("sgd", "sam two batches")
    ),
)
"""Of "Efficient generalization improvement guided by random weight perturbation"."""

MARWP = "marwp/small/results"

LI_2024 = (
    *(
        Finding(
            "m-RWP",
            "mixing the clean gradient in is better than the perturbed one alone",
            f"lambda 0.5 − lambda 1, sigma {sigma:g}, clean",
            ahead(MARWP, f"rwp {sigma:g} lambda 0.5", f"rwp {sigma:g} lambda 1", 0),
        )
        for sigma in (0.01, 0.02, 0.04, 0.08)
    ),
    *(
        Finding(
            "ARWP",
            "scaling by past gradients is better than none",
            f"{said}, ARWP − RWP, sigma 0.04, clean",
            ahead(MARWP, f"arwp 0.04 lambda {share}", f"rwp 0.04 lambda {share}", 0),
        )
        for said, share in (("lambda 1", "1"), ("lambda 0.5", "0.5"))
    ),
    Finding(
        "m-ARWP",
        "is as good as SAM, or better",
        "best m-ARWP − best SAM, clean",
        ahead(MARWP, [f"arwp {s:g} lambda 0.5" for s in (0.01, 0.02, 0.04, 0.08)], SAMS, 0),
    ),
)
"""Of "Revisiting random weight perturbation for efficiently improving generalization"."""

WAS = "was/small/results"

WEIGHT_AUGMENTATION = (
    Finding("AOM", "plain weights gain accuracy", "WAS 0.22 − SGD", ahead(WAS, "was 0.22", "sgd", 0, "kernels")),
    Finding(
        "DOM",
        "transformed weights can be used",
        "WAS 0.22 − SGD, both transformed",
        ahead(WAS, "was 0.22", "sgd", 0.22, "kernels"),
    ),
    Finding(
        "DOM",
        "and are better than plain ones of SGD",
        "WAS 0.22, transformed − SGD, plain",
        Sum(WAS, (At("was 0.22", 0.22, 1, "kernels"), At("sgd", 0, -1, "kernels"))),
    ),
)

PAPERS = {
    "incorruptible": INCORRUPTIBLE,
    "rwp": LI,
    "marwp": LI_2024,
    "was": WEIGHT_AUGMENTATION,
}
"""Findings by the folder of a paper."""
