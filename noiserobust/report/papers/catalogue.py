"""The figures of two papers: names, titles, what they show, and what selects their data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from noiserobust.report.papers import accuracy, around, dynamics
from noiserobust.report.papers.runs import Found
from noiserobust.report.papers.selection import Asked, Selection

INCORRUPTIBLE = "Incorruptible neural networks: training models that can generalize to large internal perturbations"
RWP = "Efficient generalization improvement guided by random weight perturbation"


@dataclass(frozen=True)
class Entry:
    """A figure.

    Attributes:
        title: a line.
        shows: what it shows, for those who have no picture of it.
        paper: where its like is.
        select: what it draws of what was found.
    """

    title: str
    shows: str
    paper: str
    select: Callable[[Found, Asked], Selection]


CATALOGUE: Mapping[str, Entry] = {
    "1": Entry(
        "Accuracy while training",
        "held-out accuracy by epoch: of SGD without and under noise, of SAM by ρ and of RWP by σ under noise",
        INCORRUPTIBLE,
        accuracy.by_epoch,
    ),
    "2": Entry(
        "Clean and noisy test accuracy, strong noise",
        "a mark a training, clean against noisy test accuracy at the strongest level, the strength beside it; and the "
        "best of SAM and of RWP at each level, chosen on the test data",
        INCORRUPTIBLE,
        accuracy.scatter_strong,
    ),
    "3": Entry(
        "Gradient norm and gradient sharpness",
        "norm of the update gradient by epoch; loss gained by the method's own perturbation against training loss, "
        "arrows in the direction of training",
        INCORRUPTIBLE,
        dynamics.gradients,
    ),
    "4": Entry(
        "Average-direction sharpness, weak noise",
        "average-direction sharpness against loss, on training and on held-out data, and one against the other, at the "
        "lowest recorded level; arrows in the direction of training",
        INCORRUPTIBLE,
        dynamics.sharpness,
    ),
    "5": Entry(
        "Cosine of clean and perturbed gradient",
        "cosine of the gradients at the clean and at the perturbed weights by epoch, of SAM and of RWP",
        INCORRUPTIBLE,
        dynamics.cosines,
    ),
    "6": Entry(
        "Clean and noisy test accuracy, weak noise",
        "a mark a training, clean against noisy test accuracy at the weakest level, the strength beside it",
        INCORRUPTIBLE,
        accuracy.scatter_weak,
    ),
    "7": Entry(
        "Loss landscapes",
        "loss over a plane of filter-normalised directions, on training and on test data, colours alike in all panels, "
        "a cross at the minimum",
        INCORRUPTIBLE,
        around.contours,
    ),
    "7-surface": Entry(
        "Loss landscapes as surfaces",
        "the same as figure 7 in three dimensions, cut at the highest level",
        INCORRUPTIBLE,
        around.surfaces,
    ),
    "8": Entry(
        "Gradient norm and distance travelled",
        "norm of the update gradient, and length of the path from epoch to epoch, by epoch",
        INCORRUPTIBLE,
        dynamics.paths,
    ),
    "9": Entry(
        "Average-direction sharpness, strong noise",
        "average-direction sharpness against loss, on training and on held-out data, at the highest recorded level; "
        "arrows in the direction of training",
        INCORRUPTIBLE,
        dynamics.sharpness_high,
    ),
    "10": Entry(
        "Loss at the perturbed weights",
        "training loss at the perturbed weights by epoch, of SAM and of RWP",
        INCORRUPTIBLE,
        dynamics.perturbed_losses,
    ),
    "11": Entry(
        "Sharpness of ramped trainings",
        "gradient sharpness and average-direction sharpness against training loss, dashed where the strength is "
        "ramped; arrows in the direction of training",
        INCORRUPTIBLE,
        dynamics.ramped_sharpness,
    ),
    "12": Entry(
        "Loss at full strength of ramped trainings",
        "training loss at the weights perturbed with full strength by epoch, dashed where the strength is ramped; "
        "dotted where a ramp ends",
        INCORRUPTIBLE,
        dynamics.ramped_losses,
    ),
    "rwp-2": Entry(
        "Loss along one direction",
        "loss and accuracy along a filter-normalised random direction, on training and on test data",
        RWP,
        around.curves,
    ),
    "rwp-3": Entry(
        "Accuracy by radius of the perturbation",
        "clean accuracy by the norm of the perturbation, of SAM and of RWP, the strength beside each mark",
        RWP,
        accuracy.by_radius,
    ),
    "rwp-4": Entry(
        "Norms of filters",
        "distribution of the l2 norms of all filters, all train seeds together",
        RWP,
        around.filter_norms,
    ),
    "rwp-5": Entry(
        "Training curves",
        "training loss and clean held-out accuracy by epoch",
        RWP,
        accuracy.training_curves,
    ),
    "rwp-6": Entry(
        "Corrupted images",
        "test accuracy by severity of the corruption, mean over corruptions",
        RWP,
        accuracy.by_severity,
    ),
    "rwp-7": Entry(
        "Balance of clean and perturbed gradient",
        "clean accuracy by the share of the clean gradient",
        RWP,
        accuracy.by_balance,
    ),
    "rwp-8": Entry(
        "Level of the noise in training",
        "clean accuracy by the level of the noise in training, solid with the clean gradient mixed in, dotted without",
        RWP,
        accuracy.by_noise,
    ),
}
