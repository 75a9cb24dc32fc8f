"""``noiserobust profiles``: what devices are there, and what they do to weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.parsing import model_args
from noiserobust.errors import InvalidValueError, check_choice, check_integer

if TYPE_CHECKING:
    from noiserobust.noise.profiles import Profile

ACTIONS: dict[str, tuple[str, ...]] = {
    "list": (),
    "show": ("name", "t", "seed"),
    "plot": ("name", "t", "seed", "out"),
    "equivalent": ("name", "t", "seed", "out", "model", "model_args", "weights", "chips"),
    "fit": ("name", "out", "unit", "time_unit", "t_0", "degree"),
}
"""What can be done, with the options of each."""

_OPTIONS: dict[str, object] = {
    "name": None,
    "t": [],
    "model": None,
    "model_args": [],
    "weights": None,
    "chips": 4,
    "seed": 0,
    "unit": None,
    "time_unit": None,
    "t_0": None,
    "degree": 2,
    "out": None,
}
"""All options with their defaults."""


def add_profiles(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("action", type=str, help="list, show, plot, equivalent or fit")
    add("name", type=str, nargs="?", help="the profile, a name or a .yaml file; fit: measurements, a .csv file")
    add("--t", type=str, nargs="+", default=[], help="times, such as 1s 1d 1y; default: the profile's")
    add("--model", type=str, help="equivalent: the network, as for evaluate")
    add("--model-args", type=str, nargs="+", default=[], help="its arguments, such as num_classes=100")
    add("--weights", type=Path, help="equivalent: its weights")
    add("--chips", type=int, default=4, help="equivalent: how many are measured")
    add("--seed", type=int, default=0, help="root seed of the chips")
    add("--unit", type=str, help="fit: of conductances whose column does not say it: s, ms, us or ns")
    add("--time-unit", type=str, help="fit: of times whose column does not say it: s, min, h or d")
    add("--t-0", type=str, help="fit: time of the first read after programming; default: the first measured")
    add("--degree", type=int, default=2, help="fit: of the polynomials of the target")
    add("--out", type=Path, help="plot: a .png or .svg file; equivalent: a .csv file; fit: a .yaml file")


def profiles(settings: Namespace) -> None:
    """Run it."""
    action = check_choice("action", settings.action, ACTIONS)
    for option, default in _OPTIONS.items():
        if settings[option] != default and option not in ACTIONS[action]:
            users = ", ".join(name for name, options in ACTIONS.items() if option in options)
            raise InvalidValueError(f"Expected `--{option.replace('_', '-')}` with {users} only, but got {action}")
    if action == "list":
        _list()
    elif settings.name is None:
        what = "a file of measurements" if action == "fit" else "the name of a profile"
        raise InvalidValueError(f"Expected `profiles {action}` to be followed by {what}, but got none")
    elif action == "show":
        _show(settings)
    elif action == "plot":
        _plot(settings)
    elif action == "fit":
        _fit(settings)
    else:
        _equivalent(settings)


def _as_yaml(profile: Profile) -> str:
    import yaml

    content = profile.content()
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def _list() -> None:
    from noiserobust.noise.profiles import load_profile, profile_names

    for name in profile_names():
        profile = load_profile(name)
        print(f"{name:<22}{profile.technology:<9}{profile.description.split('. ')[0].rstrip('.')}")


def _show(settings: Namespace) -> None:
    """Print the profile as a valid file, with what it does to weights as comments."""
    from noiserobust.diagnose.errors import error_table
    from noiserobust.noise.device import DeviceNoise
    from noiserobust.noise.profiles import load_profile

    profile = load_profile(settings.name)
    noise = DeviceNoise(profile, profile.times[0])
    table = error_table(noise, [noise.parse_level(t) for t in settings.t or profile.times], settings.seed)
    print(_as_yaml(profile))
    for line in table.splitlines():
        print(f"# {line}".rstrip())


def _plot(settings: Namespace) -> None:
    from noiserobust.diagnose.plots import plot_profile
    from noiserobust.noise.device import DeviceNoise
    from noiserobust.noise.profiles import load_profile
    from noiserobust.results.files import make_folder, write_atomic

    if settings.out is None or settings.out.suffix not in (".png", ".svg"):
        got = "nothing" if settings.out is None else repr(str(settings.out))
        raise InvalidValueError(f"Expected `out` to end in .png or .svg, but got {got}")
    profile = load_profile(settings.name)
    noise = DeviceNoise(profile, profile.times[0])
    times = [noise.parse_level(t) for t in settings.t or profile.times]
    content = plot_profile(noise, times, settings.out.suffix[1:], seed=settings.seed)
    make_folder(settings.out.parent)
    write_atomic(settings.out, content)
    print(settings.out)


def _fit(settings: Namespace) -> None:
    from noiserobust.diagnose.plots import plot_fit
    from noiserobust.noise.measured import fit_device
    from noiserobust.noise.measurements import read_measurements
    from noiserobust.results.files import make_folder, write_atomic

    out = settings.out
    if out is None or out.suffix != ".yaml":
        raise InvalidValueError(
            f"Expected `out` to end in .yaml, but got {'nothing' if out is None else repr(str(out))}"
        )
    measurements = read_measurements(Path(settings.name), settings.unit, settings.time_unit)
    fit = fit_device(measurements, out.stem, t_0=settings.t_0, degree=settings.degree)
    text = _as_yaml(fit.profile)
    picture = plot_fit(fit, measurements, "png")
    make_folder(out.parent)
    write_atomic(out, text)
    write_atomic(out.with_suffix(".png"), picture)
    width = max(map(len, fit.estimates))
    for name, e in fit.estimates.items():
        print(f"{name:<{width}}  {e.value:9.5g}  (95 %: {e.low:.5g} to {e.high:.5g})")
    for name, value in fit.goodness.items():
        print(f"{name:<{width}}  {'        -' if value is None else format(value, '9.5g')}")
    print(f"{out}\n{out.with_suffix('.png')}")


def _equivalent(settings: Namespace) -> None:
    from noiserobust.diagnose.equivalent import as_text, equivalent_noise
    from noiserobust.models.registry import build_model
    from noiserobust.models.weights import fit_weights, read_weights
    from noiserobust.noise.device import DeviceNoise
    from noiserobust.noise.profiles import load_profile
    from noiserobust.results.files import make_folder, write_atomic

    missing = [f"`--{name}`" for name in ("model", "weights") if settings[name] is None]
    if missing:
        raise InvalidValueError(f"Expected {', '.join(missing)} to be given, but got nothing")
    if settings.out is not None and settings.out.suffix != ".csv":
        raise InvalidValueError(f"Expected `out` to end in .csv, but got {str(settings.out)!r}")
    check_integer("chips", settings.chips, minimum=1)
    profile = load_profile(settings.name)
    noise = DeviceNoise(profile, profile.times[0])
    times = [noise.parse_level(t) for t in settings.t or profile.times]
    model = build_model(settings.model, model_args(settings.model_args))
    fit_weights(model, read_weights(settings.weights))
    table = equivalent_noise(model, noise, times, chips=settings.chips, seed=settings.seed)
    if settings.out is not None:
        make_folder(settings.out.parent)
        write_atomic(settings.out, table.to_csv(index=False))
    print(as_text(table))
