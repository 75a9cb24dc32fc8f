"""What is spoiled is refused in our voice, or read: nothing else comes out of a reader."""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from noiserobust.errors import NoiseRobustError

HARDENING = Path(__file__).parents[2] / "experiments" / "hardening"
sys.path.insert(0, str(HARDENING))

from mutations import kinds_of  # noqa: E402
from readers import READERS  # noqa: E402

# Those that render pictures or train take their time; the harness has them.
QUICK = ["merge", *(name for name in READERS if name.startswith("read_"))]
SLOWER = ["compare, interrupted", "profiles show", "evaluate, continued", "evaluate --noise"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((name, 4) for name in QUICK),
        *(pytest.param(name, 150, marks=pytest.mark.thorough) for name in (*QUICK, *SLOWER)),
    ],
)
def test_a_spoiled_file_is_refused_or_read(name, number, tmp_path):
    reader = READERS[name]

    @settings(max_examples=number, deadline=None, derandomize=True)
    @given(st.integers(0, 1 << 32), st.data())
    def check(seed: int, data: st.DataObject) -> None:
        rng = random.Random(seed)  # of its own: how much is drawn depends on times and versions that files hold
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        reader.make(folder)
        for _ in range(data.draw(st.integers(1, 2))):
            path = data.draw(st.sampled_from(reader.files(folder) or [folder / "none"]))
            kinds = {kind: spoil for kind, spoil in kinds_of(path).items() if kind != "pipe in its place"}
            try:
                kinds[data.draw(st.sampled_from(sorted(kinds)))](path, rng)
            except (ValueError, LookupError, OSError, AttributeError, RecursionError, yaml.YAMLError):
                continue  # spoiled already, so that it is no JSON, YAML or text to change
        with suppress(NoiseRobustError):
            reader.read(folder, folder / "out")

    check()
