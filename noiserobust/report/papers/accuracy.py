"""Figures of accuracies: by epoch, on test data, and by a setting of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from noiserobust.report.figures.looks import DASHED, DOTTED, SOLID, Look, family_look
from noiserobust.report.figures.panels import LEVELS, LINES, MARKS, Panel, Series
from noiserobust.report.papers.recipes import ASCENDING, NOISY, selection_noise
from noiserobust.report.papers.runs import Found, Run
from noiserobust.report.papers.selection import (
    EVALUATE,
    GROUPS,
    RECORD,
    TRAIN,
    Asked,
    Selection,
    lettered,
    select,
    series_of,
    training_with,
)

CLEAN, PERTURBED, LOSS = "held_out_accuracy", "held_out_perturbed_accuracy", "train_loss"


def by_epoch(found: Found, asked: Asked) -> Selection:
    """Figure 1: clean and perturbed held-out accuracy by epoch of SGD; the perturbed one of SAM and of RWP."""
    del asked
    sgd, notes = found.of("sgd"), []
    lines = [
        line
        for run in sgd
        for line in (
            _epochs(found, run, CLEAN, f"{run.name}, clean", dash=DASHED),
            _epochs(found, run, PERTURBED, run.name),
        )
        if line
    ]
    parts: list[Panel | str | None] = [_accuracies("a", "SGD", sgd, lines)]
    for letter, group in zip("bcd", GROUPS, strict=True):
        runs = found.of(*GROUPS[group])
        own = [line for run in runs if (line := _epochs(found, run, PERTURBED))]
        reference = [line for run in sgd if (line := _epochs(found, run, PERTURBED))]
        if runs or group != "WAS":
            parts.append(_accuracies(letter, group, runs, own, reference))
    noises = {selection_noise(run.configuration) for run in found.runs}
    if len(noises) > 1:
        notes.append(
            f"held-out accuracies are under different noise ({', '.join(sorted(noises))}); trainings with the same "
            "select.noise can be compared"
        )
    noise = noises.pop() if len(noises) == 1 else "noise of the selection"
    panels = [replace(p, title=f"{p.title}, under {noise}") if isinstance(p, Panel) else p for p in parts]
    return select(*panels, notes=notes)


def training_curves(found: Found, asked: Asked) -> Selection:
    """Figure 5 of the RWP paper: training loss and held-out accuracy by epoch."""
    del asked
    losses = [line for run in found.runs if (line := _epochs(found, run, LOSS))]
    accuracies = [line for run in found.runs if (line := _epochs(found, run, CLEAN))]
    noisy = [run.name for run in found.of(*NOISY) if not run.recipe.mixed]
    notes = [f"the training loss of {', '.join(noisy)} is that at the perturbed weights"] if noisy else []
    return select(
        Panel(LINES, "(a) training loss", "epoch", "training loss", tuple(losses), logy=True)
        if losses
        else f"(a) a training ({TRAIN})",
        Panel(LINES, "(b) held-out accuracy", "epoch", "held-out accuracy (%)", tuple(accuracies))
        if accuracies
        else f"(b) a training with held-out data ({TRAIN} --held_out 0.1)",
        notes=notes,
    )


def scatter_strong(found: Found, asked: Asked) -> Selection:
    """Figure 2: clean against perturbed test accuracy at the hardest level; best SAM and best RWP by level."""
    return select(_scatter(found, asked, -1, "a"), _best_by_level(found, "b"), notes=found.notes)


def scatter_weak(found: Found, asked: Asked) -> Selection:
    """Figure 6: clean against perturbed test accuracy at the mildest level."""
    return select(_scatter(found, asked, 0, ""), notes=found.notes)


def by_radius(found: Found, asked: Asked) -> Selection:
    """Figure 3 of the RWP paper: clean accuracy by radius of the perturbation, of SAM and of RWP."""
    del asked
    parts: list[str] = []
    rows: dict[str, list[tuple[Run, float]]] = {}
    without = []
    for run in found.of(*ASCENDING, *NOISY):
        radius = run.recipe.strength if run.recipe.family == "sam" else _radius(run)
        if radius is None:
            without.append(run.name)
        elif radius > 0:
            family = f"{run.recipe.family.upper()}{', mixed' if run.recipe.mixed else ''}"
            rows.setdefault(f"{family}{', ramped' if run.recipe.ramped else ''}", []).append((run, radius))
    if without:
        parts.append(f"perturbation_norm of {', '.join(without)} {RECORD}")
    parts += [training_with(group) for group in ("SAM", "RWP") if not found.of(*GROUPS[group])]
    xlabel = "radius of the perturbation |w_p - w| (of SAM: ρ)"
    looks = {name: _group_look(own[0][0], SOLID) for name, own in rows.items()}
    panel = _settings(found, rows, xlabel, looks, text=lambda run: run.recipe.strength_text) if rows else None
    return select(replace(panel, logx=True) if isinstance(panel, Panel) else panel, *parts)


def by_balance(found: Found, asked: Asked) -> Selection:
    """Figure 7 of the RWP paper: clean accuracy by the share of the clean gradient."""
    del asked
    groups: dict[str, list[tuple[Run, float]]] = {}
    for run in found.of(*ASCENDING, *NOISY):
        groups.setdefault(_without_balance(run), []).append((run, 1 - run.recipe.perturbed_weight))
    several = {name: rows for name, rows in groups.items() if len({alpha for _, alpha in rows}) > 1}
    if not several:
        return select(f"trainings that differ in method.perturbed_weight alone ({TRAIN} --method.perturbed_weight 0.5)")
    own = {name: replace(found.looks[rows[0][0].name], dash=SOLID, hollow=False) for name, rows in several.items()}
    return select(_settings(found, several, "α, share of the clean gradient (1 - perturbed_weight)", own))


def by_noise(found: Found, asked: Asked) -> Selection:
    """Figure 8 of the RWP paper: clean accuracy by the level of the training's noise, mixed and pure."""
    del asked
    groups: dict[str, list[tuple[Run, float]]] = {}
    for run in found.of(*NOISY):
        if run.recipe.strength is not None:
            groups.setdefault(_without_level(run), []).append((run, run.recipe.strength))
    several = {name: rows for name, rows in groups.items() if len({level for _, level in rows}) > 1}
    parts = []
    for mixed, how in ((True, "mixed, such as --method.perturbed_weight 0.5"), (False, "pure, perturbed_weight 1")):
        if not any(rows[0][0].recipe.mixed == mixed for rows in several.values()):
            parts.append(f"RWP trainings ({how}) that differ in method.noise.level alone ({TRAIN})")
    if not several:
        return select(*parts)
    symbols = {rows[0][0].recipe.symbol for rows in several.values()}
    xlabel = f"{symbols.pop()} of the noise in training" if len(symbols) == 1 else "level of the noise in training"
    looks = {n: _group_look(rows[0][0], SOLID if rows[0][0].recipe.mixed else DOTTED) for n, rows in several.items()}
    return select(_settings(found, several, xlabel, looks), *parts)


def by_severity(found: Found, asked: Asked) -> Selection:
    """Figure 6 of the RWP paper: accuracy by severity of corruptions of the images, mean over corruptions."""
    del asked
    rows = found.tests.corrupted
    if rows.empty:
        how = f"{EVALUATE} --data cifar10-c:DIR/CORRUPTION/SEVERITY --levels 0"
        return select(f"evaluations on corrupted images, without noise ({how})")
    parts: list[Panel | str | None] = []
    datasets = sorted(rows["data"].unique())
    for letter, data in zip("ab", datasets, strict=False):
        parts += _corrupted(found, rows[rows["data"] == data], str(data), letter if len(datasets) > 1 else "")
    return select(*parts)


def _epochs(found: Found, run: Run, column: str, label: str | None = None, **look: Any) -> Series | None:
    frames = [
        pd.DataFrame({"train_seed": t.train_seed, "at": t.metrics["epoch"], "x": t.metrics["epoch"], "y": values})
        for t in run.trainings
        if (values := pd.to_numeric(t.metrics[column], errors="coerce")).notna().any()
    ]
    if not frames:
        return None
    rows = pd.concat(frames, ignore_index=True).dropna(subset="y")
    return series_of(found, run, rows, label, **look)


def _accuracies(
    letter: str, group: str, runs: Sequence[Run], own: Sequence[Series], reference: Sequence[Series] = ()
) -> Panel | str:
    if not runs:
        return lettered(letter, training_with(group))
    if not own:
        return lettered(letter, f"a training with {group} and held-out data ({TRAIN} --held_out 0.1)")
    return Panel(LINES, f"({letter}) {group}", "epoch", "held-out accuracy (%)", (*reference, *own))


def _scatter(found: Found, asked: Asked, place: int, letter: str) -> Panel | str:
    tests = found.tests
    levels = asked.among(tests.levels)
    if not levels:
        there = f"; there are {', '.join(f'{v:g}' for v in tests.levels)}" if tests.levels else ""
        wanted = " ".join(f"{v:g}" for v in asked.levels) or "0 0.02 0.07"
        return lettered(letter, f"evaluations under noise ({EVALUATE} --levels {wanted}){there}")
    level = levels[place]
    noisy = tests.noisy[tests.noisy["level"] == level]
    both = tests.clean.merge(noisy, on=["method", "train_seed"], suffixes=("_clean", "_noisy"))
    if both.empty:
        return lettered(letter, f"evaluations at level 0 of the weights evaluated at {level:g} ({EVALUATE} --levels 0)")
    series = []
    for name, recipe in found.recipes.items():
        own = both[both["method"] == name]
        if len(own):
            frame = pd.DataFrame({"train_seed": own["train_seed"], "at": 0.0, "x": own["value_clean"]})
            frame = frame.assign(y=own["value_noisy"], text=recipe.strength_text)
            series.append(Series(name, found.looks[name], frame, tests.folders.get(name, ())))
    said = tests.format_level(level)
    title = lettered(letter, f"clean and noisy, {tests.noise} {said}")
    return Panel(MARKS, title, "clean test accuracy (%)", f"test accuracy (%) at {said}", tuple(series))


def _best_by_level(found: Found, letter: str) -> Panel | str:
    tests = found.tests
    times = tests.level_name == "t"
    clean = tests.clean.assign(level=0.0)
    rows = tests.noisy if times else pd.concat([clean, tests.noisy], ignore_index=True)  # without noise is no time
    series = []
    for group, families in {"SGD": ("sgd",), **GROUPS}.items():
        names = [name for name, recipe in found.recipes.items() if recipe.family in families]
        own = rows[rows["method"].isin(names)]
        if own.empty:
            continue
        means = own.groupby(["level", "method"])["value"].mean().reset_index()
        best = means.loc[means.groupby("level")["value"].idxmax(), ["level", "method"]]
        kept = own.merge(best, on=["level", "method"])
        several = len(names) > 1 and group != "SGD"
        text = [found.recipes[m].strength_text if several else "" for m in kept["method"]]
        frame = pd.DataFrame({"train_seed": kept["train_seed"], "at": kept["level"], "x": kept["level"]})
        folders = dict.fromkeys(folder for name in names for folder in tests.folders.get(name, ()))
        frame = frame.assign(y=kept["value"], text=text)
        look = family_look(families[0])
        series.append(Series(f"best {group}" if len(names) > 1 else group, look, frame, tuple(folders)))
    perturbed = [s for s in series if s.label.removeprefix("best ") != "SGD"]
    if len(tests.levels) < 1 or len(perturbed) < 2:
        return lettered(letter, f"evaluations under noise of trainings with SAM and with RWP ({EVALUATE} --levels ...)")
    xlabel = f"test noise, {tests.level_name} ({tests.noise})"
    title = lettered(letter, "best on test at each level")
    xlabel = f"time since programming ({tests.noise})" if times else xlabel
    return Panel(LEVELS, title, xlabel, "test accuracy (%)", tuple(series), logx=times, times=times)


def _accuracy(found: Found, runs: Sequence[Run]) -> tuple[dict[str, pd.DataFrame], str]:
    """Return the clean accuracy of trainings, columns ``train_seed, value``: on test data if all have that."""
    clean = found.tests.clean
    if set(clean["method"]) >= {run.name for run in runs}:
        return {r.name: clean.loc[clean["method"] == r.name, ["train_seed", "value"]] for r in runs}, "test"
    kept = {}
    for run in runs:
        rows = [(t.train_seed, _kept(t.metrics)) for t in run.trainings]
        kept[run.name] = pd.DataFrame(rows, columns=["train_seed", "value"]).dropna()
    return kept, "held-out"


def _kept(metrics: pd.DataFrame) -> float:
    """Return the held-out accuracy of the epoch that was kept, else of the last."""
    best = metrics[metrics["best"].astype(str).str.lower() == "true"]
    return float((best if len(best) else metrics)[CLEAN].iloc[-1])


def _settings(
    found: Found,
    groups: dict[str, list[tuple[Run, float]]],
    xlabel: str,
    looks: Mapping[str, Look],
    text: Callable[[Run], str] | None = None,
) -> Panel | str:
    """Return clean accuracies by a setting, a line a group."""
    accuracies, split = _accuracy(found, [run for rows in groups.values() for run, _ in rows])
    series = []
    for name, rows in groups.items():
        frames = [
            accuracies[run.name].assign(at=x, x=x, y=lambda f: f["value"], text=text(run) if text else "")
            for run, x in sorted(rows, key=lambda row: row[1])
        ]
        frame = pd.concat(frames, ignore_index=True)
        if len(frame):
            folders = dict.fromkeys(folder for run, _ in rows for folder in run.folders)
            series.append(Series(name, looks[name], frame, tuple(folders)))
    if not series:
        return f"clean accuracies of the trainings ({EVALUATE} --levels 0)"
    return Panel(LEVELS, "", xlabel, f"clean {split} accuracy (%)", tuple(series))


def _group_look(run: Run, dash: Any) -> Look:
    """Return the look of trainings that differ in a setting: that of their family, hollow without a clean gradient."""
    recipe = run.recipe
    hollow = not recipe.mixed and recipe.family in NOISY
    return replace(family_look(recipe.family), dash=DASHED if recipe.ramped else dash, hollow=hollow)


def _radius(run: Run) -> float | None:
    """Return the norm of the perturbation where it was first recorded at full strength, mean over train seeds."""
    rows = run.diagnostics
    full = rows[(rows["quantity"] == "perturbation_norm") & (rows["strength"] >= 1) & rows["value"].notna()]
    if full.empty:
        return None
    return float(full.sort_values("step").groupby("train_seed")["value"].first().mean())


def _without_balance(run: Run) -> str:
    recipe = run.recipe
    ramp = f", {recipe.schedule}" if recipe.ramped else ""
    return f"{recipe.family.upper()} {recipe.symbol} = {recipe.strength_text}{ramp}"


def _without_level(run: Run) -> str:
    recipe = run.recipe
    told = [recipe.family.upper(), recipe.schedule if recipe.ramped else "", recipe.noise.partition(", ")[2]]
    share = f"mixed, α = {1 - recipe.perturbed_weight:g}" if recipe.mixed else "pure"
    return f"{' '.join(part for part in told if part)} ({share})"


def _corrupted(found: Found, rows: pd.DataFrame, data: str, letter: str) -> list[Panel | str | None]:
    """Return a panel: by severity the mean over the corruptions that all have at all severities."""
    cells = rows.groupby(["method", "train_seed", "severity"])["corruption"].agg(set)
    common = sorted(set.intersection(*cells))
    if not common:
        return [lettered(letter, f"evaluations of all on the same corruptions of {data} at all severities")]
    kept = rows[rows["corruption"].isin(common)]
    means = kept.groupby(["method", "train_seed", "severity"])["value"].mean().reset_index()
    if found.tests.data.partition(":")[0] == data:
        means = pd.concat([found.tests.clean.assign(severity=0), means], ignore_index=True)
    series = []
    for name in found.recipes:
        own = means[means["method"] == name]
        if name in set(kept["method"]):
            frame = pd.DataFrame({"train_seed": own["train_seed"], "at": own["severity"], "x": own["severity"]})
            folders = found.tests.folders.get(name, ())
            series.append(Series(name, found.looks[name], frame.assign(y=own["value"]), folders))
    what = f"{common[0]}" if len(common) == 1 else f"mean of {len(common)} corruptions"
    title = lettered(letter, f"{data}-c, {what}")
    return [Panel(LEVELS, title, "severity (0: not corrupted)", "test accuracy (%)", tuple(series))]
