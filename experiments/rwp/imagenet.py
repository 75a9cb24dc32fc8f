"""Table 5 of the RWP paper: ImageNet, in a loop of its own, as its images do not fit into memory.

    torchrun --nproc-per-node 2 experiments/rwp/imagenet.py --data imagenet --model torchvision.models:resnet18 \
        --method rwp --out runs/imagenet/resnet18-rwp

``imagenet/train`` and ``imagenet/val`` hold a folder for each class. SGD 0.1, momentum 0.9, weight decay 1e-4, batch
256, 90 epochs with a cosine schedule; SAM with rho 0.05 and m = 128, RWP with gamma 0.005, alpha 0.5 and a batch for
each pass; with several processes half of them compute its clean gradient and half the perturbed one, at the same time.
The same command goes on after an interruption, from the last epoch. Beside ``epochs.csv`` it leaves
``last.safetensors``, for ``noiserobust evaluate --data imagefolder:imagenet@size=224,resize=256 --normalize imagenet``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from images import Batches, Images, Key
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader

import noiserobust as nr
from noiserobust.data.normalize import parse_normalize
from noiserobust.errors import InvalidValueError, check_integer
from noiserobust.models.weights import write_weights
from noiserobust.results.files import write_atomic
from noiserobust.results.manifest import environment
from noiserobust.results.store import ResultFolder
from noiserobust.results.trainings import configuration_sha256
from noiserobust.train.checkpoint import CHECKPOINT_FILE, read_checkpoint, write_checkpoint
from noiserobust.train.distributed import Ranks, process_group
from noiserobust.train.method import Method

RHO, GAMMA, ALPHA = 0.05, 0.005, 0.5
METHODS: dict[str, Callable[[], Method]] = {
    "sgd": nr.Unperturbed,
    "sam": lambda: nr.SAM(RHO, per_micro_batch=True),
    "rwp": lambda: nr.RWP(nr.GaussianNoise(GAMMA, reference="l2"), perturbed_weight=1 - ALPHA),
}
"""Alpha is the share of the clean gradient."""
EPOCHS_FILE, LAST_FILE = "epochs.csv", "last.safetensors"


class Training:
    """One network on its way.

    Args:
        args: of the command line.
        ranks: which of several processes this is.
        device: of this process.
    """

    def __init__(self, args: argparse.Namespace, ranks: Ranks, device: torch.device) -> None:
        self.args, self.ranks, self.device = args, ranks, device
        self.split = args.method == "rwp" and ranks.world > 1  # a process takes one of the two passes
        self.share, self.shares = (ranks.rank // 2, ranks.world // 2) if self.split else (ranks.rank, ranks.world)
        self.stream = nr.Stream(0, "imagenet", args.seed)
        self.normalize = parse_normalize("imagenet")
        self.images = Images(args.data / "train", args.size)
        self.test = Images(args.data / "val", args.size)
        self._check()
        with self.stream.child("initialisation").as_torch_default():
            self.model = nr.build_model(args.model, {"num_classes": self.images.classes})
        self.model.to(device, memory_format=torch.channels_last)
        self.network = ranks.wrap(self.model)
        steps = args.epochs * (len(self.images) // args.batch)
        self.optimizer = nr.PerturbedOptimizer(
            torch.optim.SGD(self.model.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4),
            METHODS[args.method](),
            self.network,
            split_ranks=self.split,
            train_seed=args.seed,
        )
        self.schedule = CosineAnnealingLR(self.optimizer, T_max=steps)
        self.rows: list[dict[str, Any]] = []

    def _check(self) -> None:
        args = self.args
        check_integer("--epochs", args.epochs, minimum=1)
        check_integer("--together", args.together, minimum=1)
        if self.test.classes != self.images.classes:
            raise InvalidValueError(
                f"Expected train and val to have as many classes, but got {self.images.classes} and {self.test.classes}"
            )
        if not 0 < args.batch <= len(self.images):
            raise InvalidValueError(f"Expected --batch to be from 1 to {len(self.images)} images, but got {args.batch}")
        if args.batch % self.shares:
            raise InvalidValueError(f"Expected --batch to be a multiple of {self.shares} shares, but got {args.batch}")
        if args.method == "sam" and (args.batch // self.shares) % args.together:
            raise InvalidValueError(
                f"Expected the images of a process to be a multiple of --together {args.together} with SAM, but got "
                f"{args.batch // self.shares}: --batch {args.batch} for {self.shares} processes"
            )

    def finish(self) -> None:
        """Train from wherever it was left to the end."""
        path = self.args.out / CHECKPOINT_FILE
        if path.is_file():
            self.load(read_checkpoint(path))
        for epoch in range(len(self.rows) + 1, self.args.epochs + 1):
            start = time.perf_counter()
            loss = self.train(self.stream.child(epoch))
            top1, top5 = self.score()
            seconds = round(time.perf_counter() - start, 1)
            self.rows.append({"epoch": epoch, "loss": loss, "top1": top1, "top5": top5, "seconds": seconds})
            if self.ranks.leads:
                print(self.rows[-1], flush=True)
                write_atomic(self.args.out / EPOCHS_FILE, pd.DataFrame(self.rows).to_csv(index=False))
                write_checkpoint(path, self.state())
            self.ranks.wait()

    def state(self) -> dict[str, Any]:
        """Return what an interrupted training needs to go on."""
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule}
        return {"trainer": {name: part.state_dict() for name, part in parts.items()}, "epochs": self.rows}

    def load(self, state: dict[str, Any]) -> None:
        """Be where the training was of which this is the state."""
        self.model.load_state_dict(state["trainer"]["model"])
        self.optimizer.load_state_dict(state["trainer"]["optimizer"])
        self.schedule.load_state_dict(state["trainer"]["schedule"])
        self.rows = state["epochs"]

    def train(self, stream: nr.Stream) -> float:
        """Train for an epoch and return its mean loss: the clean one, or with split passes the mean of both."""
        self.network.train()
        noisy = stream.child("perturbed")  # each pass of RWP has a batch of its own
        streams = [stream, noisy] if self.args.method == "rwp" else [stream]
        if self.split:  # a process takes one of the passes
            streams = [streams[self.ranks.rank % 2]]
        total, steps = torch.zeros((), device=self.device), 0
        for batches in zip(*(self.batches(s) for s in streams), strict=True):
            loss = self.optimizer.step(*(self.closures(x, y) for x, y in batches))
            assert loss is not None
            total += loss.detach()
            self.schedule.step()
            steps += 1
        return float(self.ranks.sum(total)) / steps / self.ranks.world

    def batches(self, stream: nr.Stream) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's share of the batches of an epoch."""
        return self.load_images(
            self.images, Batches(len(self.images), self.args.batch, stream, self.share, self.shares)
        )

    def load_images(self, images: Images, batches: Batches | list[list[Key]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images and their labels."""
        loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=self.args.workers,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # by default it would draw from the global one
        )
        for x, y in loader:
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            yield self.normalize(x).to(memory_format=torch.channels_last), y

    def closures(self, x: Tensor, y: Tensor) -> list[Callable[[], Tensor]]:
        """Return what the optimizer calls for a batch: with SAM one closure each ``together`` images."""
        size = self.args.together if self.args.method == "sam" else len(x)
        return [self.closure(*part) for part in zip(x.split(size), y.split(size), strict=True)]

    def closure(self, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            with self.autocast():
                loss = cross_entropy(self.network(x), y)
            loss.backward()
            return loss

        return closure

    def autocast(self) -> Any:
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    @torch.no_grad()
    def score(self) -> tuple[float, float]:
        """Return top-1 and top-5 accuracy on the validation images, in percent."""
        self.model.eval()
        own: list[Key] = [(i, None) for i in range(self.ranks.rank, len(self.test), self.ranks.world)]
        size = self.args.batch
        hits = torch.zeros(2, dtype=torch.int64, device=self.device)
        for x, y in self.load_images(self.test, [own[i : i + size] for i in range(0, len(own), size)]):
            with self.autocast():
                scores = self.model(x)
            found = scores.topk(min(5, scores.shape[1])).indices == y[:, None]
            hits += torch.stack([found[:, 0].sum(), found.sum()])
        top1, top5 = (100 * self.ranks.sum(hits) / len(self.test)).tolist()
        return top1, top5


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train on ImageNet as in table 5 of the RWP paper.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/<class>/* and val/<class>/*")
    parser.add_argument("--model", default="torchvision.models:resnet18", help="name, or module:callable")
    parser.add_argument("--method", choices=METHODS, default="rwp")
    parser.add_argument("--seed", type=int, default=0, help="train seed")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch", type=int, default=256, help="images of a step, of all processes together")
    parser.add_argument(
        "--together", type=int, default=128, help="m of m-sharpness: images that ascend together with SAM"
    )
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of a process, for decoding")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with process_group(device) as (ranks, device):
        training = Training(args, ranks, device)
        own = {k: v for k, v in vars(args).items() if k not in ("out", "workers", "data")}
        own |= {"processes": ranks.world, "images": len(training.images)}
        where = environment({"device": str(device)})
        with ResultFolder(args.out, "training", own, where) if ranks.leads else nullcontext():
            training.finish()
            if ranks.leads:
                said = {"method": args.method, "model": args.model, "normalize": str(training.normalize)}
                said |= {"train_seed": str(args.seed), "training_sha256": configuration_sha256(own)}
                write_weights(args.out / LAST_FILE, training.model, said)


if __name__ == "__main__":
    main()
