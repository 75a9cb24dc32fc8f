"""``noiserobust diagnose``: why a network is as robust as it is. Each action has a module of its own."""

from __future__ import annotations

from argparse import SUPPRESS
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.diagnose.action import Action, spelt
from noiserobust.cli.diagnose.curvature import CURVATURE
from noiserobust.cli.diagnose.filters import FILTERS
from noiserobust.cli.diagnose.gradients import GRADIENTS
from noiserobust.cli.diagnose.landscape import LANDSCAPE
from noiserobust.cli.diagnose.sensitivity import SENSITIVITY
from noiserobust.cli.diagnose.sharpness import SHARPNESS
from noiserobust.errors import check_choice

ACTIONS: tuple[Action, ...] = (SENSITIVITY, SHARPNESS, GRADIENTS, CURVATURE, FILTERS, LANDSCAPE)


def add_diagnose(parser: ArgumentParser) -> None:
    """Add the arguments: those of all actions, under the names of the actions that take them."""
    parser.add_argument("action", type=str, help="; ".join(f"{action.name}: {action.summary}" for action in ACTIONS))
    groups: dict[tuple[str, ...], Any] = {}
    for option in dict.fromkeys(option for action in ACTIONS for option in action.options):
        users = [action for action in ACTIONS if option in action.options]
        names = tuple(action.name for action in users)
        if names not in groups:
            groups[names] = parser.add_argument_group("all actions" if len(users) == len(ACTIONS) else ", ".join(names))
        texts: dict[str, list[str]] = {}
        for action in users:
            texts.setdefault(action.options[option]["help"], []).append(action.name)
        text = "; ".join(f"{', '.join(of)}: {t}" for t, of in texts.items()) if len(texts) > 1 else next(iter(texts))
        # Without a default: it is to be seen what was given, and actions may differ in it.
        told = {**users[0].options[option], "default": SUPPRESS}
        groups[names].add_argument(spelt(option), **{**told, "help": text})


def diagnose(settings: Namespace) -> None:
    """Run it."""
    names = {action.name: action for action in ACTIONS}
    names[check_choice("action", settings.action, names)](settings, ACTIONS)
