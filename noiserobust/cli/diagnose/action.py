"""What an action of ``noiserobust diagnose`` consists of: its options, which of them it needs, what it does."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from noiserobust.errors import InvalidValueError

Options = Mapping[str, Mapping[str, Any]]
"""By name, with underscores, what the parser is told of each: ``type``, ``help``, ``default``, ..."""


@dataclass(frozen=True)
class Action:
    """An action, in a module of its own.

    Args:
        name: as on the command line.
        summary: what it finds out, for the help.
        options: which it takes.
        required: those that have to be given.
        run: does it; is given the options of the action, those that are not given with their default.
        examples: commands as they are typed, the first one runs as it is after ``noiserobust train --help``'s.
        only_with: options that have no effect without another one, by which of them is needed.
    """

    name: str
    summary: str
    options: Options
    required: Sequence[str]
    run: Callable[[Namespace], None]
    examples: Sequence[str]
    only_with: Mapping[str, str] = field(default_factory=dict)

    def add(self, parser: ArgumentParser) -> None:
        """Add its options."""
        for option, told in self.options.items():
            # Without a default: it is to be seen what was given.
            needed = {"required": True} if option in self.required else {"default": SUPPRESS}
            parser.add_argument(spelt(option), **{**told, **needed})

    def __call__(self, settings: Namespace) -> None:
        """Run it.

        Args:
            settings: options, as far as they are given.

        Raises:
            InvalidValueError: if an option is given that has no effect.
        """
        # As it stands: 0 is given, and may be refused; switches that are off are not.
        given = {name: v for name, v in settings.as_dict().items() if v is not None and v is not False}
        for option, needed in self.only_with.items():
            if option in given and needed not in given:
                raise InvalidValueError(f"Expected `{spelt(option)}` with `{spelt(needed)}` only, but got it without")
        own: Any = Namespace  # which is not typed
        self.run(own(**{option: given.get(option, told.get("default")) for option, told in self.options.items()}))


def spelt(option: str) -> str:
    """Return an option as on the command line.

    >>> spelt("batch_size")
    '--batch-size'
    """
    return f"--{option.replace('_', '-')}"
