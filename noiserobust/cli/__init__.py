"""The command line: ``noiserobust demo | train | evaluate | sweep | tune | merge | compare | report | figures |
diagnose | profiles | doctor | completion``.

A verb imports what it needs when it runs, so that ``--help`` is instant.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Container, Sequence
from contextlib import redirect_stdout
from io import TextIOWrapper

from jsonargparse import ArgumentParser

from noiserobust.cli.completion import add_completion, completion
from noiserobust.cli.diagnose import add_diagnose, diagnose
from noiserobust.cli.doctor import add_doctor, doctor
from noiserobust.cli.evaluate import (
    add_demo,
    add_evaluate,
    add_merge,
    demo,
    evaluate,
    merge,
)
from noiserobust.cli.figures import add_figures, figures
from noiserobust.cli.help import add_messages, examples, leaves, make_parser
from noiserobust.cli.parsing import parse
from noiserobust.cli.profiles import add_profiles, profiles
from noiserobust.cli.report import add_compare, add_report, compare, report
from noiserobust.cli.sweep import add_sweep, sweep
from noiserobust.cli.train import add_train, train
from noiserobust.cli.tune import add_tune, tune
from noiserobust.endings import Ended, endings
from noiserobust.errors import NoiseRobustError
from noiserobust.log import complain, log_file, messages, take_messages
from noiserobust.memory import first_line, out_of_memory
from noiserobust.printing import Visible, error_line, one_line

DONE, FAULT, BAD_INPUT = 0, 1, 2

_log = logging.getLogger(__name__)

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
    "doctor": (add_doctor, doctor, "say what works on this machine, and why something does not"),
    "completion": (add_completion, completion, "print what makes a shell complete commands, options and names"),
}

_AT_ONCE = [[verb] for verb in ("compare", "report", "figures", "profiles", "doctor", "completion")]
"""What keeps nothing to go on from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, by default those of the process.

    Returns:
        Exit status: 0 done, 1 a fault of ours, 2 bad input or usage, 130 interrupted, 143 or 129 terminated.
    """
    arguments, start = list(sys.argv[1:] if argv is None else argv), time.monotonic()
    try:
        how, arguments = take_messages(arguments)
        with messages(how):
            status = _run(arguments)
            _log.info("exit status %d after %.1f s", status, time.monotonic() - start)
            return status
    except NoiseRobustError as error:  # of the log
        print(f"noiserobust: error: {one_line(str(error))}", file=sys.stderr)
        return BAD_INPUT


def _run(arguments: list[str]) -> int:
    """Do what the arguments say, and return the exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no failure
    try:
        with redirect_stdout(Visible(sys.stdout)), endings():
            parser = build_parser(arguments)
            settings = parse(parser, arguments)
            if settings.verb is None:
                parser.print_help()
            else:
                _VERBS[settings.verb][1](settings[settings.verb])
            sys.stdout.flush()
    except NoiseRobustError as error:
        if os.environ.get("RANK", "0") != "0":  # of the processes that torchrun started, one speaks
            _log.debug("%s", error)
            return BAD_INPUT
        complain(error_line(error))
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        kept = "" if arguments[:1] in _AT_ONCE else "; what is finished is kept, the same command goes on from there"
        end = stop if isinstance(stop, Ended) else Ended()
        print(f"noiserobust: {end.said}{kept}", file=sys.stderr)
        _log.debug("%s", end.said)
        return end.status
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE):
            return _fault()
        # Of standard output: files have errors of their own. What is written there is lost, or nobody reads on.
        _discard_output()
        if error.errno == errno.EPIPE:
            return DONE
        complain(f"Expected to be able to write the output, but got: {error.strerror}")
        return BAD_INPUT
    except Exception as error:
        if not out_of_memory(error):
            return _fault()
        complain(f"Expected memory to be large enough, but got: {one_line(first_line(error))}")
        return BAD_INPUT
    return DONE


def _fault() -> int:
    """Say what is known of a fault of ours, the exception under way."""
    import traceback

    traceback.print_exc()
    _log.debug("a fault", exc_info=True)
    where = f"{log_file()} has what led to it" if log_file() else "with `--log-file FILE` it is recorded"
    complain(f"this is a fault of noiserobust; {where}; `noiserobust doctor` says what works on this machine")
    return FAULT


def _discard_output() -> None:
    """Let what is still buffered go nowhere: Python would fail again to write it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def build_parser(verbs: Container[str] = frozenset(_VERBS)) -> ArgumentParser:
    """Return a parser that knows all verbs by name, and the arguments of those given, which takes most of the time."""
    parser = make_parser(
        "Train, evaluate and report neural networks whose weights live on noisy analog hardware.",
        prog="noiserobust",
        version=_version(),
        epilog=examples("noiserobust demo", "noiserobust evaluate --help"),
    )
    subparsers = parser.add_subcommands(dest="verb", required=False)
    for verb, (add, _, help_text) in _VERBS.items():
        sub = make_parser(f"{help_text[0].upper()}{help_text[1:]}.")
        subparsers.add_subcommand(verb, sub, help=help_text)  # first: actions are added in a verb that is there
        if verb not in verbs:
            continue
        add(sub)
        for _, leaf in leaves(sub):
            add_messages(leaf)
    return parser


def _version() -> str:
    from noiserobust import __version__

    return __version__
