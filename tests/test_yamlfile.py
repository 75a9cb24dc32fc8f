"""YAML files of settings: what PyYAML would take silently is refused."""

from pathlib import Path

import pytest
import yaml

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.yamlfile import read_settings, read_yaml


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "'a' twice"),
        ("b: {c: 1, c: 2}\n", "'c' twice"),
        ("a: &x {b: *x}\n", "&x inside itself"),
        ("a: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
        ("a: [1\n", "YAML of plain data"),
        ("a: 2021-13-45\n", "month must be in 1..12"),
    ],
)
def test_what_is_not_plain_data_is_refused(write, text, said):
    with pytest.raises(InvalidValueError, match=r"settings\.yaml to be YAML of plain data in UTF-8, but got") as caught:
        read_yaml(write(text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [("", "nothing"), ("[1]", "a list"), ("word", "text"), ("1: 2", "keys")])
def test_settings_are_names_and_values(write, text, said):
    with pytest.raises(InvalidValueError, match=said):
        read_settings(write(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.yaml"):
        read_settings(tmp_path / "nowhere.yaml")


def test_plain_data_are_those_of_pyyaml(write):
    text = "a: &x {b: [1, 2.5, null, yes]}\nc: *x\nd:\n  <<: *x\n  b: own\n"
    assert read_settings(write(text)) == yaml.safe_load(text)
