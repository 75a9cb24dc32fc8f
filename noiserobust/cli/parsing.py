"""From arguments and configuration files to checked settings; what is wrong is said in our voice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from noiserobust.cli.help import subparsers
from noiserobust.config import Scalar, TrainConfig
from noiserobust.errors import InvalidValueError, did_you_mean, unknown_name
from noiserobust.log import MESSAGES
from noiserobust.printing import one_line

T = TypeVar("T")

DATA = (
    "digits, cifar10, cifar100, mnist or fashion-mnist (in $NOISEROBUST_DATA or ./data, or cifar10:PATH), "
    "cifar10-c:DIR/fog/3, npz:FILE, imagefolder:DIR[@size=224] or file.py:callable"
)
SPLIT = "of the data: test or train"
DOWNLOAD = "fetch cifar10, cifar100, mnist or fashion-mnist if they are not there, and check them"


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Return the settings that arguments, and a configuration file among them, stand for.

    Raises:
        InvalidValueError: if they are not valid.
    """
    chosen = _chosen(parser, arguments)
    arguments = list(_with_config_apart(_with_known_dashes(arguments, chosen[-1])))
    if len(chosen) > 2:
        _check_is_of_action(arguments, *chosen[-2:])
    for before, path in pairwise(arguments):
        if before.startswith("--") and path == "":
            raise InvalidValueError(f"Expected `{before}` to be followed by a value, but got ''")
        if before == "--config":
            _check_config(Path(path))
    try:
        settings: Namespace = parser.instantiate(parser.parse_args(_with_config_first(arguments)))
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"Expected `config` to be UTF-8 text, but got: {error}") from error
    except ArgumentError as error:
        raise InvalidValueError(_in_our_voice(str(error), chosen)) from error
    return settings


def checked_settings(kind: type[T], content: Mapping[str, Any]) -> T:
    """Return plain settings, as of a file, as an object of a dataclass.

    Raises:
        InvalidValueError: if one is unknown or not valid.
    """
    _check_groups(content, kind)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        settings = parser.instantiate(parser.parse_object(dict(content)))
    except ArgumentError as error:
        raise InvalidValueError(_in_our_voice(str(error), [parser])) from None
    return kind(**{name: settings[name] for name in kind.__dataclass_fields__})  # type: ignore[attr-defined]


def _check_groups(content: Mapping[str, Any], kind: Any, where: str = "", prefix: str = "") -> None:
    """Raise unless what is a group of settings has settings: the parser would look for a file of the name.

    And unless what is said is heard: of a setting that may be missing the parser takes ``#1`` for missing.
    """
    from dataclasses import fields, is_dataclass
    from typing import get_args, get_type_hints

    hints = get_type_hints(kind)
    for name in (f.name for f in fields(kind)):
        if name in content and is_dataclass(hints[name]):
            group = content[name]
            if not isinstance(group, dict):
                raise InvalidValueError(
                    f"Expected `{prefix}{name}`{where} to be settings, name: value, but got {group!r}"
                )
            _check_groups(group, hints[name], where, f"{prefix}{name}.")
        elif type(None) in get_args(hints[name]) and _reads_as_nothing(content.get(name)):
            raise InvalidValueError(
                f"Expected `{prefix}{name}`{where} to be text that means something, or to be left out, but got "
                f"{content[name]!r}, which the parser would read as nothing"
            )


def _reads_as_nothing(value: Any) -> bool:
    """Return whether a text is to YAML what null is: the parser reads texts once more."""
    from noiserobust.yamlfile import parse_yaml

    try:
        return isinstance(value, str) and bool(value.strip()) and parse_yaml(value) is None
    except ValueError:
        return False


def _check_config(path: Path) -> None:
    """Raise an error for what the parser would take for something else, or not survive."""
    from noiserobust.yamlfile import read_settings

    settings = read_settings(path)
    for option in ("out", *MESSAGES):
        if option in settings or option.replace("-", "_") in settings:
            raise InvalidValueError(f"Expected `{option}` to be given as an option, but {path} has it")
    arguments = settings.get("model_args")
    if isinstance(arguments, dict) and not all(isinstance(name, str) for name in arguments):
        raise InvalidValueError(f"Expected `model_args` of {path} to have names as keys, but got {arguments!r}")
    _check_groups(settings, TrainConfig, f" of {path}")


def _with_config_apart(arguments: list[str]) -> Iterator[str]:
    """Yield the arguments with ``--config FILE`` for ``--config=FILE``."""
    for argument in arguments:
        option, equals, path = argument.partition("=")
        yield from (option, path) if option == "--config" and equals else (argument,)


def _with_config_first(arguments: list[str]) -> list[str]:
    """Return the arguments with ``--config FILE`` after the verb: what is given as an option replaces the file's."""
    if "--config" not in arguments[1:-1]:
        return arguments
    at = arguments.index("--config")
    return [arguments[0], *arguments[at : at + 2], *arguments[1:at], *arguments[at + 2 :]]


def _chosen(parser: ArgumentParser, arguments: list[str]) -> list[ArgumentParser]:
    """Return the parsers of the command line, and of the verb and the action of it that the first arguments name."""
    chosen = [parser]
    for word in arguments:
        below = subparsers(chosen[-1])
        if word not in below:
            break
        chosen.append(below[word])
    return chosen


def _check_is_of_action(arguments: list[str], verb: ArgumentParser, action: ArgumentParser) -> None:
    """Raise an error for an option that other actions of the verb have."""
    actions = {name: {_dashed(option) for option in _settings(p)} for name, p in subparsers(verb).items()}
    own = next(name for name, p in subparsers(verb).items() if p is action)
    for argument in arguments:
        option = _dashed(argument.partition("=")[0].removeprefix("--"))
        users = [name for name, options in actions.items() if option in options]
        if argument.startswith("--") and users and own not in users:
            raise InvalidValueError(f"Expected `--{option}` with {', '.join(users)} only, but got {own}")


def _dashed(option: str) -> str:
    return option.replace("_", "-")


def _with_known_dashes(arguments: list[str], parser: ArgumentParser) -> list[str]:
    """Return the arguments with ``--batch-size`` for ``--batch_size`` and the other way round, as the parser has it."""
    known = _settings(parser)

    def spelt(argument: str) -> str:
        option, equals, value = argument.partition("=")
        if not option.startswith("--") or option.removeprefix("--") in known:
            return argument
        name = option.removeprefix("--")
        twin = next((t for t in (name.replace("-", "_"), name.replace("_", "-")) if t in known), name)
        return f"--{twin}{equals}{value}"

    return [spelt(argument) for argument in arguments]


def _in_our_voice(message: str, chosen: Sequence[ArgumentParser]) -> str:
    """Return what one of the parsers says about an argument as ``Expected `X` to be ..., but got ...``."""
    message = one_line(message)
    if match := re.fullmatch(r"argument (verb|action): invalid choice: '(.*)' \(choose from .*", message):
        return str(unknown_name(match[1], match[2], subparsers(chosen[-1])))
    if match := re.fullmatch(r'expected "[\w.]*action" to be one of {(.*)}, but it was not provided.', message):
        return f"Expected `action` to be one of {match[1].replace(',', ', ')}, but got none"
    if match := re.search(r'Parser key "([^"]+)": File does not exist: (.*)', message):
        return f"Expected `{match[1]}` to be a file, but there is no {match[2]}"
    if match := re.fullmatch(r"argument (\S+): expected (?:at least )?one argument", message):
        return f"Expected `{match[1]}` to be followed by a value, but got nothing"
    if match := re.fullmatch(r"the following arguments are required: (.*)", message):
        named = [name.rpartition(".")[2] for name in match[1].split(", ")]
        names = ", ".join(f"`--{_dashed(name)}`" for name in named)
        return f"Expected {names} to be given, but got nothing"
    if match := re.search(r'Parser key "([^"]+)": Does not validate .*?\[(.+?)\] Errors: .*Given value: (.*)', message):
        kinds = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", match[2]).replace("NoneType", "null").replace(", ", " or ")
        return f"Expected `{match[1]}` to be of type {kinds}, but got {match[3]!r}"
    if match := re.search(r'Parser key "([^"]+)"(?: element \d+)?: Expected an? (.+?)\. Got value: (.*)', message):
        key, wanted, got = match.groups()
        kind = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", wanted)
        return f"Expected `{key}` to be of type {kind}, but got {got!r}"
    if match := re.search(r"unrecognized arguments: ([^-].*)", message):
        return f"Expected no further arguments, but got {match[1]!r}"
    if match := re.search(r"(?:does not accept option '|unrecognized arguments: --)([\w.\-]+)", message):
        return f"Expected only known settings, but got {match[1]!r}{did_you_mean(match[1], _settings(chosen[-1]))}"
    return message


def _settings(parser: ArgumentParser) -> set[str]:
    """Return the names of the settings of a verb or an action."""
    return {option.removeprefix("--") for action in parser._actions for option in action.option_strings}


def model_args(pairs: Sequence[str]) -> dict[str, Scalar]:
    """Return arguments of a model given as ``name=value``; values are read as in YAML."""
    from noiserobust.yamlfile import parse_yaml

    arguments: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise InvalidValueError(f"Expected `model-args` to be of the form name=value, but got {pair!r}")
        try:
            arguments[key] = parse_yaml(value)
        except ValueError:
            raise InvalidValueError(f"Expected `model-args` to give {key} a value, but got {value!r}") from None
    return arguments
