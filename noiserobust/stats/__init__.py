"""Statistics of a robustness claim, on NumPy arrays; needs no torch.

Values are given as one sequence over train seeds of arrays over noise draws (chips). Train seeds are the replicates:
intervals are over them unless there is only one.

>>> from noiserobust import stats
>>> [round(end, 1) for end in stats.mean_interval([64.1, 66.0, 65.2])]
[62.7, 67.5]
"""

from noiserobust.stats.compare import Comparison, compare, holm, least_p_sign_flip, sign_flip
from noiserobust.stats.components import Components, noise_std, seed_means, seed_std, variance_components
from noiserobust.stats.curves import curve_area, tolerable_level
from noiserobust.stats.intervals import mean_interval, std_interval, test_set_std
from noiserobust.stats.tails import (
    Estimated,
    chip_yield,
    cvar,
    draws_needed,
    improvement,
    performance_profile,
    quantile,
    share_interval,
)

__all__ = [
    "Comparison",
    "Components",
    "Estimated",
    "chip_yield",
    "compare",
    "curve_area",
    "cvar",
    "draws_needed",
    "holm",
    "improvement",
    "least_p_sign_flip",
    "mean_interval",
    "noise_std",
    "performance_profile",
    "quantile",
    "seed_means",
    "seed_std",
    "share_interval",
    "sign_flip",
    "std_interval",
    "test_set_std",
    "tolerable_level",
    "variance_components",
]
