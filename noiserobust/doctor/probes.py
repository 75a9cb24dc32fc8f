"""What is tried, each in a process of its own, which runs this file: ``probes.py NAME [--thorough]``.

A probe returns a sentence and numbers, or raises: :class:`State` for what is known to be so, anything else for a fault.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noiserobust.doctor import machine
from noiserobust.doctor.machine import cpu_flags
from noiserobust.doctor.state import Found, State

ANSWER = "noiserobust-doctor:"
"""Before the answer, a line of JSON on standard output."""


def numbers(thorough: bool) -> Found:
    """Try the packages that numbers and tables need."""
    import numpy as np
    import pandas as pd
    import safetensors.torch
    import scipy.stats
    import sklearn.datasets

    import noiserobust as nr

    images = len(sklearn.datasets.load_digits().images)
    draws = nr.Stream(0, "doctor").normal((1000,))
    half = float(scipy.stats.t.ppf(0.975, len(draws) - 1)) * float(np.std(draws)) / len(draws) ** 0.5
    assert abs(float(pd.Series(draws).mean())) < 5 * half
    assert safetensors.torch.save({}) is not None
    return f"NumPy {np.__version__}, pandas {pd.__version__}, SciPy, scikit-learn; digits has {images} images", {}


def torch_cpu(thorough: bool) -> Found:
    """Try torch on the CPU."""
    import torch

    x = torch.randn(256, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((x.float() @ x.float()).double(), x @ x, atol=1e-3)
    capability = torch.backends.cpu.get_cpu_capability()
    found = {"threads": torch.get_num_threads(), "capability": capability}
    return f"torch {torch.__version__}, {capability}, {found['threads']} threads", found


def gpu(thorough: bool) -> Found:
    """Try each GPU."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        mps = torch.backends.mps.is_available()
        also = "; --device mps is there, in fp32" if mps else ""
        raise State("absent", f"torch {torch.__version__} is built for the CPU only{also}")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()
            reason = "none is visible"
        except Exception as error:
            reason = _reason(error)
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason += f"; CUDA_VISIBLE_DEVICES is {hidden!r}" if hidden is not None else ""
        raise State("fails" if shutil.which("nvidia-smi") else "absent", f"torch is built for {built}, but {reason}")
    devices = [_gpu(torch, number) for number in range(torch.cuda.device_count())]
    wrong = [d["name"] for d in devices if not d["right"]]
    template = "{device}: {name}, {memory_gib:g} GiB, compute capability {capability}"
    said = [template.format(**device) for device in devices]
    text = f"{'; '.join(said)}; {built}, cuDNN {torch.backends.cudnn.version()}"
    if wrong:
        raise State("fails", f"products of matrices are wrong on {', '.join(wrong)}; {text}", devices=devices)
    return text, {"devices": devices, "cuda": torch.version.cuda}


def _gpu(torch: Any, number: int) -> dict[str, Any]:
    device = torch.device("cuda", number)
    properties = torch.cuda.get_device_properties(device)
    x = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    product = (x.to(device) @ x.to(device)).cpu()
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "device": str(device),
        "name": properties.name,
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
        "capability": f"{properties.major}.{properties.minor}",
        "processors": properties.multi_processor_count,
        "right": bool(torch.allclose(product, x @ x, atol=0.5)),  # of TF32, if somebody has allowed it
    }


def bf16(thorough: bool) -> Found:
    """Try bfloat16, on the CPU and on the GPU."""
    import torch

    flags = cpu_flags()
    native = sorted(flags & {"avx512_bf16", "avx_ne_convert", "amx_bf16", "bf16"})
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((x.bfloat16() @ x.bfloat16()).float(), x @ x, atol=1.0)
    details: dict[str, Any] = {"cpu_native": bool(native), "cpu_flags": native}
    said = [f"CPU: {'native (' + ', '.join(native) + ')' if native else 'emulated, hardly faster than fp32'}"]
    slow = not native
    if torch.cuda.is_available():
        y = x.to("cuda", torch.bfloat16)
        assert torch.allclose((y @ y).float().cpu(), x @ x, atol=1.0)
        try:
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        except TypeError:  # of a torch that does not tell
            fast = torch.cuda.get_device_capability()[0] >= 8
        said.append(f"GPU: {'native' if fast else 'emulated'}")
        details["gpu_native"], slow = bool(fast), not fast
    if slow:
        raise State("limited", "; ".join(said), **details)
    return "; ".join(said), details


def compiler(thorough: bool) -> Found:
    """Try what torch.compile needs, and itself if there is time."""
    import sysconfig

    names = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    found = next((path for name in names if name and (path := shutil.which(name.split()[0]))), None)
    header = Path(sysconfig.get_path("include"), "Python.h")
    lacking = [] if found else ["no C++ compiler (g++ or clang++)"]
    lacking += [] if header.is_file() else [f"no Python.h in {header.parent} (python3-dev)"]
    if lacking:
        raise State("absent", f"there is {' and '.join(lacking)}")
    details = {"compiler": found}
    if not thorough:
        raise State("untried", f"{found} is there; --thorough compiles something", **details)
    import torch

    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # a result of an earlier day proves nothing
        device = "cuda" if torch.cuda.is_available() else "cpu"
        x = torch.randn(64, device=device)
        assert torch.allclose(torch.compile(lambda t: torch.sin(t) * 2 + 1)(x), torch.sin(x) * 2 + 1, atol=1e-5)
    return f"torch.compile works on {device} with {found}", details


def aihwkit_noise(thorough: bool) -> Found:
    """Try aihwkit's noise models, which are written in Python."""
    _import("aihwkit", "aihwkit")
    import torch
    from aihwkit.inference.noise.pcm import PCMLikeNoiseModel

    noisy = PCMLikeNoiseModel().apply_noise(torch.linspace(-1, 1, 100).reshape(10, 10), 3600.0)
    assert noisy.isfinite().all()
    return "a phase-change memory after an hour", {}


def aihwkit_torch(thorough: bool) -> Found:
    """Try aihwkit's tiles that are written with torch: those of ``evaluate --analog``."""
    _import("aihwkit", "aihwkit")
    from aihwkit.simulator.configs import TorchInferenceRPUConfig

    return _tile(TorchInferenceRPUConfig()), {}


def aihwkit_compiled(thorough: bool) -> Found:
    """Try aihwkit's compiled tiles, which noiserobust does not need."""
    _import("aihwkit", "aihwkit")
    from aihwkit.simulator.configs import InferenceRPUConfig

    try:
        return _tile(InferenceRPUConfig()), {}
    except Exception as error:
        raise State("fails", f"{_reason(error)}; not needed: --analog uses the torch tiles") from error


def _tile(configuration: Any) -> str:
    import torch
    from aihwkit.nn import AnalogLinear

    out = AnalogLinear(4, 3, rpu_config=configuration)(torch.ones(2, 4))
    assert out.shape == (2, 3)
    assert out.isfinite().all()
    return f"a layer on a tile of {type(configuration).__name__}"


def ray(thorough: bool) -> Found:
    """Try Ray, if there is time: a cluster of this machine, and a task."""
    _import("ray", "ray")
    if not thorough:
        raise State("untried", "it is installed; --thorough starts it")
    import ray as r

    # Not in somebody's cluster: a task of ours has nothing to do there.
    r.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        assert r.get(r.remote(lambda: 6 * 7).remote()) == 42
    finally:
        r.shutdown()
    return f"Ray {r.__version__}: a task was done on this machine", {}


def extras(thorough: bool) -> Found:
    """Try what else can be installed, if there is time; else only whether it is."""
    from importlib.util import find_spec

    wanted = {"lightning": "lightning", "transformers": "huggingface", "accelerate": "huggingface"}
    wanted |= {"tensorboard": "tensorboard", "optuna": ""}
    there = [name for name in wanted if find_spec(name)]
    broken = {}
    for name in there if thorough else ():
        try:
            __import__(name)
        except Exception as error:
            broken[name] = _reason(error)
    lacking = [name for name in wanted if name not in there]
    details = {"installed": there, "absent": lacking, "broken": broken}
    if broken:
        raise State("fails", "; ".join(f"{name}: {why}" for name, why in broken.items()), **details)
    if not there:
        raise State("absent", f"none of {', '.join(wanted)}", **details)
    said = f"{', '.join(there)} {'can be imported' if thorough else 'installed'}"
    return said + (f"; not {', '.join(lacking)}" if lacking else ""), details


def plots(thorough: bool) -> Found:
    """Try to draw."""
    import io

    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([0, 1], [1, 0])
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    assert file.getvalue().startswith(b"\x89PNG")
    backend = matplotlib.get_backend()
    return f"matplotlib {matplotlib.__version__}, backend {backend}; figures need none", {"backend": backend}


def workers(thorough: bool) -> Found:
    """Try the processes of ``--executor processes``."""
    from loky.process_executor import ProcessPoolExecutor

    pool = ProcessPoolExecutor(1)
    try:
        assert pool.submit(pow, 2, 10).result() == 1024
    finally:
        pool.shutdown(wait=True, kill_workers=True)
    return "a process was started, and has answered", {}


def data(thorough: bool) -> Found:
    """Try to read the data sets that are known by name."""
    from noiserobust.data.places import data_root
    from noiserobust.data.registry import DATASETS
    from noiserobust.errors import MissingFileError, NoiseRobustError

    there, lacking, broken = {}, [], []
    for name, load in DATASETS.items():
        try:
            there[name] = len(load("test"))
        except MissingFileError:
            lacking.append(name)
        except (NoiseRobustError, OSError) as error:
            broken.append(f"{name}: {_reason(error)}")
    where = str(data_root(None).absolute())
    details = {"folder": where, "test_images": there, "absent": lacking, "broken": broken}
    text = f"{', '.join(there)}; not in {where}: {', '.join(lacking)} (--download)" if lacking else ", ".join(there)
    if broken:
        raise State("limited", f"{'; '.join(broken)}; readable: {text}", **details)
    return text, details


PROBES: dict[str, Callable[[bool], Found]] = {
    "torch": torch_cpu,
    "numbers": numbers,
    "figures": plots,
    "cores and memory": machine.cores,
    "worker processes": workers,
    "GPU": gpu,
    "bf16": bf16,
    "torch.compile": compiler,
    "aihwkit noise": aihwkit_noise,
    "aihwkit torch tiles": aihwkit_torch,
    "aihwkit compiled tiles": aihwkit_compiled,
    "Ray": ray,
    "other extras": extras,
    "data sets": data,
    "disk": machine.disk,
    "temporary files": machine.temporary,
    "file locks": machine.locks,
    "UTF-8": machine.terminal,
}
SLOW = ("Ray", "torch.compile", "other extras")
"""What takes long if it is thorough."""


def _import(package: str, extra: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise State("absent", f"not installed; pip install 'noiserobust[{extra}]'")
    __import__(package)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def answer(name: str, thorough: bool) -> dict[str, Any]:
    """Try one thing, and return how it is with it."""
    try:
        text, details = PROBES[name](thorough)
        return {"state": "works", "text": text, "details": details}
    except State as state:
        return {"state": state.state, "text": str(state), "details": state.details}
    except Exception as error:
        return {"state": "fails", "text": _reason(error), "details": {}}


if __name__ == "__main__":
    # Not from beside this file, nor from the working folder: modules are those that are installed.
    sys.path[:] = [place for place in sys.path if place not in ("", str(Path(__file__).parent))]
    print(f"\n{ANSWER}{json.dumps(answer(sys.argv[1], '--thorough' in sys.argv[2:]))}", flush=True)
