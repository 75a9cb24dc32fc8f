"""Valid files of all kinds, as Hypothesis draws them: what is made here has to be read."""

from __future__ import annotations

import copy
from importlib import resources
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import strategies as st

from noiserobust.noise.profiles import profile_names
from noiserobust.noise.reference import GRANULARITIES, REFERENCES
from noiserobust.results.schema import DRAW_KEY


def means_something(text: str) -> bool:
    """Return whether YAML would not read a text, quoted as it may be in its file, as null: as it reads ``#1``."""
    try:
        return yaml.safe_load(text) is not None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
        return True


# What YAML, CSV and terminals have their own ideas of: quotes, commas, colons, what looks like a number, line breaks.
SIGNS = st.sampled_from("abcXYZ019 _-.,:;'\"#&*!|>%@`[]{}?=\\/~äé漢😀")
NAMES = st.text(SIGNS, min_size=1, max_size=12)
WORDS = NAMES.filter(means_something)
NUMBERS = st.floats(min_value=1e-6, max_value=1e6)


def some(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return mappings with some of the keys."""
    return st.fixed_dictionaries({}, optional=strategies)


def share(*, one: bool) -> st.SearchStrategy[float]:
    return st.floats(0, 1, exclude_min=True, exclude_max=not one)


NOISES = some(
    name=st.sampled_from(["gaussian", "laplace", "pcm-hermes-2"]),
    granularity=st.sampled_from(GRANULARITIES),
)
SCHEDULES = st.one_of(
    st.just({"name": "constant"}),
    st.fixed_dictionaries({"name": st.just("power"), "power": NUMBERS}, optional={"start": st.floats(0, 1)}),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["linear", "quadratic", "cosine"])},
        optional={"fraction": share(one=True), "start": st.floats(0, 1)},
    ),
)
METHODS = st.one_of(
    st.just({"name": "sgd"}),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["sam", "asam"])},
        optional={"rho": st.floats(0, 10), "schedule": SCHEDULES, "per_micro_batch": st.booleans()},
    ),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["rwp", "arwp"])},
        optional={
            "noise": NOISES,
            "schedule": SCHEDULES,
            "draws": st.integers(1, 9),
            "perturbed_weight": share(one=True),
            "level_range": st.lists(st.floats(0, 1), min_size=2, max_size=2),
        },
    ),
)

TRAININGS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"model": NAMES, "data": NAMES},
    optional={
        "model_args": st.dictionaries(
            NAMES,
            st.one_of(st.booleans(), st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), st.sampled_from(["a", "b c"])),
        ),
        "normalize": WORDS,
        "method": METHODS,
        "optimizer": st.one_of(
            some(name=st.just("sgd"), lr=NUMBERS, momentum=st.floats(0, 1), weight_decay=st.floats(0, 1)),
            st.fixed_dictionaries(
                {"name": st.just("adamw")}, optional={"lr": NUMBERS, "weight_decay": st.floats(0, 1)}
            ),
        ),
        "average": some(decay=st.floats(0.01, 0.99)),
        "epochs": st.integers(1, 10**6),
        "batch_size": st.integers(1, 10**6),
        "label_smoothing": share(one=False),
        "augment": some(crop=st.integers(0, 99), flip=st.booleans()),
        "clip": some(grad_norm=NUMBERS, weight_stds=NUMBERS),
        "held_out": share(one=False),
        "select": some(noise=NOISES, draws=st.integers(1, 99)),
        "seed": st.integers(0, 2**80),
        "label": WORDS,
        "record": st.fixed_dictionaries(
            {"every": st.one_of(st.just("auto"), st.integers(1, 10**6))},
            optional={"levels": st.lists(NUMBERS, unique=True, max_size=4), "draws": st.integers(2, 9)},
        ),
    },
)
"""Settings of trainings, as they stand in a file."""

_PROFILES = {
    name: yaml.safe_load(resources.files("noiserobust_hardware_profiles").joinpath(f"{name}.yaml").read_text("utf-8"))
    for name in profile_names()
}
_BITS = st.one_of(st.just(0), st.integers(2, 24))


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, Any]:
    """Return the content of a device profile: one of ours with other settings around its curves."""
    content = copy.deepcopy(_PROFILES[draw(st.sampled_from(sorted(_PROFILES)))])
    for scale in ("prog_noise_scale", "read_noise_scale", "drift_scale"):
        if scale in content["parameters"]:
            content["parameters"][scale] = draw(st.floats(0, 2))
    text = st.text(SIGNS, min_size=1, max_size=20).filter(str.strip)
    content |= {"name": draw(text), "technology": draw(text), "description": draw(text)}
    content["source"] = {key: draw(text) for key in ("citation", "doi", "figure")}
    content["granularity"] = draw(st.sampled_from(GRANULARITIES))
    content["tile"] = {"rows": draw(st.integers(1, 4096)), "columns": draw(st.integers(1, 4096))}
    content["clip_percentile"] = draw(st.floats(50, 100, exclude_min=True))
    content["compensation"] = draw(st.sampled_from(["none", "global", "per_column", "mean_shift"]))
    content["periphery"] |= {"dac_bits": draw(_BITS), "adc_bits": draw(_BITS), "input_noise": draw(st.floats(0, 1))}
    return content


SCALED = st.fixed_dictionaries(
    {"noise": st.sampled_from(["gaussian", "laplace"])},
    optional={
        "level": st.floats(0, 1),
        "reference": st.sampled_from(REFERENCES),
        "granularity": st.sampled_from(GRANULARITIES),
    },
)
FAULTS = st.fixed_dictionaries(
    {"noise": st.sampled_from(["stuck-zero", "stuck-max"])}, optional={"level": st.floats(0, 1)}
)
DEVICES = st.fixed_dictionaries({"noise": st.sampled_from(profile_names())})
NOISE_FILES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    SCALED,
    FAULTS,
    DEVICES,
    st.fixed_dictionaries({"compose": st.tuples(st.one_of(SCALED, DEVICES), FAULTS).map(list)}),
)
"""Files for ``--noise`` other than profiles."""

# What a name may be in tables: the writer quotes it.
CELLS = st.text(st.one_of(SIGNS, st.sampled_from("\n\r\t")), max_size=8)


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return rows of ``draws.csv``, each draw once, in any order."""
    row = st.fixed_dictionaries(
        {
            **dict.fromkeys(("method", "weights", "noise", "level_name", "metric"), CELLS),
            "train_seed": st.integers(-(2**63) + 1, 2**63 - 1),
            "level": st.floats(allow_nan=False, allow_infinity=False),
            "draw": st.integers(0, 2**63 - 1),
            "value": st.floats(allow_nan=False),
            "n_examples": st.integers(1, 2**63 - 1),
        }
    )
    return draw(st.lists(row, max_size=6, unique_by=lambda r: tuple(r[c] for c in DRAW_KEY)))


SETTINGS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False, allow_infinity=False),
        CELLS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(CELLS, inner, max_size=3)),
    max_leaves=8,
)
"""What may stand in a manifest."""


@st.composite
def states(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Return weights: names and tensors of any shape, empty ones and scalars among them."""
    names = draw(
        st.lists(
            st.from_regex(r"[a-z]{1,4}(\.[a-z0-9]{1,3}){0,2}", fullmatch=True), min_size=1, max_size=4, unique=True
        )
    )
    found = {}
    for name in names:
        shape = draw(st.lists(st.integers(0, 4), max_size=4))
        dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64]))
        rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        found[name] = torch.as_tensor(100 * rng.normal(size=shape)).to(dtype)
    return found
