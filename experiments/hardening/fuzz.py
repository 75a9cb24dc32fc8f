"""Coverage-guided fuzzing of a reader: whatever the bytes, it reads them or raises a NoiseRobustError.

    python experiments/hardening/fuzz.py --target profile --seconds 60

Needs Atheris (``pip install noiserobust[fuzz]``). Inputs that end otherwise are left in a temporary folder, which is
named, and can be given as ``--input FILE``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

# What torch and pandas do is not looked at: only ours and the parser of YAML.
import pandas  # noqa: F401
import torch

with atheris.instrument_imports(include=["noiserobust", "yaml"]):
    import noiserobust as nr
    from noiserobust.cli.parsing import checked_settings
    from noiserobust.cli.sweep import read as read_sweep
    from noiserobust.config import TrainConfig
    from noiserobust.errors import InvalidValueError, NoiseRobustError
    from noiserobust.noise.measurements import read_measurements
    from noiserobust.noise.profiles import load_profile
    from noiserobust.noise.registry import build_noise, noise_from_config
    from noiserobust.report.gather import gather
    from noiserobust.results.diagnostics import read_diagnostics
    from noiserobust.results.filters import read_filters
    from noiserobust.results.landscapes import read_landscape
    from noiserobust.results.merge import merge_folders
    from noiserobust.results.sensitivity import read_sensitivity
    from noiserobust.results.store import DrawStore, known, read_rows
    from noiserobust.results.trainings import read_trainings
    from noiserobust.yamlfile import read_settings

import contextlib

from readers import NOISE, SWEEP, TRAIN
from readers import READERS as VALID


def _made(valid: str) -> Path:
    """Return a folder with valid files for a reader."""
    base = Path(tempfile.mkdtemp(prefix="fuzz-valid"))
    VALID[valid].make(base)
    return base


_said = json.loads((_made("compare") / "manifest.json").read_text(encoding="utf-8"))

Target = tuple[Callable[[bytes, Path], object], list[bytes]]


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(folder / name)

    return run


def _one_of(valid: str, names: list[str], read: Callable[[Path], object]) -> Target:
    """Replace one file of a folder; the first byte says which."""
    base = _made(valid)
    contents = {name: (base / name).read_bytes() for name in names}

    def run(data: bytes, folder: Path) -> object:
        spoilt = names[data[0] % len(names)] if data else ""
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data[1:] if name == spoilt else content)
        return read(folder)

    return run, [bytes([i]) + contents[name] for i, name in enumerate(names)]


def _config(path: Path) -> None:
    config = checked_settings(TrainConfig, read_settings(path))
    noise_from_config(config.selection_noise)
    noise_from_config(config.method.noise)


def _sweep(path: Path) -> None:
    read_sweep(path).describe()


def _perturbed(noise: nr.Noise) -> None:
    """A noise that was read has to be usable."""
    noise.perturb(torch.ones(2, 3), nr.Stream(0, "fuzz"))
    noise.describe()


def _profile(path: Path) -> None:
    profile = load_profile(path)
    profile.content()
    hash(profile)


def _results(folder: Path) -> None:
    rows = list(read_rows(folder))
    known(folder, "settled")
    gathered = gather([folder])
    if len(rows) and set(gathered.methods) != {row["method"] for row in rows}:
        raise AssertionError("methods were lost")


def _merged(folder: Path) -> None:
    out = folder / "merged"
    try:
        merge_folders([folder / "a", folder / "b"], out)
    finally:
        for path in sorted(out.rglob("*"), reverse=True) if out.exists() else ():
            path.unlink()


def _continued(folder: Path) -> None:
    """Go on with a folder as the evaluation would that has begun it."""
    with DrawStore(folder, _said["configuration"], _said["environment"]) as store:
        store.remember("settled", dict)


def _tables(folder: Path) -> None:
    readers = [
        lambda: read_diagnostics(folder / "SGD" / "seed0" / "diagnostics.csv"),
        lambda: read_landscape(folder / "plane"),
        lambda: read_filters(folder / "filters"),
        lambda: [(r.passes, r.seconds, r.sha256) for r in read_trainings(folder / "SGD")],
    ]
    errors = []
    for read in readers:
        try:
            read()
        except NoiseRobustError as error:
            errors.append(error)
    if len(errors) > 1:
        raise AssertionError("one file was spoilt, and two were refused")
    if errors:
        raise InvalidValueError(str(errors[0]))


def targets() -> dict[str, Callable[[], Target]]:
    """Return what can be fuzzed, by name: how bytes are read, and valid ones to begin with."""
    devices = Path(__file__).parents[2] / "hardware_profiles"
    profiles = [path.read_bytes() for path in sorted(devices.glob("*.yaml"))]
    noises = [
        NOISE.encode(),
        b"noise: gaussian\nreference: l2\nlevel: 0.1\n",
        b"noise: pcm-hermes-2\nlevel: 86400\ngranularity: tile\n",
    ]
    draws = ["draws.csv", "manifest.json"]
    tables = ["SGD/seed0/diagnostics.csv", "plane/landscape.csv", "filters/filters.csv", "SGD/seed0/metrics.csv"]
    return {
        "profile": lambda: (_file("mine.yaml", _profile), profiles),
        "config": lambda: (_file("train.yaml", _config), [TRAIN.encode(), b"model: digits-mlp\ndata: digits\n"]),
        "sweep": lambda: (_file("sweep.yaml", _sweep), [SWEEP.encode()]),
        "noise": lambda: (_file("noise.yaml", lambda path: _perturbed(build_noise(str(path)))), noises),
        "results": lambda: _one_of("compare", draws, _results),
        "journal": lambda: _one_of("compare, interrupted", [".draws.journal.csv", "manifest.json"], _results),
        "merge": lambda: _one_of(
            "merge", ["a/draws.csv", "a/manifest.json", "b/.draws.journal.csv", "b/manifest.json"], _merged
        ),
        "continued": lambda: _one_of("compare", draws, _continued),
        "tables": lambda: _one_of("figures", [*tables, "SGD/manifest.json"], _tables),
        "sensitivity": lambda: _one_of(
            "read_sensitivity", ["s/sensitivity.csv", "s/digital.csv"], lambda f: read_sensitivity(f / "s")
        ),
        "measurements": lambda: (
            _file("m.csv", read_measurements),
            [b"target_us,measured_us,time_s,device\n1,2,20,a\n2,3,1h,b\n"],
        ),
    }


def main() -> None:
    """Run it; the process ends with the fuzzer."""
    found = targets()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, choices=sorted(found))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path, help="read this input only")
    chosen = parser.parse_args()
    run, valid = found[chosen.target]()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-files"))
    kept = Path(tempfile.mkdtemp(prefix=f"fuzz-{chosen.target}-"))
    if chosen.input:
        run(chosen.input.read_bytes(), folder)
        return
    for content in valid:  # what is refused to begin with would teach nothing
        run(content, folder)
    corpus = kept / "corpus"
    corpus.mkdir()
    for number, content in enumerate(valid):
        (corpus / f"valid{number}").write_bytes(content)

    def once(data: bytes) -> None:
        with contextlib.suppress(NoiseRobustError):
            run(data, folder)

    print(f"inputs that end in another error: {kept}", flush=True)
    limits = [
        f"-max_total_time={chosen.seconds}",
        "-timeout=30",
        "-rss_limit_mb=6000",
        "-max_len=20000",
        "-len_control=0",
    ]
    atheris.Setup([sys.argv[0], f"-artifact_prefix={kept}/", f"-seed={chosen.seed}", *limits, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
