"""``noiserobust train``."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]

from noiserobust.cli.help import examples
from noiserobust.cli.parsing import DOWNLOAD
from noiserobust.config import TrainConfig
from noiserobust.errors import check_number
from noiserobust.log import quiet


def add_train(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.epilog = examples(
        "noiserobust train --model digits-mlp --data digits --epochs 5 --seeds 0 1 --out runs/robust",
        "noiserobust train --model digits-mlp --data digits --method.name sgd --epochs 5 --seeds 0 1 --out runs/sgd",
        "noiserobust train --model digits-mlp --data digits --method.name rwp --method.noise.level 0.2 \\\n"
        "--epochs 5 --seeds 0 1 --out runs/rwp",
    )
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the settings below")
    parser.add_class_arguments(TrainConfig)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="train seeds, integers >= 0: one training each"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, ...")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="folder for weights and metrics; finished seeds are kept, an unfinished one goes on from its checkpoint",
    )
    parser.add_argument(
        "--resume", action="store_true", help="insist that the folder holds a training of this configuration"
    )
    parser.add_argument("--download", action="store_true", help=DOWNLOAD)
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=5.0, help="longest time between two checkpoints, in minutes, >= 0"
    )


def train(settings: Namespace) -> None:
    """Run it."""
    from noiserobust.diagnose.recorder import Recorder
    from noiserobust.evaluate.forward import pick_device
    from noiserobust.evaluate.heldout import held_out_score
    from noiserobust.train.distributed import process_group
    from noiserobust.train.runs import train_seeds

    names = TrainConfig.__dataclass_fields__
    config = TrainConfig(**{name: settings[name] for name in names})
    minutes = check_number("checkpoint-minutes", settings.checkpoint_minutes, minimum=0)
    with process_group(pick_device(settings.device)) as (ranks, device):
        paths = train_seeds(
            config,
            settings.seeds,
            settings.out,
            make_score=held_out_score,
            make_recorder=Recorder.of,
            device=device,
            ranks=ranks,
            resume=settings.resume,
            download=settings.download,
            checkpoint_seconds=60 * minutes,
            progress=not quiet(),
        )
    if ranks.leads:
        for path in paths:
            print(path)
