"""How well deployed weights hold up: Monte-Carlo over noise draws, levels and train seeds.

The package can be called: ``noiserobust.evaluate(...)`` is :func:`noiserobust.evaluate.api.evaluate`, although a
package of that name has to stand in the same place once one of its modules has been imported.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    @property
    def __signature__(self) -> inspect.Signature:
        from noiserobust.evaluate.api import evaluate

        return inspect.signature(evaluate)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from noiserobust.evaluate.api import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
