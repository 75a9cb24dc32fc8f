"""What surrounds a result without determining it: versions, machine, time."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

_PACKAGES = ("noiserobust", "torch", "numpy", "pandas", "scipy", "scikit-learn", "aihwkit")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results rest on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return versions, platform and the time now, with anything ``extra`` (JSON-able)."""
    return {
        "versions": versions(),
        "platform": f"{sys.platform} {platform.machine()}",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **(extra or {}),
    }
