"""The arrows of the design: a module imports only to its left, and what needs no torch imports none."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "noiserobust"

GROUND = {"errors", "config", "times", "callables", "textfile", "yamlfile", "untrusted", "pickles", "memory"}
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "times": {"errors"},
    "callables": {"errors"},
    "textfile": {"errors", "untrusted"},
    "yamlfile": {"errors", "textfile"},
    "untrusted": {"errors"},
    "pickles": set(),
    "memory": {"errors"},
    "endings": set(),
    "threads": set(),
    "printing": set(),
    "log": {"errors", "printing"},
    "progress": {"log"},
    "doctor": {"errors", "threads", "data"},
    "rng": {"errors", "threads"},
    "stats": {"errors"},
    "results": {"errors", "stats", "textfile"},
    "executors": {"errors", "endings", "threads", "results"},
    "noise": GROUND | {"rng", "threads", "results"},
    "perturb": GROUND | {"rng", "noise"},
    "models": GROUND | {"rng", "noise", "perturb", "results"},
    "data": GROUND | {"log", "rng", "noise", "perturb", "results"},
    "train": GROUND | {"progress", "endings", "rng", "noise", "perturb", "results", "models", "data"},
    "evaluate": GROUND | {"rng", "noise", "perturb", "stats", "results", "models", "data", "executors", "progress"},
    "integrations": GROUND | {"rng", "noise", "perturb", "train"},
    "report": {"errors", "times", "stats", "results"},
    "demo": GROUND | {"log", "train", "evaluate", "report"},
    "diagnose": GROUND
    | {"rng", "noise", "perturb", "stats", "results", "models", "data", "train", "evaluate", "executors", "progress"}
    | {"log", "report"},
    "sweep": GROUND
    | {"noise", "results", "models", "data", "train", "evaluate", "diagnose", "executors", "progress", "report"},
    "tune": GROUND
    | {"rng", "noise", "results", "models", "train", "evaluate", "diagnose", "executors", "progress", "sweep"},
    "cli": GROUND
    | {"log", "printing", "endings", "doctor", "noise", "progress", "models", "results", "executors", "train"}
    | {"evaluate", "diagnose", "report", "demo", "sweep", "tune"},
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {room(name) for name in names if name.split(".")[0] == "noiserobust"}
    return found - {""}


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__main__.py" and p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in MAY_IMPORT, f"{own} has no place among the layers"
    assert imported_rooms(path) - {own} <= MAY_IMPORT[own]


def test_the_layers_have_no_cycle():
    placed = set()
    while len(placed) < len(MAY_IMPORT):
        free = {name for name, needs in MAY_IMPORT.items() if name not in placed and needs <= placed}
        assert free
        placed |= free


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_module_is_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_nothing_imports_torchvision():
    assert not [p for p in sources() if re.search(r"^\s*(import|from) torchvision", p.read_text("utf-8"), re.M)]


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(m for m in sys.modules if '.' not in m))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["noiserobust.report.html", "noiserobust.stats.intervals", "noiserobust.results.store"]
)
def test_numbers_and_reports_need_no_torch(module):
    assert "torch" not in loaded_after(f"import {module}")


def test_help_loads_nothing_heavy():
    code = "import noiserobust\nfrom noiserobust.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_after(code) & {"torch", "numpy", "pandas", "scipy", "matplotlib", "sklearn", "aihwkit"}


def test_noise_alone_does_not_load_aihwkit():
    assert "aihwkit" not in loaded_after("import noiserobust as nr; nr.DeviceNoise.from_profile('pcm-nandakumar-2019')")


def test_every_package_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    folders = {p.parent for p in PACKAGE.rglob("*.py")}
    found = {"noiserobust" + "".join(f".{part}" for part in f.relative_to(PACKAGE).parts) for f in folders}
    assert listed == found | {"noiserobust_hardware_profiles"}


def test_public_names_exist():
    import noiserobust as nr

    for name in nr.__all__:
        assert getattr(nr, name) is not None
    assert set(nr.__all__) <= set(dir(nr))
    with pytest.raises(AttributeError, match="no attribute 'Gaussian'"):
        _ = nr.Gaussian
