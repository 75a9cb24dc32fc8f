"""A profile is checked wholly when it is loaded; errors name the file and the key."""

import copy
import re
from importlib import resources

import pytest
import yaml

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.noise.converters import CONVERTERS
from noiserobust.noise.device import DeviceNoise
from noiserobust.noise.physics import MODELS
from noiserobust.noise.profiles import load_profile, profile_names
from noiserobust.noise.registry import build_noise
from noiserobust.noise.scaled import GaussianNoise, LaplaceNoise
from noiserobust.yamlfile import read_yaml

PCM = "pcm-nandakumar-2019"
TEXT = resources.files("noiserobust_hardware_profiles").joinpath(f"{PCM}.yaml").read_text(encoding="utf-8")
CONTENT = yaml.safe_load(TEXT)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the one in C, where there is one, is much faster


@pytest.fixture
def write(tmp_path):
    def write(content, name="mine.yaml"):
        path = tmp_path / name
        path.write_bytes(
            content
            if isinstance(content, bytes)
            else (content if isinstance(content, str) else yaml.dump(content, Dumper=DUMPER)).encode()
        )
        return path

    return write


def changed(*path, to=None, remove=False):
    content = copy.deepcopy(CONTENT)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return content


@pytest.mark.parametrize("name", profile_names())
def test_every_packaged_profile_is_valid_and_called_like_its_file(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.times
    assert all(profile.source.values())
    assert DeviceNoise.from_profile(name).describe()["profile"] == name


def test_the_package_holds_the_profile_of_the_documentation():
    assert PCM in profile_names()
    assert load_profile(PCM).times == (1.0, 3600.0, 86400.0, 2629800.0, 31557600.0)
    assert load_profile(PCM).parameters["t_read_s"] == 250e-9


def test_a_file_is_as_good_as_a_name(write):
    assert load_profile(write(TEXT)) == load_profile(str(write(TEXT, "b.yml"))) == load_profile(PCM)


@pytest.mark.parametrize(("name", "near"), [("pcm-nandakumar-2018", PCM), ("PCM-Nandakumar", PCM)])
def test_an_unknown_profile_names_the_nearest(name, near):
    with pytest.raises(InvalidValueError, match=f"Expected `profile` to be one of .* did you mean '{near}'"):
        load_profile(name)


TOP = list(CONTENT)
PLACES = [(key,) for key in TOP] + [
    (section, key)
    for section in ("source", "parameters", "conductance", "tile", "valid_times", "periphery")
    for key in CONTENT[section]
]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_every_key_is_needed(write, place):
    with pytest.raises(
        InvalidValueError, match=rf"mine\.yaml: Expected .*{place[-1] if place[-1] != 'converter' else ''}"
    ):
        load_profile(write(changed(*place, remove=True)))


@pytest.mark.no_cover  # the same lines as above, hundreds of times
@pytest.mark.parametrize("place", PLACES, ids=".".join)
@pytest.mark.parametrize("value", [None, True, [], {}, {"a": 1}, -1.5, ""], ids=str)
def test_no_key_takes_a_value_of_another_kind(write, place, value):
    if value is None and place[-1] in ("programming_mean_us", "reference_g_max_us"):
        return  # there need not be one
    with pytest.raises(InvalidValueError, match=r"mine\.yaml: Expected "):
        load_profile(write(changed(*place, to=value)))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (("colour",), "keys of `profile` .* but got 'colour'"),
        (("compensations",), "did you mean 'compensation'"),
        (("parameters", "t_read_ns"), "keys of `parameters` .* did you mean 't_read_s'"),
        (("parameters", "t_0"), "did you mean 't_0_s'"),
        (("conductance", "g_max"), "did you mean 'g_max_us'"),
        (("conductance", "g_max_ms"), "did you mean 'g_max_us'"),
        (("source", "url"), "keys of `source`"),
        (("tile", "cols"), "keys of `tile` to be rows, columns, but got 'cols'"),
        ((3,), "keys of `profile` .* but got 3"),
    ],
    ids=str,
)
def test_an_unknown_key_or_unit_names_the_nearest(write, place, said):
    with pytest.raises(InvalidValueError, match=said):
        load_profile(write(changed(*place, to=1)))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("schema_version",), 2, "Expected `schema_version` to be 1, but got 2"),
        (("schema_version",), "1", "Expected `schema_version` to be 1, but got '1'"),
        (("schema_version",), True, "Expected `schema_version` to be 1, but got True"),
        (("backend",), "aihwkitt", "did you mean 'aihwkit'"),
        (("model",), "power_law", "Expected `model` to be one of .* did you mean 'power_law_drift'"),
        (("conductance", "converter"), "single", "did you mean 'single_pair'"),
        (("conductance", "g_max_us"), 0, "Expected `conductance.g_max_us` to be a finite number > 0.*, but got 0"),
        (("conductance", "g_min_us"), -1, "Expected `conductance.g_min_us` to be a finite number >= 0"),
        (("conductance", "g_min_us"), 25.0, "Expected `g_min_us` to be below g_max_us = 25"),
        (("parameters", "t_0_s"), 0, "Expected `parameters.t_0_s` to be a finite number > 0"),
        (("parameters", "t_read_s"), float("inf"), "Expected `parameters.t_read_s` .* but got inf"),
        (("parameters", "t_read_s"), float("nan"), "Expected `parameters.t_read_s` .* but got nan"),
        (("parameters", "drift_scale"), -0.1, "Expected `parameters.drift_scale` to be a finite number >= 0"),
        (("granularity",), "layer", "Expected `granularity` to be one of 'column', 'filter', 'tensor', 'tile'"),
        (("clip_percentile",), 101, "Expected `clip_percentile` to be a finite number > 50 and <= 100, but got 101"),
        (("valid_times", "to"), "1ms", "Expected `t` to be a time such as"),
        (("valid_times", "from"), "20y", "Expected `valid_times` to be from one time to a later one"),
        (("times",), ["1s", "11y"], "Expected `t` to be between 1 s and 10 y, .*, but got 11 y"),
        (("parameters", "read_noise"), {"power": [1, -1]}, "Expected `parameters.read_noise` to have a `max`"),
        (("parameters", "read_noise"), {"polynomial": []}, "Expected `parameters.read_noise.polynomial` to be a list"),
        (("parameters", "read_noise"), {"polinomial": [1]}, "did you mean 'polynomial'"),
        (("parameters", "read_noise"), {"log": [1]}, "Expected `parameters.read_noise.log` to be two numbers"),
        (("parameters", "read_noise"), {"log": [1, 2], "power": [1, 2]}, "to have one formula, but got log, power"),
        (("parameters", "read_noise"), {"min": 0}, "to have one formula, but got none"),
        (("parameters", "read_noise"), [{"log": [1, 2]}, {"log": [1, 2]}], "the first with a `below`"),
        (("parameters", "read_noise"), {"polynomial": [0.1, -0.2]}, "`read_noise` to be >= 0 .* from 0 to 25 µS.*-0.1"),
        (("parameters", "read_noise"), {"table_us": [[0, 1], [20, 1]]}, "to cover 0 to 25 µS.*, but got 0 to 20"),
        (("parameters", "read_noise"), {"table_us": [[0, 1], [0, 1]]}, "at least two conductances, ascending"),
        (("parameters", "read_noise"), {"table_us": [0, 1]}, "a list of pairs"),
        (("compensation",), "glob", "did you mean 'global'"),
        (("tile", "rows"), 0, "Expected `tile.rows` to be an integer >= 1, but got 0"),
        (("tile", "columns"), 1.5, "Expected `tile.columns` to be an integer >= 1, but got 1.5"),
        (("times",), ["1s", "1x"], "Expected `t` to be a time such as .*, but got '1x'"),
        (("times",), "1d", "Expected `times` to be a list of times such as"),
        (("times",), [0], "Expected `t` to be a finite number > 0.*, but got 0"),
        (("description",), "  ", "Expected `description` to be a text"),
        (("source", "doi"), 10.1, "Expected `source.doi` to be a text, but got 10.1"),
    ],
    ids=str,
)
def test_values_out_of_range_name_file_and_key(write, place, value, said):
    path = write(changed(*place, to=value))
    with pytest.raises(InvalidValueError, match=f"^{re.escape(str(path))}: .*{said}"):
        load_profile(path)


def test_a_number_that_yaml_takes_for_text_is_explained(write):
    path = write(TEXT.replace("250.0e-9", "250e-9"))
    with pytest.raises(InvalidValueError, match=r"parameters\.t_read_s.*but got '250e-9'; YAML .* write 250\.0e-9$"):
        load_profile(path)


@pytest.mark.parametrize("content", ["", "[]", "just text", "3", "null", "- a\n- b"])
def test_a_file_that_is_no_mapping_is_refused(write, content):
    with pytest.raises(InvalidValueError, match=r"mine\.yaml: Expected `profile` to be a mapping, but got"):
        load_profile(write(content))


@pytest.mark.parametrize("tag", ["python/object/apply:os.system", "python/object/new:os.system"])
def test_yaml_that_builds_objects_is_refused_and_not_run(write, tmp_path, tag):
    target = tmp_path / "pwned"
    with pytest.raises(
        InvalidValueError, match="to be YAML of plain data in UTF-8, but got: could not determine a constructor"
    ):
        load_profile(write(f"!!{tag} ['touch {target}']"))
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"name: \xff\xfe",
        "name: [1",
        "a: b: c",
        "\tname: x",
        "name: \x00",
        "t: 2021-13-45",
        "n: !!int abc",
        "n: !!bool maybe",
        "n: !!timestamp later",
        "n: " + "1" * 5000,
        "? {a: 1}\n: 2",
        "[" * 5000,
    ],
    ids=lambda c: str(c)[:20],
)
def test_a_file_that_is_no_yaml_of_plain_data_is_refused(write, content):
    with pytest.raises(InvalidValueError, match=r"mine\.yaml to be YAML of plain data in UTF-8, but got: "):
        read_yaml(write(content))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"Expected a file .*none\.yaml, but there is none"):
        load_profile(tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InvalidValueError, match=r"folder\.yaml to be a file, but it is a folder"):
        load_profile(tmp_path / "folder.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, 0.5) for key in MODELS["power_law_drift"][1]),
        *((key, 0.5) for key in CONVERTERS["single_pair"][1]),
        ("granularity", "filter"),
        ("clip_percentile", 99.0),
        ("output_noise", 0.5),
        ("adc_bits", 6),
        ("compensation", "none"),
    ],
)
def test_every_setting_can_be_overridden_and_the_profile_stays(key, value):
    profile = load_profile(PCM)
    other = profile.with_overrides(**{key: value})
    settings = other.settings()
    flat = {**settings, **settings["parameters"], **settings["conductance"], **settings["periphery"]}
    assert flat[key] == value
    assert profile == load_profile(PCM) != other
    assert other.overridden() == {key: value}
    assert other.with_overrides(**{key: profile._flat()[key]}) == profile


def test_a_tile_can_be_overridden_in_both_forms():
    profile = load_profile(PCM)
    assert profile.with_overrides(tile=(8, 4)).tile == (8, 4)
    assert profile.with_overrides(tile={"rows": 8, "columns": 4}).tile == (8, 4)


# -------------------------------------------------------------------------------------------- noises by name, as typed


def test_noises_are_built_by_name_and_level():
    assert build_noise("gaussian") == GaussianNoise(0.05)
    assert build_noise("laplace", "0.02", reference="l2") == LaplaceNoise(0.02, reference="l2")
    assert build_noise(PCM, "1h") == DeviceNoise.from_profile(PCM, "1h")


def test_noises_are_built_from_files(write):
    settings = "noise: gaussian\nreference: l2\ntile: [8, 4]\n"
    assert build_noise(str(write(settings)), 0.1) == GaussianNoise(0.1, reference="l2", tile=(8, 4))
    assert build_noise(str(write(TEXT))) == build_noise(PCM) == DeviceNoise.from_profile(PCM, "1d")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("noise: gausian", "did you mean 'gaussian'"),
        ("noise: gaussian\nreferense: l2", "did you mean 'reference'"),
        ("noise: 3", "Expected .* to hold a device profile or a mapping with a `noise`"),
        ("[]", "Expected .* to hold a device profile or a mapping with a `noise`"),
    ],
)
def test_files_of_settings_are_checked(write, content, said):
    with pytest.raises(InvalidValueError, match=said):
        build_noise(str(write(content)))


def test_an_unknown_noise_names_the_nearest():
    with pytest.raises(InvalidValueError, match=r"Expected `noise` to be one of .*; did you mean 'gaussian'"):
        build_noise("gausian")
