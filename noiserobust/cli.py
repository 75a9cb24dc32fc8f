"""The command line: ``noiserobust demo | train | evaluate | report | profiles``.

A verb imports what it needs when it runs, so that ``--help`` is instant.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace  # type: ignore[attr-defined]

from noiserobust.config import PRECISIONS, Scalar, TrainConfig
from noiserobust.errors import InvalidValueError, NoiseRobustError, check_number, did_you_mean, unknown_name

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130

_DATA = (
    "digits, cifar10, cifar100, mnist or fashion-mnist (in $NOISEROBUST_DATA or ./data, or cifar10:PATH), "
    "cifar10-c:DIR/fog/3, npz:FILE, imagefolder:DIR[@size=224] or file.py:callable"
)
_DOWNLOAD = "fetch cifar10, cifar100, mnist or fashion-mnist if they are not there, and check them"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        Exit status: 0 done, 2 bad input or usage, 130 interrupted. A fault of ours is an exception (status 1).
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    try:
        parser = _parser()
        settings = _parse(parser, list(sys.argv[1:] if argv is None else argv))
        if settings.verb is None:
            parser.print_help()
        else:
            _VERBS[settings.verb][1](settings[settings.verb])
    except NoiseRobustError as error:
        if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun started, one speaks
            return BAD_INPUT
        print(f"noiserobust: error: {_one_line(str(error))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(
            "noiserobust: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr
        )
        return INTERRUPTED
    return DONE


def _add_demo(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for weights, results and the report")


def _demo(settings: Namespace) -> None:
    from noiserobust.demo import run_demo

    run_demo(settings.out)


def _add_train(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the settings below")
    parser.add_class_arguments(TrainConfig)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="train seeds, integers >= 0: one training each"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ...")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for weights and metrics; finished seeds are kept, an unfinished one goes on from its checkpoint",
    )
    parser.add_argument(
        "--resume", action="store_true", help="insist that the folder holds a training of this configuration"
    )
    parser.add_argument("--download", action="store_true", help=_DOWNLOAD)
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=5.0, help="longest time between two checkpoints, >= 0"
    )


def _train(settings: Namespace) -> None:
    from noiserobust.evaluate.forward import pick_device
    from noiserobust.evaluate.heldout import held_out_score
    from noiserobust.train.distributed import process_group
    from noiserobust.train.runs import train_seeds

    names = TrainConfig.__dataclass_fields__
    config = TrainConfig(**{name: settings[name] for name in names})
    minutes = check_number("checkpoint-minutes", settings.checkpoint_minutes, minimum=0)
    with process_group(pick_device(settings.device)) as (ranks, device):
        paths = train_seeds(
            config,
            settings.seeds,
            settings.out,
            make_score=held_out_score,
            device=device,
            ranks=ranks,
            resume=settings.resume,
            download=settings.download,
            checkpoint_seconds=60 * minutes,
            progress=True,
        )
    if ranks.leads:
        for path in paths:
            print(path)


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("--model", type=str, required=True, help="name, package.module:callable or file.py:callable")
    parser.add_argument("--model-args", type=str, nargs="+", default=[], help="its arguments, such as num_classes=100")
    parser.add_argument(
        "--weights", type=Path, nargs="+", required=True, help=".safetensors, .pt, .pth or .th files, one a train seed"
    )
    parser.add_argument("--data", type=str, required=True, help=f"{_DATA}; the test split")
    parser.add_argument("--download", action="store_true", help=_DOWNLOAD)
    parser.add_argument(
        "--normalize",
        type=str,
        help="imagenet, cifar10, cifar100, digits, none or m,m,m/s,s,s; default: as trained, else the data set's own",
    )
    parser.add_argument("--noise", type=str, required=True, help="gaussian, laplace, a device profile or FILE.yaml")
    parser.add_argument(
        "--levels",
        type=str,
        nargs="+",
        required=True,
        help="severities: sigma or b as a fraction of the largest weight of a filter, or times (1s 1h 1d 1y); "
        "clean is without noise",
    )
    parser.add_argument("--draws", type=int, default=10, help="noise draws (chips) for each file and level, >= 1")
    parser.add_argument("--seed", type=int, default=0, help="root seed of the noise draws, >= 0")
    parser.add_argument("--method", type=str, help="name of the method in tables; default: what the weights file says")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda:0, ...")
    parser.add_argument("--precision", type=str, default="fp32", help=f"{' or '.join(PRECISIONS)}")
    parser.add_argument("--batch-size", type=int, help="images a pass; default: 100 on a CPU, else 1000")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results; finished draws are kept")


def _evaluate(settings: Namespace) -> None:
    from noiserobust.evaluate.files import EvaluateConfig, evaluate_files

    out = settings.out
    values = {name: settings[name] for name in EvaluateConfig.__dataclass_fields__}
    values["model_args"] = _model_args(settings.model_args)
    result = evaluate_files(EvaluateConfig(**values), out, download=settings.download, progress=True)
    print(result.summary().to_string(index=False, na_rep="", float_format="%.4g"))
    print(f"{out}: draws.csv, summary.csv, manifest.json")


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument("folders", type=Path, nargs="+", help="result folders, or folders that contain some")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html, tables and figures")


def _report(settings: Namespace) -> None:
    from noiserobust.report import write_report

    print(write_report(settings.folders, settings.out).html)


def _add_profiles(parser: ArgumentParser) -> None:
    parser.add_argument("action", type=str, help="list, or show")
    parser.add_argument("name", type=str, nargs="?", help="profile to show: a name or a .yaml file")


def _profiles(settings: Namespace) -> None:
    from noiserobust.errors import check_choice
    from noiserobust.noise.profiles import load_profile, profile_names

    if check_choice("action", settings.action, ["list", "show"]) == "list":
        for name in profile_names():
            profile = load_profile(name)
            print(f"{name}  {profile.technology}  {profile.source['citation']}")
        return
    if settings.name is None:
        raise InvalidValueError("Expected `profiles show` to be followed by the name of a profile, but got none")
    profile = load_profile(settings.name)
    shown = {
        "name": profile.name,
        "technology": profile.technology,
        "description": profile.description,
        "source": dict(profile.source),
        **profile.settings(),
    }
    print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100), end="")


_VERBS = {
    "demo": (_add_demo, _demo, "train, evaluate and report SGD, SAM and RWP on scikit-learn's digits in two minutes"),
    "train": (_add_train, _train, "train a model for a noise, one training a train seed"),
    "evaluate": (_add_evaluate, _evaluate, "measure the accuracy of weights files under noise"),
    "report": (_add_report, _report, "write tables, curves and a page from evaluations"),
    "profiles": (_add_profiles, _profiles, "list device profiles, or show one"),
}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="noiserobust",
        description="Train, evaluate and report neural networks whose weights live on noisy analog hardware.",
        exit_on_error=False,
        allow_abbrev=False,
        version=_version(),
    )
    verbs = parser.add_subcommands(dest="verb", required=False)
    for verb, (add, _, help_text) in _VERBS.items():
        sub = ArgumentParser(
            description=f"{help_text[0].upper()}{help_text[1:]}.", exit_on_error=False, allow_abbrev=False
        )
        add(sub)
        verbs.add_subcommand(verb, sub, help=help_text)
    return parser


def _version() -> str:
    from noiserobust import __version__

    return __version__


def _parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    arguments = _with_known_dashes(arguments, parser)
    for before, path in pairwise(arguments):
        if before == "--config":
            _check_config(Path(path))
    try:
        settings: Namespace = parser.instantiate(parser.parse_args(_with_config_first(arguments)))
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"Expected `config` to be UTF-8 text, but got: {error}") from error
    except ArgumentError as error:
        raise InvalidValueError(_in_our_voice(str(error), parser)) from error
    return settings


def _check_config(path: Path) -> None:
    """Raise an error for what the parser would take for something else, or not survive."""
    from dataclasses import fields, is_dataclass
    from typing import get_type_hints

    from noiserobust.yamlfile import read_settings

    def check(content: dict[str, Any], kind: Any, prefix: str) -> None:
        hints = get_type_hints(kind)
        for name in (f.name for f in fields(kind)):
            group = hints[name]
            if name in content and is_dataclass(group):
                if not isinstance(content[name], dict):
                    raise InvalidValueError(
                        f"Expected `{prefix}{name}` of {path} to be settings, name: value, but got {content[name]!r}"
                    )
                check(content[name], group, f"{prefix}{name}.")

    settings = read_settings(path)
    if "out" in settings:
        raise InvalidValueError(f"Expected `out` to be given as an option, but {path} has it")
    arguments = settings.get("model_args")
    if isinstance(arguments, dict) and not all(isinstance(name, str) for name in arguments):
        raise InvalidValueError(f"Expected `model_args` of {path} to have names as keys, but got {arguments!r}")
    check(settings, TrainConfig, "")


def _with_config_first(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--config FILE`` after the verb: what is given as an option replaces the file's."""
    if "--config" not in arguments[1:-1]:
        return arguments
    at = arguments.index("--config")
    return [arguments[0], *arguments[at : at + 2], *arguments[1:at], *arguments[at + 2 :]]


def _with_known_dashes(arguments: list[str], parser: ArgumentParser) -> list[str]:
    """Return the arguments with ``--batch-size`` for ``--batch_size`` and the other way round, as the verb has it."""
    known = _settings(parser, arguments[0] if arguments else "")

    def spelt(argument: str) -> str:
        option, equals, value = argument.partition("=")
        if not option.startswith("--") or option.removeprefix("--") in known:
            return argument
        name = option.removeprefix("--")
        twin = next((t for t in (name.replace("-", "_"), name.replace("_", "-")) if t in known), name)
        return f"--{twin}{equals}{value}"

    return [spelt(argument) for argument in arguments]


def _in_our_voice(message: str, parser: ArgumentParser) -> str:
    """Return what the parser says about an argument as ``Expected `X` to be ..., but got ...``."""
    message = _one_line(message)
    if match := re.fullmatch(r"argument verb: invalid choice: '(.*)' \(choose from .*", message):
        return str(unknown_name("verb", match[1], _VERBS))
    if match := re.search(r'Parser key "([^"]+)": File does not exist: (.*)', message):
        return f"Expected `{match[1]}` to be a file, but there is no {match[2]}"
    if match := re.fullmatch(r"argument (\S+): expected (?:at least )?one argument", message):
        return f"Expected `{match[1]}` to be followed by a value, but got nothing"
    if match := re.fullmatch(r"the following arguments are required: (.*)", message):
        names = ", ".join(f"`--{name.rpartition('.')[2]}`" for name in match[1].split(", "))
        return f"Expected {names} to be given, but got nothing"
    if match := re.search(r'Parser key "([^"]+)": Does not validate .*?\[(.+?)\] Errors: .*Given value: (.*)', message):
        kinds = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", match[2]).replace("NoneType", "null").replace(", ", " or ")
        return f"Expected `{match[1]}` to be of type {kinds}, but got {match[3]!r}"
    if match := re.search(r'Parser key "([^"]+)"(?: element \d+)?: Expected an? (.+?)\. Got value: (.*)', message):
        key, wanted, got = match.groups()
        kind = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", wanted)
        return f"Expected `{key}` to be of type {kind}, but got {got!r}"
    if match := re.search(r"(?:does not accept option '|unrecognized arguments: --)([\w.\-]+)", message):
        return f"Expected only known settings, but got {match[1]!r}{did_you_mean(match[1], _settings(parser))}"
    return message


def _settings(parser: ArgumentParser, verb: str | None = None) -> set[str]:
    """Return the names of the settings of a verb, or of all."""
    action = parser._subcommands_action
    subparsers = [p for name, p in (action._name_parser_map if action else {}).items() if verb in (None, name)]
    return {option.removeprefix("--") for p in subparsers for a in p._actions for option in a.option_strings}


def _model_args(pairs: Sequence[str]) -> dict[str, Scalar]:
    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidValueError(f"Expected `model-args` to be of the form name=value, but got {pair!r}")
        try:
            arguments[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InvalidValueError(f"Expected `model-args` to give {key} a value, but got {value!r}") from None
    return arguments


def _one_line(text: str) -> str:
    return " ".join(text.split())
