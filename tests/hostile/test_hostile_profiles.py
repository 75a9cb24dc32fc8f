"""Device profiles and measurements of strangers: every number is checked, no name is followed out of the file."""

from __future__ import annotations

import copy
from contextlib import suppress
from importlib import resources
from typing import Any

import pytest
import torch
import yaml

import noiserobust as nr
from noiserobust.errors import InvalidValueError, NoiseRobustError
from noiserobust.noise.device import DeviceNoise
from noiserobust.noise.measurements import read_measurements
from noiserobust.noise.profiles import parse_profile
from noiserobust.noise.registry import build_noise

TEXT = resources.files("noiserobust_hardware_profiles").joinpath("pcm-hermes-2.yaml").read_text(encoding="utf-8")
CONTENT = yaml.safe_load(TEXT)
WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    1e300,
    -1e300,
    float("nan"),
    float("inf"),
    10**400,
    "",
    "x",
    "1e999",
    [],
    {},
    [[]],
    {"a": 1},
]
WRONG += [[1.0] * 10_000, {"polynomial": []}, {"polynomial": ["x"]}, {"table_us": [[1, 1], [0, 0]]}]


def places(value: Any) -> list[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def test_whatever_stands_at_whatever_place_is_refused_or_usable():
    accepted = 0
    for number in range(len(places(CONTENT))):
        for wrong in WRONG[number % 3 :: 3]:  # each with some, all with each
            content = copy.deepcopy(CONTENT)
            inside, key = places(content)[number]
            inside[key] = copy.deepcopy(wrong)
            with suppress(InvalidValueError):
                noise = DeviceNoise.of(parse_profile(content, "mine.yaml"))
                accepted += 1
            if accepted % 10 == 1:
                assert torch.isfinite(noise.perturb(torch.ones(2, 3), nr.Stream(0, "w"))).all()
    assert 20 < accepted < 0.1 * len(WRONG) * len(places(CONTENT))


@pytest.mark.parametrize(
    "name", ["os:system", "file.py:run", "../../etc/passwd", "/etc/passwd", "http://127.0.0.1/x.yaml"]
)
def test_a_profile_names_neither_code_nor_files(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.py").write_text("open('owned', 'w')\n")
    for key in ("backend", "model", "compensation", "granularity"):
        with pytest.raises(InvalidValueError, match=f"Expected `{key}` to be one of"):
            parse_profile({**copy.deepcopy(CONTENT), key: name}, "mine.yaml")
    for content in ({"noise": name}, {"noise": "gaussian", "reference": name}, {"compose": [{"noise": name}]}):
        (tmp_path / "noise.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(NoiseRobustError):
            build_noise(str(tmp_path / "noise.yaml"))
    assert not (tmp_path / "owned").exists()


def test_a_noise_file_that_names_itself_ends(tmp_path):
    (tmp_path / "a.yaml").write_text("noise: a.yaml\n")
    with pytest.raises(InvalidValueError, match=r"a\.yaml"):
        build_noise(str(tmp_path / "a.yaml"))


HEAD = "target_us,measured_us,time_s\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe" + HEAD.encode("utf-16-le"), "to be a CSV file with a header"),
        (HEAD.encode() + b"1,2,\x00\n", "the code 0"),
        ((HEAD + "1,2\n").encode(), "2 cells in line 2"),
        ((HEAD + '1,"2,3\n4,5,6\n').encode(), "unexpected end of data"),
        ((HEAD + f"{'9' * 400},2,3\n").encode(), "target in line 2 .* finite number"),
        ((HEAD + f"{'9' * 5000},2,3\n").encode(), "target in line 2 .* finite number"),
        ((HEAD + "1,nan,3\n").encode(), "measured in line 2 .* finite number"),
        ((HEAD + "1,2,1e999s\n").encode(), "time"),
        ((HEAD + "1,2," + "9" * 200_000 + "\n").encode(), "field larger than field limit"),
        (b"\x1b[2J,measured_us,time_s\n1,2,3\n", "each once, but got '.x1b.2J'"),
    ],
    ids=range(10),
)
def test_measurements_are_numbers(tmp_path, content, said):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(InvalidValueError, match=said):
        read_measurements(path)


def test_measurements_as_spreadsheets_write_them_are_read(tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(b"\xef\xbb\xbfTarget_uS, measured_uS, time_s\r\n1, 2, 20\r\n,,\r\n\r\n3, 4, 1h\r\n")
    found = read_measurements(path)
    assert (found.target_us.tolist(), found.time_s.tolist()) == ([1, 3], [20, 3600])
