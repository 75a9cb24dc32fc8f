"""A torchvision for another torch is installed but cannot be imported: hide it from Lightning and transformers."""

import sys
from importlib.metadata import PackageNotFoundError

try:
    import torchvision  # noqa: F401
except ModuleNotFoundError:
    pass
except Exception:
    sys.modules["torchvision"] = None  # transformers looks for the module
    try:
        from lightning_utilities.core import imports
    except ModuleNotFoundError:
        pass
    else:  # Lightning and torchmetrics look for the installed distribution
        version = imports._version

        def version_but_of_torchvision(name: str) -> str:
            if name == "torchvision":
                raise PackageNotFoundError(name)
            return version(name)

        imports._version = version_but_of_torchvision
