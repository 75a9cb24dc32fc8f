"""Which layers to keep digital so that the accuracy under noise is the wanted one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from noiserobust.diagnose.conditions import Conditions
from noiserobust.errors import InvalidValueError
from noiserobust.results.sensitivity import DIGITAL_DTYPES
from noiserobust.results.summary import summarize
from noiserobust.rng import Stream

_EXACT = 1e-9  # points: an accuracy that is the wanted one may differ in the last bit


def check_reachable(clean: pd.DataFrame, wanted: float) -> None:
    """Raise unless each method reaches an accuracy without noise: more cannot be had by keeping layers digital.

    Args:
        clean: draws without noise.
        wanted: mean accuracy, percent.

    Raises:
        InvalidValueError: if one does not.
    """
    for _, row in summarize(clean).iterrows():
        if row["mean"] < wanted - _EXACT:
            raise InvalidValueError(
                f"Expected `wanted` to be at most the accuracy without noise, {row['mean']:.4g} of method "
                f"{row['method']!r}, but got {wanted:g}"
            )


def fresh_seed(seed: int) -> int:
    """Return the root seed of chips that had no part in a choice made on those of ``seed``."""
    return Stream(seed, "digital", "verify").key % 2**62


def digital_layers(
    conditions: Conditions, table: pd.DataFrame, found: Mapping[tuple[str, str], pd.DataFrame], wanted: float
) -> pd.DataFrame:
    """Search, for each method, a few layers whose being digital brings the mean accuracy under noise to a wanted one.

    Greedy: layers become digital in the order of what each gains alone, of equal ones the smaller first, until the mean
    on the chips of the diagnosis is the wanted one; then they are tried the other way round, the largest first, and
    each that is not needed goes back into the crossbar. Each step is an evaluation of its own. What was chosen is
    evaluated on as many other chips at last: the chips on which it was chosen flatter it.

    Args:
        conditions: where to evaluate.
        table: of all layers, with the columns of ``sensitivity.csv``.
        found: the draws of ``clean``, ``all`` and ``except`` of each layer.
        wanted: mean accuracy, percent; at most that without noise.

    Returns:
        One row a (method, step), with the columns of ``digital.csv``.
    """
    rows: list[dict[str, Any]] = []
    for method in conditions.study.methods:
        own = table[(table["method"] == method) & (table["condition"] == "except")].set_index("layer")
        rows += _Search(conditions, method, own["change"].to_dict(), found, wanted).rows()
    frame: pd.DataFrame = pd.DataFrame(rows, columns=list(DIGITAL_DTYPES)).astype(DIGITAL_DTYPES)
    return frame


@dataclass
class _Search:
    """The search for the weights of one method.

    Args:
        conditions: where to evaluate.
        method: whose weights.
        gains: what each layer gains alone.
        found: what is evaluated already.
        wanted: mean accuracy, percent.
    """

    conditions: Conditions
    method: str
    gains: Mapping[Any, float]
    found: Mapping[tuple[str, str], pd.DataFrame]
    wanted: float
    _known: dict[frozenset[str], pd.DataFrame] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        study = self.conditions.study
        layers = study.layers
        self._known = {frozenset(): self.found["all", ""], frozenset(layers): self.found["clean", ""]}
        self._known |= {frozenset([layer]): self.found["except", layer] for layer in layers}
        rows: list[dict[str, Any]] = []
        chosen: list[str] = []
        reached = self._row("add", "", chosen, self._draws(chosen))["reached"]
        for layer in sorted(layers, key=lambda x: (-self.gains[x], layers[x])):
            if reached:
                break
            chosen.append(layer)
            rows.append(self._row("add", layer, chosen, self._draws(chosen)))
            reached = rows[-1]["reached"]
        for layer in sorted(chosen, key=lambda x: (-layers[x], self.gains[x])):
            rest = [x for x in chosen if x != layer]
            if frozenset(rest) in self._known:
                continue  # met on the way up, where it was not enough
            rows.append(self._row("drop", layer, rest, self._draws(rest)))
            chosen = rest if rows[-1]["reached"] else chosen
        seed = fresh_seed(study.plan.seed)
        rows.append(self._row("verify", "", chosen, self._draws(chosen, seed), seed))
        return [{**row, "step": step} for step, row in enumerate(rows, start=1)]

    def _draws(self, digital: Iterable[str], seed: int | None = None) -> pd.DataFrame:
        study, key = self.conditions.study, frozenset(digital)
        noisy = [layer for layer in study.layers if layer not in key]
        if seed is not None and noisy:
            return self.conditions.searched("verify", study.narrowed(noisy, self.method, seed))
        if key not in self._known:
            self._known[key] = self.conditions.searched("digital", study.narrowed(noisy, self.method))
        draws = self._known[key]
        own: pd.DataFrame = draws[draws["method"] == self.method]
        return own

    def _row(
        self, kind: str, layer: str, digital: Iterable[str], draws: pd.DataFrame, seed: int | None = None
    ) -> dict[str, Any]:
        study, chosen = self.conditions.study, set(digital)
        summary = summarize(draws).iloc[0]
        return {
            "method": self.method,
            "kind": kind,
            "layer": layer,
            "digital": " ".join(name for name in study.layers if name in chosen),
            "digital_share": sum(study.layers[name] for name in chosen) / sum(study.layers.values()),
            **{name: summary[name] for name in ("mean", "ci_low", "ci_high", "n_draws")},
            "seed": study.plan.seed if seed is None else seed,
            "reached": bool(summary["mean"] >= self.wanted - _EXACT),
            "wanted": self.wanted,
        }
