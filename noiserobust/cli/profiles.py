"""``noiserobust profiles``: what devices are there, and what they do to weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.parsing import model_args
from noiserobust.errors import InvalidValueError, check_choice, check_integer

if TYPE_CHECKING:
    from noiserobust.noise.device import DeviceNoise
    from noiserobust.noise.profiles import Profile

ACTIONS = ("list", "show", "plot", "equivalent", "fit")

_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "t": (
        ("show", "plot", "equivalent"),
        {"type": str, "nargs": "+", "default": [], "help": "times, such as 1s 1d 1y; default: the profile's"},
    ),
    "model": (("equivalent",), {"type": str, "help": "the network, as for evaluate"}),
    "model_args": (
        ("equivalent",),
        {"type": str, "nargs": "+", "default": [], "help": "its arguments, such as num_classes=100"},
    ),
    "weights": (("equivalent",), {"type": Path, "help": "its weights"}),
    "chips": (("equivalent",), {"type": int, "default": 4, "help": "how many are measured"}),
    "seed": (("show", "plot", "equivalent"), {"type": int, "default": 0, "help": "root seed of the chips"}),
    "unit": (("fit",), {"type": str, "help": "of conductances whose column does not say it: s, ms, us or ns"}),
    "time_unit": (("fit",), {"type": str, "help": "of times whose column does not say it: s, min, h or d"}),
    "t_0": (("fit",), {"type": str, "help": "time of the first read after programming; default: the first measured"}),
    "degree": (("fit",), {"type": int, "default": 2, "help": "of the polynomials of the target"}),
    "out": (
        ("plot", "equivalent", "fit"),
        {"type": Path, "help": "a .png or .svg file; of equivalent a .csv, of fit a .yaml file"},
    ),
}
"""Options, each with the actions that take it and what the parser is told."""


def add_profiles(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("action", type=str, help="list, show, plot, equivalent or fit")
    parser.add_argument(
        "name", type=str, nargs="?", help="the profile, a name or a .yaml file; of fit measurements, a .csv file"
    )
    for option, (users, told) in _OPTIONS.items():
        text = f"{', '.join(users)}: {told['help']}"
        parser.add_argument(f"--{option.replace('_', '-')}", **{**told, "help": text})


def profiles(settings: Namespace) -> None:
    """Run it."""
    action = check_choice("action", settings.action, ACTIONS)
    for option, (users, told) in _OPTIONS.items():
        if settings[option] != told.get("default") and action not in users:
            raise InvalidValueError(
                f"Expected `--{option.replace('_', '-')}` with {', '.join(users)} only, but got {action}"
            )
    if action == "list" and settings.name is not None:
        raise InvalidValueError(f"Expected `profiles list` to stand alone, but got {settings.name!r}")
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


def _device(settings: Namespace) -> tuple[DeviceNoise, list[float]]:
    """Return the device that is named, and the times asked for."""
    from noiserobust.noise.device import DeviceNoise
    from noiserobust.noise.profiles import load_profile

    noise = DeviceNoise.of(load_profile(settings.name))
    return noise, list(dict.fromkeys(noise.parse_level(t) for t in settings.t or noise.profile.times))


def _list() -> None:
    from noiserobust.noise.profiles import load_profile, profile_names

    for name in profile_names():
        profile = load_profile(name)
        print(f"{name:<22}{profile.technology:<9}{profile.description.split('. ')[0].rstrip('.')}")


def _show(settings: Namespace) -> None:
    """Print the profile as a valid file, with what it does to weights as comments."""
    from noiserobust.diagnose.errors import error_table

    noise, times = _device(settings)
    table = error_table(noise, times, settings.seed)
    print(_as_yaml(noise.profile))
    for line in table.splitlines():
        print(f"# {line}".rstrip())


def _plot(settings: Namespace) -> None:
    from noiserobust.diagnose.plots import plot_profile
    from noiserobust.results.files import make_folder, write_atomic

    if settings.out is None or settings.out.suffix not in (".png", ".svg"):
        got = "nothing" if settings.out is None else repr(str(settings.out))
        raise InvalidValueError(f"Expected `out` to end in .png or .svg, but got {got}")
    noise, times = _device(settings)
    content = plot_profile(noise, times, settings.out.suffix[1:], seed=settings.seed)
    make_folder(settings.out.parent)
    write_atomic(settings.out, content)
    print(settings.out)


def _fit(settings: Namespace) -> None:
    from noiserobust.diagnose.plots import plot_fit
    from noiserobust.noise.measured import fit_device
    from noiserobust.noise.measurements import read_measurements
    from noiserobust.noise.profiles import profile_names
    from noiserobust.results.files import make_folder, write_atomic

    out = settings.out
    if out is None or out.suffix != ".yaml":
        raise InvalidValueError(
            f"Expected `out` to end in .yaml, but got {'nothing' if out is None else repr(str(out))}"
        )
    if out.stem in profile_names():
        raise InvalidValueError(
            f"Expected `out` to give the device a new name, but {out.stem!r} is a profile's already"
        )
    measurements = read_measurements(Path(settings.name), settings.unit, settings.time_unit)
    fit = fit_device(measurements, out.stem, t_0=settings.t_0, degree=settings.degree)
    text = _as_yaml(fit.profile)
    picture = plot_fit(fit, measurements, "png")
    make_folder(out.parent)
    write_atomic(out.with_suffix(".png"), picture)  # a fit without its profile does no harm
    write_atomic(out, text)
    width = max(map(len, fit.estimates))
    for name, e in fit.estimates.items():
        print(f"{name:<{width}}  {e.value:9.5g}  (95 %: {e.low:.5g} to {e.high:.5g})")
    for name, value in fit.goodness.items():
        print(f"{name:<{width}}  {'        -' if value is None else format(value, '9.5g')}")
    if (fit.goodness["chi_square"] or 0) > 2:
        print("chi_square is far above 1: the model does not describe these measurements, see the picture")
    print(f"{out}\n{out.with_suffix('.png')}")


def _equivalent(settings: Namespace) -> None:
    from noiserobust.diagnose.equivalent import as_text, equivalent_noise
    from noiserobust.models.registry import build_model
    from noiserobust.models.weights import fit_weights, read_weights
    from noiserobust.results.files import make_folder, write_atomic

    missing = [f"`--{name}`" for name in ("model", "weights") if settings[name] is None]
    if missing:
        raise InvalidValueError(f"Expected {', '.join(missing)} to be given, but got nothing")
    if settings.out is not None and settings.out.suffix != ".csv":
        raise InvalidValueError(f"Expected `out` to end in .csv, but got {str(settings.out)!r}")
    check_integer("chips", settings.chips, minimum=1)
    noise, times = _device(settings)
    model = build_model(settings.model, model_args(settings.model_args))
    fit_weights(model, read_weights(settings.weights))
    table = equivalent_noise(model, noise, times, chips=settings.chips, seed=settings.seed)
    if settings.out is not None:
        make_folder(settings.out.parent)
        write_atomic(settings.out, table.to_csv(index=False))
    print(as_text(table))
