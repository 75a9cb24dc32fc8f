"""Which training the weights of an evaluation or a diagnosis come from, and what they are called in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from noiserobust.report.gather import Source
from noiserobust.report.papers.recipes import Recipe, recipe_of_weights


class Names:
    """Names of methods in figures.

    Weights say by a hash which configuration they were trained with; those of one method but of several configurations
    have the names of their trainings, as when all were called ``rwp``.

    Args:
        runs: name of each training, by the hash of its configuration.
        recipes: of the trainings, by name.
    """

    def __init__(self, runs: Mapping[str, str], recipes: Mapping[str, Recipe]) -> None:
        self._runs = dict(runs)
        self._recipes = dict(recipes)
        self._labels: dict[str, list[str]] = {}
        self._hashes: dict[str, set[str]] = {}
        self._methods: dict[str, set[str]] = {}

    def add_label(self, label: str, names: Sequence[str]) -> None:
        """Note that trainings of these names all have a label."""
        self._labels[label] = list(names)

    def hear(self, source: Source) -> None:
        """Note what the weights of a folder say of themselves; all have to be heard before names are asked for."""
        for (method, _), sha in _trained(source).items():
            self._hashes.setdefault(method, set()).add(sha)
            self._methods.setdefault(sha, set()).add(method)

    def rename(self, source: Source) -> Source:
        """Return a folder with names in place of its methods."""
        shas = _trained(source)
        named: dict[tuple[str, int], str] = {}
        for entry in source.weights:
            pair = _pair(entry)
            named[pair] = self._name(pair[0], shas.get(pair))
            known = self._recipes.get(self._runs.get(shas.get(pair, ""), ""))
            self._recipes.setdefault(named[pair], known or recipe_of_weights(entry.get("trained")))
        pairs = zip(source.draws["method"].astype(str), source.draws["train_seed"].astype(int), strict=True)
        methods = [named[pair] if pair in named else self._name(pair[0], None) for pair in pairs]
        weights = [{**entry, "method": named[_pair(entry)]} for entry in source.weights]
        manifest = {**(source.manifest or {}), "configuration": {**source.configuration, "weights": weights}}
        return Source(source.folder, source.draws.assign(method=methods), manifest)

    def recipe(self, name: str) -> Recipe:
        """Return how what has a name was trained."""
        return self._recipes.get(name, Recipe())

    def _name(self, method: str, sha: str | None) -> str:
        if sha is None:
            named = self._labels.get(method, [])
            return named[0] if len(named) == 1 else method
        run = self._runs.get(sha)
        if len(self._hashes[method]) > 1:
            return run or f"{method} {sha[:6]}"
        # Weights of one training under two names, such as its best and its last epoch, keep these.
        return run if run and len(self._methods[sha]) == 1 else method


def _trained(source: Source) -> dict[tuple[str, int], str]:
    """Return the hash of the training's configuration by method and train seed, as far as weights know it."""
    known = {}
    for entry in source.weights:
        trained = entry.get("trained")
        if isinstance(trained, dict) and isinstance(trained.get("training_sha256"), str):
            known[_pair(entry)] = str(trained["training_sha256"])
    return known


def _pair(entry: Mapping[str, Any]) -> tuple[str, int]:
    return str(entry.get("method")), int(entry.get("train_seed", 0))
