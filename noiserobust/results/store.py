"""The folder an evaluation writes to: continued after an interruption, refused for another configuration."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from noiserobust.errors import InvalidValueError
from noiserobust.results.export import quoting, to_csv
from noiserobust.results.files import make_folder, read_json, remove_left_over, write_atomic, write_errors, write_json
from noiserobust.results.lock import LOCK_FILE, FolderLock
from noiserobust.results.schema import (
    DRAW_COLUMNS,
    DRAW_DTYPES,
    DRAW_KEY,
    DRAWS_FILE,
    MANIFEST_FILE,
    SAMPLED_DTYPES,
    SCHEMA_VERSION,
    SUMMARY_FILE,
)
from noiserobust.textfile import read_bytes

if TYPE_CHECKING:
    from typing_extensions import Self

JOURNAL_FILE = ".draws.journal.csv"
_SAMPLED_COLUMNS = [*DRAW_COLUMNS, *SAMPLED_DTYPES]
_DTYPES = {len(DRAW_DTYPES): DRAW_DTYPES, len(_SAMPLED_COLUMNS): {**DRAW_DTYPES, **SAMPLED_DTYPES}}
Row = dict[str, Any]


class ResultFolder:
    """An output folder whose content belongs to exactly one configuration and that one process at a time writes to.

    It is held until :meth:`close`, the end of a ``with`` block, garbage collection or the end of the process.

    Args:
        path: the folder; created if missing.
        kind: what the folder holds, such as ``"evaluation"`` or ``"training"``.
        configuration: everything that determines the results, JSON-able. A folder that already holds another
            configuration is refused.
        environment: what does not determine the results but should be known: versions, device, command. The manifest
            keeps that of the first session; one that continues it under another is listed in ``continued_in``.

    Raises:
        InvalidValueError: if the folder holds results of another configuration; the message names the keys.
        OutputError: if it cannot be written to, or another process is writing to it.
    """

    def __init__(self, path: Path, kind: str, configuration: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        self.path = make_folder(Path(path))
        self._lock = FolderLock(self.path)
        try:
            remove_left_over(self.path)
            self._open(kind, configuration, environment)
        except BaseException:
            self.close()  # the traceback keeps this object alive
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def remember(self, key: str, find: Callable[[], Any]) -> Any:
        """Return what the manifest says under a key; the first time, find it and write it there.

        Args:
            key: beside ``configuration``.
            find: returns what is to be kept, JSON-able.
        """
        path = self.path / MANIFEST_FILE
        content = read_json(path)
        if key not in content:
            content[key] = find()
            write_json(path, content)
        return content[key]

    def close(self) -> None:
        """Let others write to the folder."""
        self._lock.release()

    def _open(self, kind: str, configuration: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Check that the content belongs to the configuration, and record the session in the manifest."""
        manifest = self.path / MANIFEST_FILE
        with write_errors(self.path):
            # A run that failed before its first result leaves a manifest that binds nobody.
            files = (p for depth in ("*", "*/*") for p in self.path.glob(depth) if p.is_file())
            started = any(p not in (manifest, self.path / LOCK_FILE) for p in files)
            continued = started and manifest.exists()
        if continued:
            content = _manifest_of(manifest, kind, configuration)
            sessions = [content.get("environment"), *content.get("continued_in", [])]
            if not any(set(_differences(session, environment)) <= {"started"} for session in sessions):
                write_json(manifest, {**content, "continued_in": [*sessions[1:], environment]})
            return
        for name in (DRAWS_FILE, SUMMARY_FILE):
            if (self.path / name).exists():
                raise InvalidValueError(
                    f"Expected `out` to be a new folder or one of the same configuration, but {self.path} holds "
                    f"a {name} without a {MANIFEST_FILE}"
                )
        content = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind,
            "configuration": configuration,
            "environment": environment,
        }
        write_json(manifest, content)


class DrawStore(ResultFolder):
    """A :class:`ResultFolder` for the rows of ``draws.csv``.

    Each row is durable as soon as :meth:`append` returns. Rows go to a journal first; :meth:`finish` turns it into
    ``draws.csv``, which therefore is always whole. A torn last line of the journal (a kill, a full disk) is dropped
    when the folder is opened again.

    Args:
        path: as for :class:`ResultFolder`.
        configuration: as for :class:`ResultFolder`.
        environment: as for :class:`ResultFolder`.
        kind: what the draws are of.
    """

    def __init__(
        self,
        path: Path,
        configuration: Mapping[str, Any],
        environment: Mapping[str, Any],
        kind: str = "evaluation",
    ) -> None:
        super().__init__(path, kind, configuration, environment)

    def _open(self, kind: str, configuration: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        super()._open(kind, configuration, environment)
        self._rows = list(read_rows(self.path))

    @property
    def rows(self) -> list[Row]:
        """The rows that are done, in the order in which they were finished."""
        return list(self._rows)

    def append(self, row: Row) -> None:
        """Add one row and make it durable.

        Raises:
            OutputError: if it cannot be written.
        """
        journal = self.path / JOURNAL_FILE
        with write_errors(journal), journal.open("ab") as file:
            if file.tell() and not _ends_with_newline(journal):
                # A torn line left by an earlier kill is cut off: ended, it could pass for a whole one.
                file.truncate(journal.read_bytes().rfind(b"\n") + 1)
            file.write(_csv_line([row[c] for c in _DTYPES[len(row)]]).encode())
            file.flush()
            os.fsync(file.fileno())
        self._rows.append(row)

    def finish(self, summary: pd.DataFrame) -> None:
        """Write ``draws.csv``, in the order of its key, and ``summary.csv``; remove the journal."""
        draws = as_frame(self._rows)
        write_atomic(self.path / DRAWS_FILE, draws_csv(draws))
        write_atomic(self.path / SUMMARY_FILE, to_csv(summary))
        with write_errors(self.path):
            (self.path / JOURNAL_FILE).unlink(missing_ok=True)


def as_frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a DataFrame with the columns and types of ``draws.csv``, in the order of their key."""
    frame = pd.DataFrame(list(rows))
    sampled = set(SAMPLED_DTYPES) <= set(frame)
    frame = frame.reindex(columns=_SAMPLED_COLUMNS if sampled else DRAW_COLUMNS).astype(DRAW_DTYPES)
    frame = with_sampling(frame) if sampled else frame
    ordered: pd.DataFrame = frame.sort_values(DRAW_KEY, kind="stable", ignore_index=True)
    return ordered


def draws_csv(draws: pd.DataFrame) -> str:
    """Return the content of a ``draws.csv``, names as they are."""
    names = (name for column, kind in DRAW_DTYPES.items() if kind == "str" for name in draws[column])
    text: str = draws.to_csv(index=False, quoting=quoting(names))
    return text


def with_sampling(draws: pd.DataFrame) -> pd.DataFrame:
    """Return draws of which some were sampled with the columns of that for all: the others were run on all examples."""
    filled: pd.DataFrame = draws.fillna({"of_examples": draws["n_examples"], "sampling_std": 0.0})
    typed: pd.DataFrame = filled.astype(SAMPLED_DTYPES)
    return typed


def read_rows(folder: Path) -> Iterator[Row]:
    """Yield the whole rows of a result folder, finished or interrupted.

    Raises:
        InvalidValueError: if ``draws.csv`` has other columns or a value of a wrong type.
    """
    seen: dict[tuple[Any, ...], float] = {}
    for name in (DRAWS_FILE, JOURNAL_FILE):
        for row in _parse(folder / name):
            key = tuple(row[c] for c in DRAW_KEY)
            if key not in seen:
                seen[key] = row["value"]
                yield row
            elif name == DRAWS_FILE and row["value"] != seen[key]:
                raise InvalidValueError(
                    f"Expected {folder / name} to have each draw once, but got {seen[key]} and {row['value']} for "
                    f"{', '.join(map(str, key))}"
                )


def finished_rows(folder: Path, configuration: Mapping[str, Any]) -> list[Row]:
    """Return what a :class:`DrawStore` of a configuration would find in a folder, which is only read.

    Raises:
        InvalidValueError: if the folder holds results of another configuration.
    """
    if folder.exists() and not folder.is_dir():
        raise InvalidValueError(f"Expected `out` to be a folder, but {folder} is a file")
    rows = list(read_rows(folder))
    if rows and (folder / MANIFEST_FILE).exists():
        _manifest_of(folder / MANIFEST_FILE, "evaluation", configuration)
    return rows


def known(folder: Path, key: str) -> Any:
    """Return what the manifest of a folder says under a key; None if it says nothing."""
    path = folder / MANIFEST_FILE
    manifest = read_json(path) if path.exists() else {}
    return manifest.get(key) if isinstance(manifest, dict) else None


def _parse(path: Path) -> Iterator[Row]:
    if not path.exists():
        return
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"Expected {path} to be a readable UTF-8 file, but got: {error}") from None
    is_journal = path.name == JOURNAL_FILE
    try:
        lines = list(csv.reader(StringIO(text, newline=""), strict=not is_journal))
    except csv.Error as error:
        raise InvalidValueError(f"Expected {path} to be comma-separated values, but got: {error}") from None
    if not is_journal:
        header = lines.pop(0) if lines else []
        if header not in (DRAW_COLUMNS, _SAMPLED_COLUMNS):
            raise InvalidValueError(
                f"Expected {path} to have the columns {', '.join(DRAW_COLUMNS)}, but got {', '.join(header) or 'none'}"
            )
    if is_journal and not text.endswith("\n"):
        lines = lines[:-1]
    for number, cells in enumerate(lines, start=1 if is_journal else 2):
        try:
            yield _row(cells)
        except ValueError:
            # A damaged line of the journal is computed again; in draws.csv it is an error.
            if not is_journal:
                raise InvalidValueError(
                    f"Expected line {number} of {path} to be a row of draws, but got {','.join(cells)!r}"
                ) from None


def _row(cells: list[str]) -> Row:
    casts = {"str": str, "int64": int, "float64": float}
    if len(cells) not in _DTYPES:
        raise ValueError
    row = {name: casts[kind](cell) for (name, kind), cell in zip(_DTYPES[len(cells)].items(), cells, strict=True)}
    if not math.isfinite(row["level"]) or not all(abs(v) < 1 << 63 for v in row.values() if isinstance(v, int)):
        raise ValueError
    if row["n_examples"] < 1 or not row["n_examples"] <= row.get("of_examples", row["n_examples"]):
        raise ValueError
    if not 0 <= row.get("sampling_std", 0.0) < math.inf:
        raise ValueError
    return row


def _csv_line(cells: Sequence[Any]) -> str:
    buffer = StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=quoting(cells)).writerow(cells)
    return buffer.getvalue()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _manifest_of(path: Path, kind: str, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest if it is that of a configuration.

    Raises:
        InvalidValueError: if it is that of another one, or damaged.
    """
    manifest = read_json(path)
    if (
        not isinstance(manifest, dict)
        or not isinstance(manifest.get("configuration"), dict)
        or not isinstance(manifest.get("continued_in", []), list)
    ):
        raise InvalidValueError(f"Expected {path} to be a manifest with a configuration, but it is not")
    if manifest.get("kind") != kind:
        raise InvalidValueError(
            f"Expected `out` to be a new folder or one with this {kind}, "
            f"but {path.parent} holds the results of another kind: {manifest.get('kind')!r}"
        )
    differing = differing_keys(manifest["configuration"], configuration)
    if differing:
        raise InvalidValueError(
            f"Expected `out` to be a new folder or one of the same configuration, but {path.parent} holds results of "
            f"another one; differing: {', '.join(differing)}"
        )
    return manifest


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the keys, dotted, in which two configurations differ."""
    return sorted(_differences(old, new))


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, Mapping):
        for key in {*old, *new}:
            name = f"{prefix}.{key}" if prefix else str(key)
            if key not in old or key not in new:
                yield name
            else:
                yield from _differences(old[key], new[key], name)
    elif old != (list(new) if isinstance(new, tuple) else new):
        yield prefix
