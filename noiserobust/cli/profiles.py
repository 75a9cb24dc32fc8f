"""``noiserobust profiles``: what devices are there, and what they do to weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.help import examples, make_parser
from noiserobust.cli.parsing import model_args
from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.log import say

if TYPE_CHECKING:
    from noiserobust.noise.device import DeviceNoise
    from noiserobust.noise.profiles import Profile

_NAME: dict[str, Any] = {"type": str, "nargs": "?", "help": "the profile: a name or a .yaml file"}
_TIMES: dict[str, Any] = {
    "type": str,
    "nargs": "+",
    "default": [],
    "help": "times since programming, > 0, such as 1s 1h 1d 1y; default: the profile's",
}
_SEED: dict[str, Any] = {"type": int, "default": 0, "help": "root seed of the chips, >= 0"}

_ACTIONS: dict[str, tuple[str, dict[str, dict[str, Any]], tuple[str, ...]]] = {
    "list": ("the profiles that there are, and what they are of", {}, ("noiserobust profiles list",)),
    "show": (
        "a profile as a file, and the errors of its weights over time and by size of a weight",
        {"name": _NAME, "--t": _TIMES, "--seed": _SEED},
        ("noiserobust profiles show pcm-hermes-2 --t 1s 1d",),
    ),
    "plot": (
        "the same as a picture",
        {"name": _NAME, "--t": _TIMES, "--seed": _SEED, "--out": {"type": Path, "help": "a .png or .svg file"}},
        ("noiserobust profiles plot pcm-hermes-2 --out pcm.png",),
    ),
    "equivalent": (
        "what a device does to a network, as the Gaussian noise with the same error for each layer",
        {
            "name": _NAME,
            "--t": _TIMES,
            "--model": {"type": str, "help": "name, package.module:callable or file.py:callable"},
            "--model-args": {
                "type": str,
                "nargs": "+",
                "default": [],
                "help": "its arguments, such as num_classes=100",
            },
            "--weights": {"type": Path, "help": "a .safetensors, .pt, .pth or .th file"},
            "--chips": {"type": int, "default": 4, "help": "how many are measured, >= 1"},
            "--seed": _SEED,
            "--out": {"type": Path, "help": "a .csv file for the table; default: the terminal only"},
        },
        (
            (
                "noiserobust profiles equivalent pcm-hermes-2 --t 1d --model digits-mlp \\\n"
                "--weights runs/rwp/seed0/best.safetensors"
            ),
        ),
    ),
    "fit": (
        "a profile of a device of your own, from measurements",
        {
            "name": {
                "type": str,
                "nargs": "?",
                "help": "a .csv file, a reading a line: columns target_us, measured_us, time_s and perhaps device",
            },
            "--unit": {"type": str, "help": "of conductances whose column does not say it: s, ms, us or ns"},
            "--time-unit": {"type": str, "help": "of times whose column does not say it: s, min, h or d"},
            "--t-0": {
                "type": str,
                "help": "time of the first read after programming, such as 20s; default: the first measured",
            },
            "--degree": {"type": int, "default": 2, "help": "of the polynomials of the target, >= 0"},
            "--out": {"type": Path, "help": "a .yaml file for the profile; a picture gets the same name"},
        },
        ("noiserobust profiles fit measurements.csv --out my-device.yaml",),
    ),
}
"""By name: what it tells, its arguments with what the parser is told of each, examples."""


def add_profiles(parser: ArgumentParser) -> None:
    """Add the actions."""
    parser.epilog = examples("noiserobust profiles list", "noiserobust profiles show --help")
    actions = parser.add_subcommands(dest="action")
    for name, (summary, arguments, commands) in _ACTIONS.items():
        sub = make_parser(f"{summary[0].upper()}{summary[1:]}.", epilog=examples(*commands))
        for argument, told in arguments.items():
            sub.add_argument(argument, **told)
        actions.add_subcommand(name, sub, help=summary)


def profiles(settings: Namespace) -> None:
    """Run it."""
    action, own = settings.action, settings[settings.action]
    if action == "list":
        _list()
        return
    if own.name is None:
        what = "a file of measurements" if action == "fit" else "the name of a profile"
        raise InvalidValueError(f"Expected `profiles {action}` to be followed by {what}, but got none")
    {"show": _show, "plot": _plot, "equivalent": _equivalent, "fit": _fit}[action](own)


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
        say("chi_square is far above 1: the model does not describe these measurements, see the picture")
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
