"""The command line: ``noiserobust demo | train | evaluate | merge | compare | report | figures | diagnose |
profiles``.

A verb imports what it needs when it runs, so that ``--help`` is instant.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from jsonargparse import ArgumentParser

from noiserobust.cli.diagnose import add_diagnose, diagnose
from noiserobust.cli.evaluate import (
    add_demo,
    add_evaluate,
    add_merge,
    demo,
    evaluate,
    merge,
)
from noiserobust.cli.figures import add_figures, figures
from noiserobust.cli.parsing import one_line, parse
from noiserobust.cli.profiles import add_profiles, profiles
from noiserobust.cli.report import add_compare, add_report, compare, report
from noiserobust.cli.sweep import add_sweep, sweep
from noiserobust.cli.train import add_train, train
from noiserobust.cli.tune import add_tune, tune
from noiserobust.endings import Ended, endings
from noiserobust.errors import NoiseRobustError
from noiserobust.memory import first_line, out_of_memory

DONE, BAD_INPUT = 0, 2

_VERBS = {
    "demo": (add_demo, demo, "train, evaluate and report SGD, SAM and RWP on scikit-learn's digits in two minutes"),
    "train": (add_train, train, "train a model for a noise, one training a train seed"),
    "evaluate": (add_evaluate, evaluate, "measure the accuracy of weights files under noise"),
    "sweep": (add_sweep, sweep, "train and evaluate a grid of settings, on one machine or many"),
    "tune": (add_tune, tune, "find the training that holds up best on a device"),
    "merge": (add_merge, merge, "join the results of parts of one evaluation"),
    "compare": (add_compare, compare, "compare methods on the same train seeds and chips"),
    "report": (add_report, report, "write tables, curves and a page from evaluations"),
    "figures": (add_figures, figures, "draw the figures of two papers from one's own trainings and evaluations"),
    "diagnose": (
        add_diagnose,
        diagnose,
        "find out why weights are as robust as they are: landscape, sharpness, gradients, layers",
    ),
    "profiles": (add_profiles, profiles, "list device profiles, show one, or say what it does to a network"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        Exit status: 0 done, 2 bad input or usage, 130 interrupted, 143 or 129 terminated. A fault of ours is an
        exception (status 1).
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    try:
        with endings():
            parser = _parser()
            settings = parse(parser, list(sys.argv[1:] if argv is None else argv))
            if settings.verb is None:
                parser.print_help()
            else:
                _VERBS[settings.verb][1](settings[settings.verb])
            sys.stdout.flush()
    except NoiseRobustError as error:
        if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun started, one speaks
            return BAD_INPUT
        print(f"noiserobust: error: {one_line(str(error))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        kept = (
            ""
            if list(sys.argv[1:] if argv is None else argv)[:1] in (["profiles"], ["report"], ["compare"], ["figures"])
            else "; what is finished is kept, the same command goes on from there"
        )
        end = stop if isinstance(stop, Ended) else Ended()
        print(f"noiserobust: {end.said}{kept}", file=sys.stderr)
        return end.status
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            raise
        # Of standard output: files have errors of their own. What is written there is lost, or nobody reads on.
        _discard_output()
        if error.errno == errno.EPIPE:
            return DONE
        print(
            f"noiserobust: error: Expected to be able to write the output, but got: {error.strerror}", file=sys.stderr
        )
        return BAD_INPUT
    except Exception as error:
        if not out_of_memory(error):
            raise
        print(
            f"noiserobust: error: Expected memory to be large enough, but got: {one_line(first_line(error))}",
            file=sys.stderr,
        )
        return BAD_INPUT
    return DONE


def _discard_output() -> None:
    """Let what is still buffered go nowhere: Python would fail again to write it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


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
