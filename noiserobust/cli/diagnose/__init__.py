"""``noiserobust diagnose``: why a network is as robust as it is. Each action has a module of its own."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from noiserobust.cli.diagnose.action import Action
from noiserobust.cli.diagnose.curvature import CURVATURE
from noiserobust.cli.diagnose.filters import FILTERS
from noiserobust.cli.diagnose.gradients import GRADIENTS
from noiserobust.cli.diagnose.landscape import LANDSCAPE
from noiserobust.cli.diagnose.sensitivity import SENSITIVITY
from noiserobust.cli.diagnose.sharpness import SHARPNESS
from noiserobust.cli.help import examples, make_parser

ACTIONS: tuple[Action, ...] = (SENSITIVITY, SHARPNESS, GRADIENTS, CURVATURE, FILTERS, LANDSCAPE)


def add_diagnose(parser: ArgumentParser) -> None:
    """Add the actions."""
    parser.epilog = examples("noiserobust diagnose sensitivity --help")
    actions = parser.add_subcommands(dest="action")
    for action in ACTIONS:
        sub = make_parser(f"Find out {action.summary}.", epilog=examples(*action.examples))
        action.add(sub)
        actions.add_subcommand(action.name, sub, help=action.summary)


def diagnose(settings: Namespace) -> None:
    """Run it."""
    names = {action.name: action for action in ACTIONS}
    names[settings.action](settings[settings.action])
