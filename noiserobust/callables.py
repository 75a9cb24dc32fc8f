"""Finding and calling a user's own function, named as ``package.module:callable`` or ``path/to/file.py:callable``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from noiserobust.errors import InvalidValueError, MissingFileError, NoiseRobustError, did_you_mean


def names_callable(spec: str) -> bool:
    """Return whether ``spec`` has the form of a callable, as against a registered name."""
    return ":" in spec or spec.endswith(".py")


def load_callable(spec: str, what: str) -> Callable[..., Any]:
    """Import the callable that ``spec`` names.

    A file is imported under a private name made of its path and content: loading it twice gives the same objects,
    loading it again after an edit gives the new ones. Its folder (the working directory for a module) can be imported
    from while the file is imported, not afterwards. Importing runs the file, which is the user's own.

    Args:
        spec: ``package.module:callable`` or ``path/to/file.py:callable``; the callable may be dotted (``Class.make``).
        what: what the callable is for, as errors call it: ``model``, ``data``.

    Raises:
        MissingFileError: if there is no such file or module.
        InvalidValueError: if ``spec`` has another form, the import fails, or there is no such callable in the module.
    """
    source, _, name = spec.rpartition(":")
    if not source or not all(part.isidentifier() for part in name.split(".")):
        raise InvalidValueError(
            f"Expected `{what}` to be `package.module:callable` or `path/to/file.py:callable`, but got {spec!r}"
        )
    is_file = source.endswith(".py") or "/" in source or "\\" in source
    found: Any = _import_file(Path(source), what) if is_file else _import_module(source, what)
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n in dir(found) if not n.startswith("_")]
            raise InvalidValueError(
                f"Expected `{what}` to name a callable in {source}, but it has no {part!r}{did_you_mean(part, public)}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise InvalidValueError(
            f"Expected `{what}` to name a callable, but {name!r} in {source} is of type {type(found).__name__}"
        )
    return found  # type: ignore[no-any-return]


def source_sha256(spec: str) -> str | None:
    """Return the SHA-256 of the file in which a callable is named, or None if ``spec`` names no file."""
    path = Path(spec.rpartition(":")[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if names_callable(spec) and path.is_file() else None


def call(function: Callable[..., Any], spec: str, what: str, /, **arguments: object) -> Any:
    """Call a function named by the user with keyword arguments; say what is wrong with them or with the function.

    Raises:
        InvalidValueError: if it does not take these arguments (the message lists those that it takes), or raises.
        NoiseRobustError: if it raises one itself.
    """
    parameters = accepted(function)
    if parameters is not None:
        try:
            inspect.signature(function).bind(**arguments)
        except TypeError as error:
            listed = ", ".join(map(str, parameters.values())) or "none"
            wrong = [did_you_mean(name, parameters) for name in arguments if name not in parameters]
            hint = next(filter(None, wrong), "")
            raise InvalidValueError(
                f"Expected the arguments of {what} {spec!r} to be among its parameters ({listed}), "
                f"but got {arguments!r}: {error}{hint}"
            ) from None
    try:
        return function(**arguments)
    except NoiseRobustError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidValueError(
            f"Expected {what} {spec!r} to be callable with {arguments!r}, but it raised {_told(error)}"
        ) from error


def accepted(function: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """Return the parameters of a function by name, or None if Python cannot tell."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def _import_file(path: Path, what: str) -> ModuleType:
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise MissingFileError(f"Expected `{what}` to name a Python file, but {path} is {kind}")
    path = path.resolve()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidValueError(f"Expected {path} to be readable, but got: {error.strerror}") from None
    digest = hashlib.sha256(str(path).encode() + b"\0" + content).hexdigest()[:16]
    name = f"_noiserobust_user_{digest}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None:
        raise InvalidValueError(f"Expected `{what}` to name a Python file ending in .py, but got {path}")
    module = importlib.util.module_from_spec(specification)
    # Dataclasses and pickle look a class's module up by name, dataclasses already during the import.
    sys.modules[name] = module
    try:
        with _importable(path.parent):
            # What was read, and not bytecode kept from before: that of an edit within the same second passes for it.
            exec(compile(content, str(path), "exec", dont_inherit=True), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InvalidValueError(f"Expected {path} to be importable, but it raised {_told(error)}") from error
    return module


def _import_module(name: str, what: str) -> ModuleType:
    try:
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise MissingFileError(
                f"Expected `{what}` to name an importable module, but there is no module {missing!r}"
            ) from None
        raise InvalidValueError(f"Expected module {name} to be importable, but it raised {_told(error)}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        # The user's file may itself have changed sys.path.
        if entry in sys.path:
            sys.path.remove(entry)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
