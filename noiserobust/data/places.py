"""Where data sets are looked for, and what is said when they are not there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from noiserobust.errors import MissingFileError

ENVIRONMENT = "NOISEROBUST_DATA"


def data_root(path: str | Path | None) -> Path:
    """Return the folder or file named, or else ``$NOISEROBUST_DATA``, or else ``data`` in the working folder."""
    return Path(path or os.environ.get(ENVIRONMENT) or "data")


def missing_data(name: str, root: Path, looked_for: Sequence[str], how: str) -> MissingFileError:
    """Build the error for a data set that is not there.

    Args:
        name: of the data set.
        root: where it was looked for.
        looked_for: the forms it could have had there.
        how: how to get it.
    """
    *others, last = looked_for
    forms = f"{', '.join(others)} or {last}" if others else last
    return MissingFileError(
        f"Expected {root.absolute()} to hold all of {name} as {forms}, but "
        f"{'it does not' if root.exists() else 'there is no such folder'}; {how}, or say where it is: {name}:PATH, "
        f"or ${ENVIRONMENT} for the folder of all data"
    )
