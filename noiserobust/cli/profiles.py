"""``noiserobust profiles``: what devices are there, and what they do to weights."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.parsing import model_args
from noiserobust.errors import InvalidValueError, check_choice, check_integer

ACTIONS = ("list", "show", "plot", "equivalent")


def add_profiles(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("action", type=str, help="list, show, plot or equivalent")
    parser.add_argument("name", type=str, nargs="?", help="the profile: a name or a .yaml file")
    parser.add_argument("--t", type=str, nargs="+", default=[], help="times, such as 1s 1d 1y; default: the profile's")
    parser.add_argument("--model", type=str, help="equivalent: the network, as for evaluate")
    parser.add_argument("--model-args", type=str, nargs="+", default=[], help="its arguments, such as num_classes=100")
    parser.add_argument("--weights", type=Path, help="equivalent: its weights")
    parser.add_argument("--chips", type=int, default=4, help="equivalent: how many are measured")
    parser.add_argument("--seed", type=int, default=0, help="root seed of the chips")
    parser.add_argument("--out", type=Path, help="plot: a .png or .svg file; equivalent: a .csv file for the table")


def profiles(settings: Namespace) -> None:
    """Run it."""
    action = check_choice("action", settings.action, ACTIONS)
    if action == "list":
        _list()
    elif settings.name is None:
        raise InvalidValueError(f"Expected `profiles {action}` to be followed by the name of a profile, but got none")
    elif action == "show":
        _show(settings)
    elif action == "plot":
        _plot(settings)
    else:
        _equivalent(settings)


def _list() -> None:
    from noiserobust.noise.profiles import load_profile, profile_names

    for name in profile_names():
        profile = load_profile(name)
        print(f"{name:<22}{profile.technology:<9}{profile.description.split('. ')[0].rstrip('.')}")


def _show(settings: Namespace) -> None:
    """Print the profile as a valid file, with what it does to weights as comments."""
    import yaml

    from noiserobust.diagnose.errors import error_table
    from noiserobust.noise.device import DeviceNoise
    from noiserobust.noise.profiles import load_profile

    profile = load_profile(settings.name)
    noise = DeviceNoise(profile, profile.times[0])
    table = error_table(noise, [noise.parse_level(t) for t in settings.t or profile.times], settings.seed)
    print(yaml.safe_dump(profile.content(), sort_keys=False, allow_unicode=True, width=100, default_flow_style=None))
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
