"""What ``--help`` looks like: units and ranges beside each option, examples at the end, as they are typed."""

from __future__ import annotations

import re
import shlex
from argparse import SUPPRESS, Action
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from noiserobust.log import MESSAGES

_HEADING = "examples:\n"


class Formatter(DefaultHelpFormatter):
    """Text of several lines is left as it is written; types and defaults are told as people say them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else str(super()._fill_text(text, width, indent))

    def _expand_help(self, action: Action) -> str:
        text = str(super()._expand_help(action))
        text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", lambda m: m[1].lower(), text)
        text = text.replace(", default: null", "").replace(", default: []", "")
        text = text.removesuffix(" (default: False)")
        return re.sub(r" \(type: (?:str|path)\)$", "", text)


def make_parser(description: str, **more: Any) -> ArgumentParser:
    """Return a parser that raises what is wrong, for the command line, a verb or an action."""
    return ArgumentParser(
        description=description, exit_on_error=False, allow_abbrev=False, formatter_class=Formatter, **more
    )


def examples(*commands: str) -> str:
    """Return the end of a help text: commands as they are typed, lines of one joined by backslashes."""
    return _HEADING + "\n".join(f"  {command}".replace("\n", "\n      ") for command in commands)


def examples_of(parser: ArgumentParser) -> list[list[str]]:
    """Return the words of each command at the end of the help of a parser."""
    _, _, text = (parser.epilog or "").partition(_HEADING)
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def subparsers(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    """Return the parsers of verbs, or of the actions of a verb, by name."""
    action = parser._subcommands_action
    return dict(action._name_parser_map) if action else {}


def leaves(parser: ArgumentParser, *words: str) -> Iterator[tuple[tuple[str, ...], ArgumentParser]]:
    """Yield the parsers that have no others below them, with the words that lead there."""
    below = subparsers(parser)
    if not below:
        yield words, parser
    for name, sub in below.items():
        yield from leaves(sub, *words, name)


def add_messages(parser: ArgumentParser) -> None:
    """Add the options of every verb; they are for the help, and taken from the arguments before."""
    group = parser.add_argument_group("messages")
    for option, told in MESSAGES.items():
        group.add_argument(f"--{option}", **told, default=SUPPRESS)
