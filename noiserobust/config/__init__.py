"""Settings of a training, as written in YAML or given as ``--dotted.key VALUE``. Needs neither torch nor NumPy."""

from noiserobust.config.method import (
    METHODS,
    SCHEDULES,
    MethodConfig,
    NoiseConfig,
    ScheduleConfig,
)
from noiserobust.config.training import (
    CLIP_GRANULARITIES,
    LR_SCHEDULES,
    OPTIMIZERS,
    PRECISIONS,
    TRAIN_PRECISIONS,
    AugmentConfig,
    AverageConfig,
    ClipConfig,
    OptimizerConfig,
    RecordConfig,
    Scalar,
    SelectConfig,
    TrainConfig,
)

__all__ = [
    "CLIP_GRANULARITIES",
    "LR_SCHEDULES",
    "METHODS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "TRAIN_PRECISIONS",
    "AugmentConfig",
    "AverageConfig",
    "ClipConfig",
    "MethodConfig",
    "NoiseConfig",
    "OptimizerConfig",
    "RecordConfig",
    "Scalar",
    "ScheduleConfig",
    "SelectConfig",
    "TrainConfig",
]
