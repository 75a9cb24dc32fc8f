"""All that reads files of others, with valid files to spoil. A new reader is one entry of :data:`READERS`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The tests know how to write valid results, and valid and malformed binary files.
sys.path[:0] = [str(ROOT / "tests" / "report"), str(ROOT / "tests" / "hostile")]

from binary_mutations import BINARY_READERS, files  # noqa: E402
from paper_folders import configuration, make_filters, make_landscape, make_run  # noqa: E402
from report_folders import make_folder, make_rows, make_sensitivity, make_training  # noqa: E402

# What is imported where it is needed is there already when memory is limited and time is taken.
import noiserobust.data.digits  # noqa: E402
import noiserobust.evaluate.files  # noqa: E402
import noiserobust.report.papers.write  # noqa: E402, F401
from noiserobust.cli import main  # noqa: E402
from noiserobust.errors import InvalidValueError  # noqa: E402
from noiserobust.report.published import read_published  # noqa: E402
from noiserobust.results.diagnostics import read_diagnostics  # noqa: E402
from noiserobust.results.filters import read_filters  # noqa: E402
from noiserobust.results.landscapes import read_landscape  # noqa: E402
from noiserobust.results.sensitivity import read_sensitivity  # noqa: E402
from noiserobust.results.trainings import read_trainings  # noqa: E402


class Fault(Exception):
    """The command line did something else than finish or refuse."""


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Args:
        make: writes valid files to an empty folder.
        read: reads them, given the folder, and one that it may write to; raises a NoiseRobustError if it refuses.
        spoil: names of the files that are spoiled, with wildcards.
        share: how many inputs it has in comparison with others.
        binary: whether they are binary files.
    """

    make: Callable[[Path], object]
    read: Callable[[Path, Path], object]
    spoil: tuple[str, ...] = ("*",)
    share: int = 2
    binary: bool = False

    def files(self, folder: Path) -> list[Path]:
        """Return the files to spoil."""
        if self.binary:
            return files(folder)
        return sorted({p for pattern in self.spoil for p in folder.rglob(pattern) if p.is_file()})


def _published(folder: Path) -> None:
    shutil.copy(ROOT / "experiments" / "incorruptible" / "published.csv", folder)


def command(*arguments: object) -> None:
    """Run the command line as a user does; a refusal is an error of ours, as of a function."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(a) for a in arguments])
    said = err.getvalue()
    if status not in (0, 2) or "Traceback" in said:
        raise Fault(f"status {status}: {said}")
    if unseen := [sign for sign in out.getvalue() + said if sign in "\0\x07\x1b\x7f\x9b\u202e"]:
        raise Fault(f"signs that cannot be seen on the terminal: {unseen[:3]!r}")
    if status == 2:
        lines = said.rstrip("\n").splitlines()
        if not lines or not lines[-1].startswith("noiserobust: error: ") or len(lines[-1]) > 3000:
            raise Fault(f"a refusal in other words: {said[:300]!r}")
        raise InvalidValueError(lines[-1])


TRAIN = """\
model: digits-mlp
model_args: {hidden: 8}
data: digits
method:
  name: rwp
  noise: {name: gaussian, level: 0.05, reference: max}
  perturbed_weight: 0.5
  schedule: {name: quadratic, fraction: 0.7}
optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 0.0005}
epochs: 1
batch_size: 128
augment: {crop: 1, flip: false}
clip: {grad_norm: 1.0}
select: {noise: {name: laplace, level: 0.02}, draws: 2}
record: {every: 5, levels: [0.02, 0.05]}
label: mine
"""

SWEEP = """\
base: {model: digits-mlp, model_args: {hidden: 8}, data: digits, epochs: 1}
grid:
  - {method.name: [sgd]}
  - {method.name: rwp, method.noise.level: [0.05, 0.1]}
seeds: [0, 1]
evaluate:
  gaussian: {noise: gaussian, levels: [0, 0.1], draws: 2}
  pcm: {noise: pcm-nandakumar-2019, levels: [1d], draws: 1}
report: {drop: 5, baseline: sgd}
"""

NOISE = "compose:\n  - {noise: gaussian, reference: l2, granularity: tensor}\n  - {noise: stuck-zero, level: 0.01}\n"


def _text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def _read_config(folder: Path, out: Path) -> None:
    """Check a configuration up to the first step: the folder for weights is a file."""
    out.write_text("")
    try:
        command("train", "--config", folder / "train.yaml", "--device", "cpu", "--out", out)
    except InvalidValueError as error:
        if f"Expected to be able to write {out}" not in str(error):
            raise


def _profile(folder: Path) -> None:
    text = (ROOT / "hardware_profiles" / "pcm-hermes-2.yaml").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(text, encoding="utf-8")


def _weights(folder: Path) -> Path:
    from noiserobust.models.registry import build_model
    from noiserobust.models.weights import write_weights

    path = folder / "w.safetensors"
    write_weights(path, build_model("digits-mlp", {"hidden": 8}), {"method": "sgd", "train_seed": "0"})
    return path


def _evaluation(folder: Path, noise: object, level: str, out: Path) -> list[object]:
    chosen = ["--model", "digits-mlp", "--model-args", "hidden=8", "--weights", folder / "w.safetensors"]
    how = ["--data", "digits", "--examples", 16, "--draws", 1, "--device", "cpu"]
    return ["evaluate", *chosen, *how, "--noise", noise, "--levels", level, "--out", out]


def _noise(folder: Path) -> None:
    _weights(folder)
    (folder / "noise.yaml").write_text(NOISE, encoding="utf-8")


def _measurements(folder: Path) -> None:
    lines = ["target_us,measured_us,time_s,device"]
    for target in (2, 6, 10):
        for k in range(10):
            first = target + 0.1 * (k * 7 % 10 - 4.5)
            lines += [f"{target},{first * (t / 20) ** -(0.03 + 0.002 * k):.6g},{t},d{target}-{k}" for t in (20, 600)]
    (folder / "m.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _results(folder: Path, *, finish: bool = True, methods: tuple[str, ...] = ("SGD", "RWP")) -> Path:
    return make_folder(folder, list(make_rows(methods, [0, 1], "gaussian", "sigma", (0.0, 0.1), 3)), finish=finish)


def _parts(folder: Path) -> None:
    rows = list(make_rows(("SGD",), [0, 1], "gaussian", "sigma", (0.0, 0.1), 4))
    for name, part in (("a", rows[::2]), ("b", rows[1::2])):
        make_folder(
            folder / name,
            part,
            finish=name == "a",
            configuration={"weights": [{}, {}], "levels": [0.0, 0.1], "draws": 4},
        )
        manifest = json.loads((folder / name / "manifest.json").read_text(encoding="utf-8"))
        del manifest["configuration"]["until"]
        (folder / name / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _rich(folder: Path) -> None:
    _results(folder / "results")
    make_training(folder / "runs", "SGD")
    make_sensitivity(folder / "layers", {"a.weight": 3.0, "b.weight": 1.0}, ["SGD", "RWP"], wanted=70.0)


def _runs(folder: Path) -> None:
    made = [configuration("SGD", epochs=2), configuration("SAM", "sam", rho=0.2, epochs=2)]
    for one in made:
        make_run(folder / str(one["label"]), one, every=1.0)
    make_landscape(folder / "plane", made, points=3)
    make_filters(folder / "filters", made, number=20)


def _with_old_list(folder: Path) -> None:
    _results(folder / "results")
    (folder / "report").mkdir()
    named = [
        "summary.csv",
        "../results/draws.csv",
        "/tmp/stray.csv",
        "figures/old.svg",
        "..\\stray.csv",
        "figures/../x.png",
    ]
    (folder / "report" / "summary.json").write_text(json.dumps({"files": named, "noises": []}), encoding="utf-8")


def _with_old_figures(folder: Path) -> None:
    _runs(folder / "runs")
    (folder / "out").mkdir()
    entry = {"files": ["figure-5.svg", "../runs/plane/landscape.csv", "figure-../x.png"], "missing": [], "notes": []}
    listed = {"folders": [(folder / "runs").as_posix()], "figures": {"5": entry, "7": entry}}
    (folder / "out" / "figures.json").write_text(json.dumps(listed), encoding="utf-8")


@contextlib.contextmanager
def _at(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _go_on(folder: Path) -> None:
    """Begin an evaluation in a folder, or go on with it: weights are named as from there, wherever it is."""
    with _at(folder):
        command(*_evaluation(Path(), "gaussian", "0.1", Path("out")))


def _begun(folder: Path) -> None:
    _weights(folder)
    _go_on(folder)


def _diagnose(folder: Path) -> None:
    """Measure filters in a folder, or go on with that."""
    weights = ["--model", "digits-mlp", "--model-args", "hidden=8", "--weights", "w.safetensors"]
    with _at(folder):
        command("diagnose", "filters", *weights, "--out", "out")


def _norms(folder: Path) -> None:
    _weights(folder)
    _diagnose(folder)


READERS: dict[str, Reader] = {
    "train --config": Reader(_text("train.yaml", TRAIN), _read_config, share=6),
    "sweep --config": Reader(
        _text("sweep.yaml", SWEEP),
        lambda folder, out: command("sweep", "--config", folder / "sweep.yaml", "--dry-run", "--out", out),
        share=4,
    ),
    "profiles show": Reader(_profile, lambda folder, out: command("profiles", "show", folder / "mine.yaml"), share=6),
    "evaluate --noise": Reader(
        _noise,
        lambda folder, out: command(*_evaluation(folder, folder / "noise.yaml", "0.1", out)),
        ("*.yaml",),
        share=4,
    ),
    "profiles fit": Reader(
        _measurements,
        lambda folder, out: command("profiles", "fit", folder / "m.csv", "--out", out / "fit.yaml"),
        share=4,
    ),
    "compare": Reader(
        _results, lambda folder, out: command("compare", folder), ("draws.csv", "manifest.json"), share=6
    ),
    "compare, interrupted": Reader(
        lambda folder: _results(folder, finish=False),
        lambda folder, out: command("compare", folder, "--format", "markdown"),
        (".draws.journal.csv", "manifest.json"),
        share=3,
    ),
    "merge": Reader(
        _parts,
        lambda folder, out: command("merge", folder / "a", folder / "b", "--out", out),
        ("*draws*.csv", "manifest.json"),
        share=4,
    ),
    "report": Reader(_rich, lambda folder, out: command("report", folder, "--out", out), ("*.csv", "*.json"), share=2),
    "report, again": Reader(
        _with_old_list,
        lambda folder, out: command("report", folder / "results", "--out", folder / "report"),
        ("summary.json",),
        share=1,
    ),
    "read_published": Reader(
        _published, lambda folder, out: read_published([folder / "published.csv"], ["gaussian"]), share=1
    ),
    "figures": Reader(
        _runs,
        lambda folder, out: command("figures", "--from", folder, "--recorded-only", "--only", "7", "--out", out),
        ("*.csv", "*.json"),
        share=2,
    ),
    "figures, again": Reader(
        _with_old_figures,
        lambda folder, out: command(
            *("figures", "--from", folder / "runs", "--recorded-only", "--only", "7", "--out", folder / "out")
        ),
        ("figures.json",),
        share=1,
    ),
    "evaluate, continued": Reader(_begun, lambda folder, out: _go_on(folder), ("draws.csv", "manifest.json"), share=3),
    "diagnose, continued": Reader(_norms, lambda folder, out: _diagnose(folder), ("filters-*.csv", "manifest.json")),
    "read_trainings": Reader(
        lambda folder: make_training(folder, "SGD"),
        lambda folder, out: [(run.sha256, run.passes, run.seconds) for run in read_trainings(folder)],
        share=3,
    ),
    "read_diagnostics": Reader(
        lambda folder: make_run(folder, configuration("SGD", epochs=2), every=1.0),
        lambda folder, out: read_diagnostics(folder / "seed0" / "diagnostics.csv"),
        ("seed0/diagnostics.csv",),
        share=3,
    ),
    "read_sensitivity": Reader(
        lambda folder: make_sensitivity(folder / "s", {"a": 3.0, "b": 1.0}, wanted=70.0),
        lambda folder, out: read_sensitivity(folder / "s"),
        ("*.csv",),
        share=3,
    ),
    "read_landscape": Reader(
        lambda folder: make_landscape(folder / "s", [configuration("SGD")], points=3),
        lambda folder, out: read_landscape(folder / "s"),
        ("*.csv",),
        share=3,
    ),
    "read_filters": Reader(
        lambda folder: make_filters(folder / "s", [configuration("SGD")], number=10),
        lambda folder, out: read_filters(folder / "s"),
        ("*.csv",),
        share=3,
    ),
}


def _binary(name: str) -> Reader:
    write, read = BINARY_READERS[name]
    return Reader(lambda folder: write(folder / name), lambda folder, out: read(folder / name), share=3, binary=True)


READERS |= {name: _binary(name) for name in BINARY_READERS}

OUTPUTS = {
    "report, again": "report",
    "figures, again": "out",
    "evaluate, continued": "out",
    "diagnose, continued": "out",
}
"""Folders among what is read that may be written to."""
