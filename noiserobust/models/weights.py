"""Weights on disk: read without running anything, fit to a model exactly or not at all, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from noiserobust.errors import InvalidValueError, StateError, did_you_mean
from noiserobust.models.formats import read_pickle, read_safetensors
from noiserobust.results.files import sha256_of, write_atomic
from noiserobust.untrusted import check_expansion, open_file, size_of, version_of

_PICKLES = (".pt", ".pth", ".th")
# Keys under which training scripts put the state dict, in order of preference.
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params"),
    *("module", "params_ema", "model_ema"),
)
# What DistributedDataParallel (and DataParallel) and torch.compile put in front of every name.
_PREFIXES = ("module.", "_orig_mod.")
# All in which each number stands for itself.
_DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64),
}
_MOST_WRAPPERS = 8  # one may contain itself
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Weights:
    """The tensors of one weights file.

    Args:
        path: the file.
        state: name -> tensor on the CPU, without wrapping keys and prefixes.
        metadata: text stored beside the tensors (safetensors only; empty otherwise).
        sha256: SHA-256 of the file's content, hexadecimal.
    """

    path: Path
    state: dict[str, Tensor] = field(repr=False)
    metadata: dict[str, str]
    sha256: str


def read_weights(path: str | Path) -> Weights:
    """Read the weights of one model.

    Keys that wrap the state dict (``state_dict``, ``model``, ...) and the prefixes ``module.`` and ``_orig_mod.`` are
    taken off. Nothing in the file is run: a pickle that would need that is refused.

    Args:
        path: ``.safetensors``, or ``.pt``, ``.pth``, ``.th`` as written by ``torch.save``.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is a folder or a pipe, empty, damaged, of another kind, carries code, changes while it
            is read, holds no tensors, or holds sparse, complex, quantised or non-finite ones, or ones without values.
    """
    path = Path(path)
    with open_file(path, "weights") as file:
        version, size = version_of(file), size_of(file)
        suffix = path.suffix.lower()
        if suffix not in (".safetensors", *_PICKLES):
            raise InvalidValueError(
                f"Expected weights {path} to end in .safetensors, {', '.join(_PICKLES)}, but got "
                f"{suffix or 'no ending'!r}"
            )
        if not size:
            raise InvalidValueError(f"Expected weights {path} to hold tensors, but the file is empty (0 bytes)")
        try:
            digest = sha256_of(file)
            content, metadata = read_safetensors(path) if suffix == ".safetensors" else (read_pickle(file, path), {})
            if version_of(path) != version:
                raise InvalidValueError(
                    f"Expected weights {path} to stay as they are while they are read, but they changed"
                )
        except OSError as error:
            raise InvalidValueError(f"Expected weights {path} to be readable, but got: {error.strerror}") from None
    state = _unwrapped(content, path)
    tensors = (value for value in state.values() if isinstance(value, Tensor))
    # A tensor may use one number of a file many times over.
    check_expansion(sum(tensor.numel() * tensor.itemsize for tensor in tensors), size, f"weights {path}")
    return Weights(path, _without_prefixes(_checked(state, str(path))), metadata, digest)


def fit_weights(model: nn.Module, weights: Weights) -> None:
    """Load weights into a model; afterwards its state is exactly theirs.

    Names and shapes have to agree. Two absences are harmless: of ``num_batches_tracked`` counters (files from before
    PyTorch 0.4.1), which then keep the model's value, and of a second name of a tensor that the model uses twice.
    Floating-point tensors take the model's precision.

    Args:
        model: changed in place; left alone if there is an error.
        weights: what :func:`read_weights` returned.

    Raises:
        InvalidValueError: if names, shapes or kinds of dtype differ, a value does not fit the model's dtype, or two
            names of one tensor come with different values.
        StateError: if the model has lazy parameters, whose shapes are not known yet.
    """
    everything = model.state_dict()
    # A module may keep extra state that is no tensor; it stays as it is.
    own = {name: tensor for name, tensor in everything.items() if isinstance(tensor, Tensor)}
    lazy = [name for name, tensor in own.items() if is_lazy(tensor)]
    if lazy:
        raise StateError(f"Expected the model's parameters to have shapes, but `{lazy[0]}` is not initialised yet")
    state, path = weights.state, weights.path
    twins: dict[str, str] = {}
    for first, second in _tied(own):
        if first in state and second in state and not torch.equal(state[first], state[second]):
            raise InvalidValueError(
                f"Expected `{first}` and `{second}` in {path} to be equal, because the model uses one tensor for "
                "both, but they differ"
            )
        twins |= {first: second, second: first}
    missing = [
        name
        for name in own
        if name not in state and twins.get(name) not in state and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"`{name}`: file has {tuple(state[name].shape)}, model has {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems = [
        *_counted("missing", (f"`{name}`{did_you_mean(name, unexpected)}" for name in missing), len(missing)),
        *_counted("unexpected", (f"`{name}`" for name in unexpected), len(unexpected)),
        *_counted("of another shape", shapes, len(shapes)),
    ]
    if problems:
        raise InvalidValueError(
            f"Expected weights {path} to fit the model ({len(own)} tensors), but of its {len(state)} tensors "
            f"{'; '.join(problems)}"
        )
    cast = {name: _cast(name, state, tensor, path, twins) for name, tensor in own.items()}
    model.load_state_dict({**everything, **cast})


def write_weights(
    path: str | Path, model_or_state: nn.Module | Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file, atomically and durably. Equal content gives equal bytes.

    A tensor with several names is written once for each, so that :func:`fit_weights` finds every name.

    Args:
        path: file ending in ``.safetensors``.
        model_or_state: a model, or its state dict; on any device and in any memory layout.
        metadata: text to store beside the tensors.

    Raises:
        InvalidValueError: if the path ends otherwise, metadata is not text, or a tensor could not be read back:
            non-finite, sparse, complex or quantised.
        OutputError: if the file cannot be written; what stood there before is then untouched.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise InvalidValueError(f"Expected `path` to end in .safetensors, but got {str(path)!r}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidValueError(f"Expected `metadata` to map text to text, but got {key!r}: {value!r}")
    state = model_or_state.state_dict() if isinstance(model_or_state, nn.Module) else model_or_state
    dense = _without_prefixes(_checked(state, f"for {path}"))
    # Clones, because safetensors refuses tensors that share memory.
    own = {name: t.cpu().clone(memory_format=torch.contiguous_format) for name, t in dense.items()}
    write_atomic(path, _canonical(safetensors.torch.save(own, dict(metadata))))


def _unwrapped(content: object, path: Path) -> Mapping[object, object]:
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(content, Mapping):
            raise InvalidValueError(
                f"Expected weights {path} to hold a mapping from names to tensors, but got {type(content).__name__}"
            )
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            return content
        content = content[wrapper]
    raise InvalidValueError(f"Expected weights {path} to be wrapped in at most {_MOST_WRAPPERS} mappings, but got more")


def _checked(state: Mapping[object, object] | Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    if not any(isinstance(value, Tensor) for value in state.values()):
        found = f" (keys: {', '.join(map(_named, islice(state, 5)))})" if state else ""
        raise InvalidValueError(f"Expected weights {where} to hold tensors, but there are none{found}")
    tensors = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InvalidValueError(
                f"Expected weights {where} to map names to tensors only, but {_named(name)} is of type "
                f"{type(value).__name__}"
            )
        if kind := _unfit(value):
            raise InvalidValueError(
                f"Expected weights {where} to be dense real tensors, but `{name}` is {kind} ({value.dtype})"
            )
        if value.is_floating_point() and not _finite(value):
            raise InvalidValueError(f"Expected weights {where} to be finite, but `{name}` holds NaN or infinity")
        tensors[name] = value.detach()
    return tensors


def _named(name: object) -> str:
    """Return a key as errors show it, however large it is."""
    return repr(name) if isinstance(name, str) or (isinstance(name, int) and abs(name) < 2**63) else type(name).__name__


def _unfit(tensor: Tensor) -> str | None:
    """Return what a tensor is in place of numbers in memory, or None."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_complex():
        return "complex"
    if tensor.is_quantized:
        return "quantised"
    if tensor.dtype not in _DTYPES:
        return "of a packed type"
    try:
        empty = tensor.is_meta or (tensor.numel() > 0 and not tensor.data_ptr())
    except RuntimeError:  # a subclass's tensor that only stands for others
        empty = True
    return "without values" if empty else None


def _finite(tensor: Tensor) -> bool:
    # isfinite is not there for the 8-bit floats.
    return bool(torch.isfinite(tensor if tensor.itemsize > 1 else tensor.float()).all())


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _tied(own: Mapping[str, Tensor]) -> Iterable[tuple[str, str]]:
    """Yield pairs of names of one tensor: each later name with the first one."""
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in own.items():
        if tensor.numel() and tensor.device.type != "meta":
            key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
            if first.setdefault(key, name) != name:
                yield first[key], name


def _cast(name: str, state: Mapping[str, Tensor], target: Tensor, path: Path, twins: Mapping[str, str]) -> Tensor:
    value = state.get(name, state.get(twins.get(name, ""), target))
    if value.is_floating_point() != target.is_floating_point():
        raise InvalidValueError(
            f"Expected `{name}` in {path} to be {target.dtype} like the model's, but got {value.dtype}"
        )
    cast = value.to(target.dtype)
    if not (_finite(cast) if cast.is_floating_point() else torch.equal(cast.to(value.dtype), value)):
        raise InvalidValueError(
            f"Expected `{name}` in {path} to fit the model's {target.dtype}, but it holds values outside its range"
        )
    return cast


def _counted(kind: str, items: Iterable[str], count: int) -> list[str]:
    more = f", and {count - _SHOWN} more" if count > _SHOWN else ""
    return (
        [f"{count} {'is' if count == 1 else 'are'} {kind}: {', '.join(islice(items, _SHOWN))}{more}"] if count else []
    )


def _canonical(content: bytes) -> bytes:
    # safetensors writes metadata in the random order of a hash map; sort it, so that equal weights have equal hashes.
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
