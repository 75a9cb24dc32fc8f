"""What an action of ``noiserobust diagnose`` consists of: its options, which of them it needs, what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonargparse import Namespace

from noiserobust.errors import InvalidValueError

Options = Mapping[str, Mapping[str, Any]]
"""By name, with underscores, what the parser is told of each: ``type``, ``help``, ``default``, ..."""


@dataclass(frozen=True)
class Action:
    """An action, in a module of its own.

    Args:
        name: as on the command line.
        summary: what it finds out, for the help.
        options: which it takes; one that other actions take too has the same type there.
        required: those that have to be given.
        run: does it; is given the options of the action, those that are not given with their default.
        only_with: options that have no effect without another one, by which of them is needed.
    """

    name: str
    summary: str
    options: Options
    required: Sequence[str]
    run: Callable[[Namespace], None]
    only_with: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, settings: Namespace, others: Sequence[Action]) -> None:
        """Run it.

        Args:
            settings: of all actions, as far as they are given.
            others: all actions, whose options are refused here.

        Raises:
            InvalidValueError: if an option is missing, or one is given that is not of this action or has no effect.
        """
        # As it stands: 0 is given, and may be refused; switches that are off are not.
        given = {name: v for name, v in settings.as_dict().items() if v is not None and v is not False}
        for option in given:
            users = [action.name for action in others if option in action.options]
            if users and option not in self.options:
                raise InvalidValueError(f"Expected `{spelt(option)}` with {', '.join(users)} only, but got {self.name}")
        missing = [f"`{spelt(option)}`" for option in self.required if option not in given]
        if missing:
            raise InvalidValueError(f"Expected {', '.join(missing)} to be given, but got nothing")
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
