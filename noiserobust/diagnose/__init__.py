"""Why a network is as robust as it is: sharpness, gradients, curvature, filters, layers, and what a device amounts to.

    import noiserobust as nr

    nr.diagnose.average_sharpness([model], (x, y), noise=nr.GaussianNoise(0.05), draws=20)
    nr.diagnose.ascent_sharpness(model, (x, y), [0.05, 0.1], m=128)

Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noiserobust.diagnose.cost import dom_cost as dom_cost
    from noiserobust.diagnose.critical import CriticalLength as CriticalLength
    from noiserobust.diagnose.critical import critical_length as critical_length
    from noiserobust.diagnose.curvature import Curvature as Curvature
    from noiserobust.diagnose.curvature import hessian as hessian
    from noiserobust.diagnose.equivalent import equivalent_noise as equivalent_noise
    from noiserobust.diagnose.filters import filter_norms as filter_norms
    from noiserobust.diagnose.filters import filter_variation as filter_variation
    from noiserobust.diagnose.gradients import gradient_table as gradient_table
    from noiserobust.diagnose.recorder import Recorder as Recorder
    from noiserobust.diagnose.sensitivity import layer_sensitivity as layer_sensitivity
    from noiserobust.diagnose.sharpness import ascent_sharpness as ascent_sharpness
    from noiserobust.diagnose.sharpness import average_sharpness as average_sharpness
    from noiserobust.diagnose.surface import landscape as landscape

# No name here is that of a module of this package: importing that would put the module in its place.
_HOMES = {
    "average_sharpness": "sharpness",
    "ascent_sharpness": "sharpness",
    "gradient_table": "gradients",
    "critical_length": "critical",
    "CriticalLength": "critical",
    "landscape": "surface",
    "hessian": "curvature",
    "Curvature": "curvature",
    "filter_norms": "filters",
    "filter_variation": "filters",
    "layer_sensitivity": "sensitivity",
    "Recorder": "recorder",
    "equivalent_noise": "equivalent",
    "dom_cost": "cost",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
