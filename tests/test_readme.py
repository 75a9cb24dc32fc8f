"""Every example of the README runs."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml

from noiserobust.cli import main
from noiserobust.cli.parsing import checked_settings
from noiserobust.config import TrainConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), scope)
    assert scope["result"].draws.level.tolist() == [0.0] + [0.05] * 10 + [0.1] * 10


@pytest.mark.no_cover  # what the commands do is tested, and counted, elsewhere
@pytest.mark.slow
def test_commands_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("noiserobust ")]
    assert len(commands) == 24
    random = np.random.default_rng(0)
    rows = [f"{g},{g + random.normal()},{t}" for g in range(1, 25) for t in (20, 3600)]
    (tmp_path / "measurements.csv").write_text("\n".join(["target_us,measured_us,time_s", *rows]))
    grid = yaml.safe_load(blocks("yaml")[1])
    base = grid["base"] | {"epochs": 2, "batch_size": 128}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    few = {name: settings | {"draws": 2} for name, settings in grid["evaluate"].items()}
    small = grid | {"base": base, "grid": grid["grid"][:1], "evaluate": few}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(small))
    fewer = {
        "sweep": ["--seeds", "0", "--executor", "serial"],
        "tune": ["--trials", "1", "--seeds", "0", "--draws", "1", "--executor", "serial"],
        "train": ["--epochs", "1"],
        "evaluate": ["--draws", "2"],
        "figures": ["--points", "3", "--examples", "50", "--only", "1", "3", "7"],
        "sensitivity": ["--draws", "2", "--wanted", "5"],
        "landscape": ["--points", "3"],
        "sharpness": ["--draws", "2"],
        "gradients": ["--batches", "1"],
        "curvature": ["--examples", "50", "--probes", "2"],
    }  # to save time
    for _, verb, *words in commands:
        if "mynet.py:build" in words:  # a file of the reader's own
            continue
        arguments = [p for word in words for p in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        assert main([verb, *arguments, *fewer.get(words[0] if verb == "diagnose" else verb, [])]) == 0, verb
    assert (tmp_path / "figures/figure-7.png").exists()
    assert (tmp_path / "report/report.html").exists()


def test_the_configuration_is_valid(tmp_path, capsys):
    block = blocks("yaml")[0]
    settings = yaml.safe_load(block)
    assert set(settings) <= set(TrainConfig.__dataclass_fields__)
    (tmp_path / "rwp.yaml").write_text(block)
    assert main(["train", "--config", str(tmp_path / "rwp.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "cifar10" in capsys.readouterr().err  # all is well but the missing data


def test_the_default_method_is_what_it_is_said_to_stand_for():
    (block,) = (b for b in blocks("yaml") if "granularity: filter" in b)
    said = checked_settings(TrainConfig, {"model": "m", "data": "d", **yaml.safe_load(block)}).as_dict()
    default = TrainConfig("m", "d").as_dict()
    assert (default["method"].pop("name"), said["method"].pop("name")) == ("robust", "rwp")
    assert (default["method"]["noise"].pop("name"), said["method"]["noise"].pop("name")) == (None, "gaussian")
    assert default == said


def test_the_grid_is_valid(tmp_path):
    (tmp_path / "grid.yaml").write_text(blocks("yaml")[1])
    assert main(["sweep", "--config", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 0


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
