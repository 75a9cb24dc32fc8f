"""From synthetic measurements of known devices back to their numbers, with intervals that hold them."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.models.weights import write_weights
from noiserobust.noise.measured import expected, fit_device
from noiserobust.noise.measurements import read_measurements
from noiserobust.noise.profiles import load_profile

TIMES = (20.0, 3600.0, 86400.0)
NAMES = ("target_us", "measured_us", "time_s")


def mean(g):
    return 1.02 * g - 0.1 + 0.001 * g**2


def std(g):
    return 0.26348 + 1.965 * g / 25 - 1.1731 * (g / 25) ** 2


def table(seed=0, n=800, times=TIMES, nu=(0.06, 0.012), grid=True):
    random = np.random.default_rng(seed)
    g = random.choice(np.linspace(1, 25, 13), n) if grid else random.uniform(1, 25, n)
    programmed = mean(g) + std(g) * random.normal(size=n)
    exponent = nu[0] + nu[1] * random.normal(size=n)
    parts = [
        {"target_us": g, "measured_us": programmed * ((t + 20) / 20) ** -exponent, "time_s": t, "device": np.arange(n)}
        for t in times
    ]
    return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


def fit(tmp_path, frame, **settings):
    path = tmp_path / "m.csv"
    frame.to_csv(path, index=False)
    return fit_device(read_measurements(path), "mine", **{"t_0": 20.0, **settings})


def truth(name):
    if name == "drift exponent mean":
        return 0.06
    if name == "drift exponent std":
        return 0.012
    kind, _, g, _ = name.split()
    return {"mean": mean, "std": std}[kind](float(g))


@pytest.mark.parametrize("device", [True, False])
@pytest.mark.slow
def test_known_parameters_are_recovered_and_intervals_hold_them(tmp_path, device):
    inside, total = 0, 0
    for seed in range(12):
        frame = table(seed, grid=seed % 2 == 0)
        if not device:  # one reading of each device: they need not be told apart
            frame = frame[frame.index // 800 == frame.device % 3].drop(columns="device")
        found = fit(tmp_path, frame)
        for name, estimate in found.estimates.items():
            assert estimate.low < estimate.value < estimate.high
            assert estimate.value == pytest.approx(truth(name), rel=0.25, abs=0.06)
            inside += estimate.low <= truth(name) <= estimate.high
            total += 1
    assert total == 12 * 8
    assert inside >= 83  # 95 % of 96 is 91; so few by chance once in a thousand times


def test_intervals_that_ignore_devices_would_be_too_narrow(tmp_path):
    frame = table(0)
    apart, together = fit(tmp_path, frame), fit(tmp_path, frame.drop(columns="device"))
    widths = [(f.estimates["mean at 13 uS"].high - f.estimates["mean at 13 uS"].low) for f in (apart, together)]
    assert widths[0] > 1.1 * widths[1]


def test_the_profile_is_the_device(tmp_path):
    found = fit(tmp_path, table(1, n=4000))
    noise = nr.DeviceNoise(found.profile, "1d").with_settings(compensation="none")
    # A weight at the largest conductance, of which the other device of the pair stays at the smallest.
    weight = torch.ones(5000, 1)
    read = noise.perturb(weight, nr.Stream(0)) * 24
    factor = math.log((86400 + 20) / 20)
    first = {g: mean(g) * math.exp(-0.06 * factor + (0.012 * factor) ** 2 / 2) for g in (25.0, 1.0)}
    assert read.mean().item() == pytest.approx(first[25.0] - first[1.0], rel=0.02)
    centre, spread = expected(found.profile, np.array([25.0, 1.0]), 86400.0)
    assert centre == pytest.approx([first[25.0], first[1.0]], rel=0.02, abs=0.05)
    assert read.std().item() == pytest.approx(math.hypot(*spread), rel=0.05)


def test_a_model_can_be_trained_and_evaluated_on_it(tmp_path):
    noise = nr.DeviceNoise(fit(tmp_path, table(2)).profile, "1h")
    model, data = torch.nn.Linear(6, 3), (torch.randn(30, 6), torch.arange(30) % 3)
    assert len(nr.evaluate([model], data, noise=noise, levels=["20s", "1d"], draws=2).draws) == 4
    optimizer = nr.PerturbedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), nr.RWP(noise), model)

    def closure():
        loss = torch.nn.functional.cross_entropy(model(data[0]), data[1])
        loss.backward()
        return loss

    assert optimizer.step(closure).isfinite()


def test_what_was_not_measured_is_refused(tmp_path):
    profile = fit(tmp_path, table(0)).profile
    for t in ("1s", "2d"):
        with pytest.raises(InvalidValueError, match="Expected `t` to be between 20 s and 1 d"):
            nr.DeviceNoise(profile, t)
    for settings in ({"g_max_us": 26.0}, {"g_min_us": 0.0}):
        with pytest.raises(InvalidValueError, match=r"Expected conductances within 1 to 25 µS, the measured range"):
            profile.with_overrides(**settings)
    assert profile.with_overrides(g_max_us=20.0).mapping.g_max_us == 20


@pytest.mark.slow
def test_a_device_that_does_not_fall_is_refused(tmp_path):
    with pytest.raises(InvalidValueError, match=r"that fall with time or stay, but got a drift exponent of -0\.0"):
        fit(tmp_path, table(0, nu=(-0.05, 0.01)))
    with pytest.raises(InvalidValueError, match="of which most drift downwards"):
        fit(tmp_path, table(0, nu=(0.02, 0.06)))
    still = fit(tmp_path, table(0, nu=(0.0, 0.005)))
    assert still.profile.parameters["drift_exponent_mean"] == pytest.approx(0, abs=1e-3)


def test_targets_from_zero_are_fitted(tmp_path):
    random = np.random.default_rng(0)
    for _ in range(4):
        g = np.repeat(np.linspace(0, 20, 5), 60)
        frame = pd.DataFrame({"target_us": g, "measured_us": g + 0.5 * random.normal(size=300), "time_s": 20.0})
        profile = fit(tmp_path, frame).profile
        assert profile.mapping.g_min_us == 0
        assert (nr.DeviceNoise(profile, "20s").perturb(torch.randn(5, 5), nr.Stream(0))).isfinite().all()


def test_numbers_in_a_column_of_texts_have_its_unit(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("target_us,measured_us,time_h\n1,2,1\n2,3,2\n1,2,1d\n")
    assert read_measurements(path).time_s.tolist() == [3600, 7200, 86400]


def test_a_profile_of_less_than_a_day_is_used_by_name(tmp_path, capsys):
    path, out = write(table(4, times=(20.0, 600.0)), tmp_path / "m.csv"), tmp_path / "mine.yaml"
    assert main(["profiles", "fit", str(path), "--out", str(out)]) == 0
    torch.manual_seed(0)
    write_weights(tmp_path / "w.safetensors", nr.build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})
    words = ["evaluate", "--model", "digits-mlp", "--weights", tmp_path / "w.safetensors", "--data", "digits"]
    words += ["--noise", out, "--levels", "1min", "--draws", 1, "--out", tmp_path / "out"]
    assert main([str(w) for w in words]) == 0


def test_one_time_gives_no_drift(tmp_path):
    found = fit(tmp_path, table(0, times=(20.0,)))
    assert "drift exponent mean" not in found.estimates
    assert found.profile.parameters["drift_exponent_mean"] == 0
    assert found.profile.valid_times == (20.0, 20.0)


def test_goodness_tells_a_right_model_from_a_wrong_one(tmp_path):
    right = fit(tmp_path, table(3, n=3000, times=(20.0,)))
    wrong = fit(tmp_path, table(3, n=3000, times=(20.0,)), degree=0)
    assert right.goodness["chi_square"] == pytest.approx(1, abs=0.8)
    assert wrong.goodness["chi_square"] > 10
    assert right.goodness["observations"] == right.goodness["devices"] == 3000
    assert fit(tmp_path, table(3, grid=False)).goodness["chi_square"] is None


@pytest.mark.parametrize(
    ("columns", "factors", "flags"),
    [
        ({"target_us": "target_ns", "measured_us": "measured_ms"}, (1e3, 1e-3, 1), {}),
        (
            {"target_us": "Target", "measured_us": " measured", "time_s": "time_h"},
            (1e-6, 1e-6, 1 / 3600),
            {"unit": "s"},
        ),
        ({"time_s": "time"}, (1, 1, 1 / 60), {"time_unit": "min"}),
        ({"time_s": "time"}, (1, 1, None), {}),
    ],
)
def test_units_come_from_headers_or_flags(tmp_path, columns, factors, flags):
    frame, path = table(0), tmp_path / "m.csv"
    same = read_measurements(write(frame, tmp_path / "us.csv"))
    for name, factor in zip(NAMES, factors, strict=True):
        frame[name] = (
            frame[name].map({20.0: "20 s", 3600.0: "1h", 86400.0: "1d"}) if factor is None else frame[name] * factor
        )
    found = read_measurements(write(frame.rename(columns=columns), path), **flags)
    for name in NAMES:
        np.testing.assert_allclose(getattr(found, name), getattr(same, name), rtol=1e-12)


def write(frame, path):
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "to be a CSV file with a header, but got"),
        ("target_us,measured_us\n1,2\n", "but time is missing from 'target_us, measured_us'"),
        ("target_us,measured_us,time_s\n", "to hold measurements, but it has a header only"),
        ("target_us,measurd_us,time_s\n1,2,3\n", "did you mean 'measured'"),
        ("target_us,target_ns,measured_us,time_s\n1,2,3,4\n", "each once, but got 'target_ns'"),
        ("target,measured_us,time_s\n1,2,3\n", r"unit of target in .* such as target_us, or by `--unit`"),
        ("target_us,measured_us,time\n1,2,3\n", r"unit of time in .* or by `--time-unit`"),
        ("target_mu,measured_us,time_s\n1,2,3\n", "Expected `unit of target` to be one of"),
        ("target_us,measured_us,time_s\n1,2,3\n1,,3\n", r"measured in line 3 of .* finite number, but got nothing"),
        ("target_us,measured_us,time_s\n1,1e200,3\n", r"measured in line 2 of .* finite number, but got '1e200'"),
        ("target_us,measured_us,time_s\n1,2,3\n1,2,3,4\n", "to be a CSV file with a header, but got"),
        ("target_us,measured_us,time\n1,2,1h\n1,2,7\n", r"unit of time in .* or by `--time-unit`"),
        ("target_us,measured_us,time\n1,2,1h\n1,2,\n", "time in line 3 of .* but got nothing"),
        (
            "target_us,measured_us,time_s,device\n1,2,3,a\n1,2,3,\n",
            "device in line 3 of .* to be a name, but got nothing",
        ),
        ("target_us,measured_us,time_s,device\n" + "1,2,3,a\n2,2,3,b\n" * 9, "more than 6 devices, .*, but got 2"),
        ("target_us;measured_us;time_s\n1;2;3\n", "separated by commas|did you mean"),
        ("target_us,measured_us,time_s\n1,2,3\n\n1,nan,3\n", r"measured in line 4 of .* but got 'nan'"),
        ("target_us,measured_us,time_s\n1,abc,3\n", r"measured in line 2 of .* but got 'abc'"),
        ("target_us,measured_us,time_s\n-1,2,3\n", "Expected targets in .* to be >= 0, but got -1"),
        ("target_us,measured_us,time_s\n1,2,0\n", "to be > 0, since programming, but got 0"),
        ("target_us,measured_us,time\n1,2,1 fortnight\n", "Expected time in line 2 of .* to be a time such as"),
        ("target_us,measured_us,time_s\n1,2,3\n2,2,3\n", "at least 10 measurements of 2 targets, but got 2 of 2"),
        ("target_us,measured_us,time_s\n" + "1,2,3\n" * 20, "at least 10 measurements of 2 targets, but got 20 of 1"),
    ],
)
def test_files_are_checked(tmp_path, capsys, content, said):
    path = tmp_path / "m.csv"
    path.write_text(content)
    with pytest.raises(InvalidValueError, match=said):
        fit_device(read_measurements(path), "mine")
    assert main(["profiles", "fit", str(path), "--out", str(tmp_path / "out/mine.yaml")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("noiserobust: error: Expected ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_units_do_not_matter(tmp_path):
    found = fit(tmp_path, table(1))
    tiny = table(1).assign(target_us=lambda t: t.target_us * 1e-6, measured_us=lambda t: t.measured_us * 1e-6)
    again = fit(tmp_path, tiny)
    for one, other in zip(found.estimates.items(), again.estimates.items(), strict=True):
        factor = 1e-6 if one[0].endswith("uS") else 1.0
        got, wanted = ([e.value, e.low, e.high] for e in (other[1], one[1]))
        assert np.allclose(got, np.multiply(wanted, factor), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda measured, target: 0 * measured, "to grow with their targets, but got a correlation of 0"),
        (lambda measured, target: -measured, "to grow with their targets, but got a correlation of -0.9"),
        (lambda measured, target: target, "Expected devices that differ, but got a std at"),
    ],
)
def test_measurements_of_no_device_are_refused(tmp_path, change, said):
    frame = table(times=TIMES[:1])
    with pytest.raises(InvalidValueError, match=said):
        fit(tmp_path, frame.assign(measured_us=change(frame.measured_us, frame.target_us)))


def test_a_device_may_be_called_na(tmp_path):
    path = tmp_path / "m.csv"
    table(n=50).assign(device=lambda t: t.device.map(lambda d: "NA" if d == 7 else f"d{d}")).to_csv(path, index=False)
    assert (read_measurements(path).device == "NA").sum() == 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"Expected a file .*none\.csv"):
        read_measurements(tmp_path / "none.csv")


@pytest.mark.thorough
def test_the_command_writes_profile_and_picture(tmp_path, capsys):
    path, out = write(table(4), tmp_path / "m.csv"), tmp_path / "out" / "mine.yaml"
    assert main(["profiles", "fit", str(path), "--out", str(out), "--t-0", "20s"]) == 0
    printed = capsys.readouterr().out
    assert "drift exponent mean" in printed
    assert str(out) in printed
    profile = load_profile(out)
    assert profile == fit_device(read_measurements(path), "mine", t_0=20.0).profile
    assert profile.measured["range_us"] == [1.0, 25.0]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert main(["profiles", "show", str(out)]) == 0
    assert "backend: measured" in capsys.readouterr().out
    assert main(["profiles", "fit", str(path), "--out", "pcm-hermes-2.yaml"]) == 2
    assert "a new name, but 'pcm-hermes-2' is a profile's already" in capsys.readouterr().err
    before = out.read_bytes()
    out.with_suffix(".png").unlink()
    out.with_suffix(".png").mkdir()
    assert main(["profiles", "fit", str(path), "--out", str(out), "--degree", "1"]) == 2
    assert "Expected to be able to write" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main(["profiles", "fit", str(path)]) == 2
    assert "Expected `out` to end in .yaml, but got nothing" in capsys.readouterr().err
    assert main(["profiles", "fit"]) == 2
    assert "followed by a file of measurements" in capsys.readouterr().err
