"""``nr.evaluate`` is the function, although a package of that name stands in the same place."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALL = """
import torch
draws = nr.evaluate(torch.nn.Linear(2, 2), (torch.zeros(3, 2), torch.tensor([0, 1, 1])),
                    noise=nr.GaussianNoise(0.1), draws=2).draws
assert len(draws) == 2, draws
"""


FORGET = """
for name in [name for name in sys.modules if name.partition(".")[0] == "noiserobust"]:
    del sys.modules[name]
"""


@pytest.mark.thorough
def test_evaluate_can_be_called_whatever_was_imported_before() -> None:
    """In one process that forgets the package in between, for torch takes seconds to import."""
    cases = {
        "first touch": "import noiserobust as nr",
        "after a module": "import noiserobust.evaluate.forward\nimport noiserobust as nr",
        "after a module, later": "import noiserobust as nr\nfrom noiserobust.evaluate import montecarlo",
        "twice": "import noiserobust as nr\nnr.evaluate\nfrom noiserobust import evaluate\nassert callable(evaluate)",
    }
    parts = [f"print({case!r}, flush=True)\n{FORGET}\n{first}\n{CALL}" for case, first in cases.items()]
    code = "\n".join(["import sys", *parts])
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (0, list(cases)), done.stderr


@pytest.mark.thorough
def test_the_package_imports_lazily_and_lists_its_names() -> None:
    code = (
        "import sys, noiserobust as nr\n"
        "assert 'torch' not in sys.modules\n"
        "assert {'evaluate', 'SAM', 'RWP', 'PerturbedOptimizer'} <= set(dir(nr))\n"
        "assert all(getattr(nr, name) is not None for name in nr.__all__)\n"
        "try:\n    nr.evalute\nexcept AttributeError as error:\n    assert 'evalute' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
