"""What is said while something runs: to people on standard error, and all of it to a log file.

Modules log to loggers of the standard library, below ``noiserobust``; in Python nothing is shown unless the program
asks for it (``logging.basicConfig(level="INFO")``). The command line shows warnings and errors, with ``--verbose`` what
is decided and when, with ``--quiet`` errors only, and writes everything to the file of ``--log-file``.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from noiserobust.errors import InvalidValueError, OutputError
from noiserobust.printing import visible

LOGGER = logging.getLogger("noiserobust")

MESSAGES: dict[str, dict[str, Any]] = {
    "quiet": {"action": "store_true", "help": "say nothing but errors and the result that was asked for"},
    "verbose": {"action": "store_true", "help": "say what is decided, and when, on standard error"},
    "log-file": {
        "type": Path,
        "metavar": "FILE",
        "help": "append everything to this file, in UTC, with the tracebacks of faults; several processes may share it",
    },
}
"""Options of every verb, with what the parser is told of each."""


@dataclass(frozen=True)
class Messages:
    """How much is said.

    Args:
        quiet: errors and results only.
        verbose: also what is decided.
        log_file: to which everything is appended.
    """

    quiet: bool = False
    verbose: bool = False
    log_file: Path | None = None


_how = Messages()  # of the command that runs


def take_messages(arguments: Sequence[str]) -> tuple[Messages, list[str]]:
    """Return what arguments say of messages, wherever they stand, and the other arguments.

    Raises:
        InvalidValueError: if they are not valid.

    >>> take_messages(["--quiet", "compare", "results", "--log-file=a.log"])
    (Messages(quiet=True, verbose=False, log_file=PosixPath('a.log')), ['compare', 'results'])
    """
    found: dict[str, Any] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.replace("--log_file", "--log-file", 1).partition("=")
        if word in ("--quiet", "--verbose"):
            found[word.removeprefix("--")] = True
        elif option == "--log-file":
            value = value if equals else next(words, "")
            if not value or (not equals and value.startswith("--")):
                raise InvalidValueError(f"Expected `--log-file` to be followed by a file, but got {value or 'nothing'}")
            found["log_file"] = Path(value)
        else:
            rest.append(word)
    if "quiet" in found and "verbose" in found:
        raise InvalidValueError("Expected `--quiet` or `--verbose`, but got both")
    return Messages(**found), rest


@contextmanager
def messages(how: Messages) -> Iterator[None]:
    """Show, and write to the log file, what is logged in the block.

    Raises:
        OutputError: if the log file cannot be written to. Once it could be, it is no reason to end what runs.
    """
    global _how
    before, level = _how, LOGGER.level
    handlers: list[logging.Handler] = [_Terminal(how)]
    try:
        if how.log_file is not None:
            handlers.append(_LogFile(how.log_file))
        for handler in handlers:
            LOGGER.addHandler(handler)
        LOGGER.setLevel(min(handler.level for handler in handlers))
        _how = how
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        _how = before
        LOGGER.setLevel(level)
        for handler in handlers:
            LOGGER.removeHandler(handler)
            handler.close()


def quiet() -> bool:
    """Return whether nothing is to be said but errors and results."""
    return _how.quiet


def log_file() -> Path | None:
    """Return the file to which everything is logged, if there is one."""
    return _how.log_file


def say(text: str) -> None:
    """Print, beside a result, what is good to know; not if it has to be quiet."""
    LOGGER.debug("%s", text)
    if not _how.quiet:
        print(text, flush=True)


def note(text: str) -> None:
    """Say on standard error what is good to know of a result; not if it has to be quiet."""
    LOGGER.info("note: %s", text) if _how.verbose else LOGGER.debug("note: %s", text)
    if not _how.quiet and not _how.verbose:
        print(visible(f"note: {text}"), file=sys.stderr)


def complain(text: str) -> None:
    """Say what went wrong, in one line."""
    LOGGER.error("%s", text)


class _Terminal(logging.Handler):
    """Standard error: warnings and errors in our voice, anything else with the time."""

    def __init__(self, how: Messages) -> None:
        super().__init__(logging.ERROR if how.quiet else logging.INFO if how.verbose else logging.WARNING)
        self.start = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        text = visible(record.getMessage())
        if record.levelno >= logging.WARNING:
            line = f"noiserobust: {record.levelname.lower()}: {text}"
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            line = f"{clock} {time.monotonic() - self.start:7.1f} s  {_module(record)}: {text}"
        if "tqdm" not in sys.modules:
            print(line, file=sys.stderr, flush=True)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):  # above a bar, not in it
            print(line, file=sys.stderr, flush=True)


class _LogFile(logging.Handler):
    """A file, to which each record is appended in one piece, so that several processes do not mix theirs."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.DEBUG)
        self.path = path
        self.setFormatter(_Lines())
        try:
            self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._error(error) from error
        try:
            self._write(f"{_stamp(time.time())} INFO {_process()} noiserobust: {_began()}")
        except OSError as error:
            self.close()
            raise self._error(error) from error

    def emit(self, record: logging.LogRecord) -> None:
        if self.descriptor < 0:
            return
        try:
            self._write(self.format(record))
        except OSError as error:  # what runs is worth more than its log
            self.close()
            print(f"noiserobust: error: {self._error(error)}; nothing more is logged", file=sys.stderr, flush=True)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        super().close()

    def _write(self, text: str) -> None:
        os.write(self.descriptor, f"{text}\n".encode("utf-8", "backslashreplace"))

    def _error(self, error: OSError) -> OutputError:
        self.descriptor = getattr(self, "descriptor", -1)
        return OutputError(f"Expected to be able to write the log file {self.path}, but got: {error.strerror}")


class _Lines(logging.Formatter):
    """UTC time, level, process and module before the text; further lines, such as a traceback, are indented."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        where = f"{record.levelname} {_process()} noiserobust.{_module(record)}".removesuffix(".noiserobust")
        return f"{_stamp(record.created)} {where}: {text}".replace("\n", "\n    ")


def _module(record: logging.LogRecord) -> str:
    return record.name.removeprefix("noiserobust.")


def _stamp(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def _process() -> str:
    rank = os.environ.get("RANK")
    return f"[{os.getpid()}]" if rank is None else f"[{os.getpid()} rank {rank}]"


def _began() -> str:
    import shlex

    from noiserobust import __version__

    return f"version {__version__}, Python {sys.version.split()[0]}: {shlex.join(sys.argv)}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # Ours say what they are about; of others it is to be seen whose they are.
    own = Path(filename).is_relative_to(Path(__file__).parent)
    text = " ".join(str(message).split())
    LOGGER.getChild("warnings").warning("%s", text if own else f"{category.__name__}: {text} ({filename}:{lineno})")
