"""``noiserobust completion``: what makes a shell complete verbs, options and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]

from noiserobust.cli.help import examples, leaves
from noiserobust.errors import MissingDependencyError, check_choice

SHELLS = ("bash", "zsh", "tcsh")


def add_completion(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples(
        'eval "$(noiserobust completion bash)"    # in ~/.bashrc, or once in a terminal',
        'eval "$(noiserobust completion zsh)"     # in ~/.zshrc, after compinit',
    )
    parser.add_argument("shell", type=str, help=f"{', '.join(SHELLS[:-1])} or {SHELLS[-1]}")


def completion(settings: Namespace) -> None:
    """Run it."""
    shell = check_choice("shell", settings.shell, SHELLS)
    try:
        import shtab
    except ImportError as error:
        raise MissingDependencyError(
            f"Expected shtab to be installed for completions, but got: {error}; try: pip install shtab"
        ) from error
    from noiserobust.cli import build_parser

    parser = build_parser()
    for words, leaf in leaves(parser):
        _complete(words, leaf, shtab)
    script: str = shtab.complete(parser, shell)
    if shell == "zsh":  # evaluated, and not found by its name in a folder
        script += "\ncompdef _shtab_noiserobust noiserobust\n"
    print(script)


def _complete(words: tuple[str, ...], parser: ArgumentParser, shtab: Any) -> None:
    """Say what may follow each option of a verb or an action."""
    from noiserobust.cli.names import choices

    known = choices()
    for action in parser._actions:
        kind = getattr(action, "_typehint", action.type)
        names = known.get(" ".join((*words, action.dest)), known.get(action.dest))
        if names and kind is not Path:
            action.choices = list(names)
        elif isinstance(action, ActionConfigFile) or kind in (Path, Path | None):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif kind is bool:
            action.choices = ["true", "false"]
