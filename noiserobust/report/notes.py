"""What a reader has to know before believing the numbers: gaps, unequal numbers of seeds, unlike settings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from noiserobust.report.analysis import Analysis
from noiserobust.report.gather import TRAIN, Gathered, Source
from noiserobust.report.tables import CLEAN, TRAINING, Gap, NoiseTable, format_number
from noiserobust.report.words import listed
from noiserobust.results.summary import is_sampled, precision

# What may differ between folders without making their numbers incomparable.
_FREE_KEYS = {"weights", "levels", "draws"}


def find_notes(gathered: Gathered, analyses: Sequence[Analysis]) -> list[str]:
    """Return the cautions, as sentences of plain text."""
    tables = [a.table for a in analyses]
    return [
        *_seeds(gathered.draws),
        *(line for table in tables for line in _missing(table)),
        *_missing_trainings(gathered.sources),
        *_sampled(gathered),
        *_selection(gathered, analyses),
        *_compute(gathered),
        *_strangers(gathered),
        *_examples(gathered),
        *_same_weights(gathered.sources),
        *_clean_disagrees(gathered),
        *_digital(gathered.sources),
        *_settings(gathered.sources),
        *_manifests(gathered.sources),
    ]


def _seeds(draws: pd.DataFrame) -> Iterator[str]:
    """Say it once for all noises where it holds for all, else for each: weight files may differ from noise to noise."""
    said: dict[str, list[str]] = defaultdict(list)
    for noise, group in draws.groupby("noise", sort=False):
        for line in _seeds_of_one(group):
            said[line].append(str(noise))
    for line, noises in said.items():
        yield line if len(noises) == draws["noise"].nunique() else f"Under {listed(noises)}: {line}"


def _seeds_of_one(draws: pd.DataFrame) -> Iterator[str]:
    trainings = dict(iter(draws[TRAINING].drop_duplicates().groupby("method", sort=False)))
    numbers = {m: len(g) for m, g in trainings.items()}
    seeds = {m: sorted(set(g["train_seed"])) for m, g in trainings.items()}
    single = [m for m, n in numbers.items() if n == 1]
    if single:
        yield (
            f"Seed uncertainty: not estimable (one weight file) for {listed(single)}. How far the numbers would move "
            "with another training is unknown."
        )
    if len(set(numbers.values())) > 1:
        yield (
            "The methods were trained with different numbers of seeds: "
            f"{listed(f'{m} {n}' for m, n in numbers.items())}. Their intervals differ in width for that reason alone."
        )
    elif len(set(map(tuple, seeds.values()))) > 1:
        each = listed(f"{m} {'/'.join(map(str, s))}" for m, s in seeds.items())
        yield f"The methods were trained with different seeds: {each}."
    doubled = [m for m, n in numbers.items() if n > len(seeds[m])]
    if doubled:
        yield (
            f"Several weight files of {listed(doubled)} carry the same train seed; each counts as a "
            "training of its own."
        )


def _missing(table: NoiseTable) -> Iterator[str]:
    lacks = [
        f"{method}, train seed {seed} ({weights}) has {listed(_gap(table, gap) for gap in gaps)}"
        for (method, seed, weights), gaps in groupby(table.gaps, key=lambda g: (g.method, g.train_seed, g.weights))
    ]
    if lacks:
        marked = any(not c.complete for c in table.cells.values())
        rest = " Numbers marked † rest on fewer draws or weight files than the others." if marked else ""
        yield f"Missing under {table.noise} ({table.metric}): {'; '.join(lacks)}.{rest}"


def _gap(table: NoiseTable, gap: Gap) -> str:
    if gap.level == CLEAN:
        return "no clean number"
    at = f"{table.level_name} = {table.format_level(gap.level)}"
    return f"{gap.have or 'none'} of {gap.expected} draws at {at}"


def _missing_trainings(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        have = set(source.draws[["method", "train_seed"]].itertuples(index=False, name=None))
        absent = [
            f"{w['method']}, train seed {w['train_seed']}"
            for w in source.weights
            if {"method", "train_seed"} <= set(w) and (w["method"], w["train_seed"]) not in have
        ]
        if absent:
            yield f"{source.folder} announces draws that are not there yet, of {listed(absent)}."
        elif source.draws.empty:
            yield f"{source.folder} holds a manifest and no finished draw."


def _sampled(gathered: Gathered) -> Iterator[str]:
    """Say which means come from chips that were run on some of the examples only, and whether they are known well."""
    for source in gathered.sources:
        until = source.configuration.get("until")
        if not is_sampled(source.draws) or not isinstance(until, int | float):
            continue
        names = listed(source.draws["noise"].unique())
        yield (
            f"Under {names} each chip was run on some of the {gathered.data} examples, and as many chips as it takes "
            f"to know the mean of each weight file to ±{until:g}: a single draw says little, and nothing of yields and "
            "tails."
        )
        wide = int((precision(source.draws)["half_width"] > until).sum())
        if wide:
            yield f"Of the means of weight files under {names} {wide} {'is' if wide == 1 else 'are'} not known so well."


def _selection(gathered: Gathered, analyses: Sequence[Analysis]) -> Iterator[str]:
    """Say what was chosen on the images that it is measured on."""
    data = [source.configuration.get("data") for source in gathered.sources if source.draws.size]
    measured = [d["sha256"] for d in data if isinstance(d, dict) and d.get("sha256")]
    trained = [
        method
        for method in gathered.methods
        if any(run.method == method and run.configuration.get("data_sha256") in measured for run in gathered.trainings)
    ]
    if trained:
        yield (
            f"{listed(trained)} {'was' if len(trained) == 1 else 'were'} trained, and the epoch chosen, on the very "
            "examples that the numbers are measured on: they say nothing of other images."
        )
    elif gathered.split == TRAIN:
        yield "The numbers are measured on training examples: they say nothing of other images."
    if any(a.mismatches for a in analyses):
        yield (
            f"Where methods differ by their training level, the best is found by comparing on the {gathered.data} set: "
            "its number flatters a little, and a claim for it needs other images."
        )


def _strangers(gathered: Gathered) -> Iterator[str]:
    """Say which trainings that were found are of other weights."""
    folders = [run.folder for run in gathered.strangers if run.method in gathered.methods]
    if folders:
        yield f"Left out, as they are of other weights than those that were evaluated: trainings in {listed(folders)}."


def _compute(gathered: Gathered) -> Iterator[str]:
    """Say where methods were trained with different compute."""
    found: dict[str, int] = {}
    for run in gathered.trainings:
        images = run.configuration.get("batch_size")
        if run.passes is not None and isinstance(images, int):
            found[run.method] = max(found.get(run.method, 0), run.passes * images)
    passes = {method: found[method] for method in gathered.methods if method in found}
    if passes and max(passes.values()) > 1.01 * min(passes.values()):
        least = min(passes.values())
        each = listed(f"{m} {n / least:.3g} ×" for m, n in passes.items())
        yield f"The methods were trained with different compute; forward and backward passes against the least: {each}."


def _examples(gathered: Gathered) -> Iterator[str]:
    numbers = sorted(set(gathered.examples))
    if len(numbers) > 1:
        yield f"Not all draws were measured on the same number of {gathered.data} examples: {listed(numbers)}."


def _same_weights(sources: Sequence[Source]) -> Iterator[str]:
    files: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for entry in source.weights:
            if isinstance(entry.get("sha256"), str):
                files[entry["sha256"]].add(str(entry.get("file")))
    for names in files.values():
        if len(names) > 1:
            yield (
                f"{listed(sorted(names))} hold the same weights (same SHA-256) and are counted as different "
                "trainings: the seed uncertainty is too small."
            )


def _clean_disagrees(gathered: Gathered) -> Iterator[str]:
    draws = gathered.draws
    clean = draws[draws["level"] == CLEAN]
    for key, group in clean.groupby([*TRAINING, "metric"]):
        if group["value"].nunique() > 1:
            method, seed, weights, metric = key
            values = [
                f"{format_number(v, str(metric))} ({n})" for v, n in zip(group["value"], group["noise"], strict=True)
            ]
            yield (
                f"The clean {metric} of {method}, train seed {seed} ({weights}), differs between evaluations: "
                f"{listed(values)}. They were not made in the same way."
            )


def _digital(sources: Sequence[Source]) -> Iterator[str]:
    """Say which noisy weights a simulation of full tiles left out."""
    said: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        layers = source.configuration.get("digital")
        if isinstance(layers, list) and layers:
            said[listed(layers)].extend(str(n) for n in source.draws["noise"].unique())
    for layers, noises in said.items():
        yield (
            f"Under {listed(dict.fromkeys(noises))} some layers stayed digital and without noise, as they cannot be "
            f"simulated as tiles: {layers}."
        )


def _settings(sources: Sequence[Source]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Source]] = defaultdict(list)
    for source in sources:
        for noise, level_name in (
            source.draws[["noise", "level_name"]].drop_duplicates().itertuples(index=False, name=None)
        ):
            groups[noise, level_name].append(source)
    for (noise, _), group in groups.items():
        settings = [_flat(s.configuration) for s in group if s.configuration]
        keys = {k for s in settings for k in s}
        differing = sorted(k for k in keys if len({repr(s.get(k)) for s in settings}) > 1)
        if differing:
            yield (
                f"The folders that {noise} was joined from were evaluated under different settings, so methods may "
                f"differ for that reason: {listed(differing)}."
            )


def _manifests(sources: Sequence[Source]) -> Iterator[str]:
    absent = [s.folder for s in sources if s.manifest is None]
    if absent:
        yield f"No manifest, so settings and versions are unknown, in {listed(absent)}."


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if not prefix and key in _FREE_KEYS:
            continue
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
