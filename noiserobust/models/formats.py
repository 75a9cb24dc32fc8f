"""The two formats of weights files, parsed without running anything that they hold."""

from __future__ import annotations

import io
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from noiserobust.errors import InvalidValueError


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors, mapped and not read, and the metadata of a safetensors file.

    Raises:
        InvalidValueError: if it is damaged or not in this format.
    """
    # Any exception at all means damage: the parser's own, or one of torch's about a header that makes no sense.
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = dict(file.metadata() or {})
    except Exception as error:
        raise InvalidValueError(f"Expected weights {path} to be a whole safetensors file, but got: {error}") from error
    return tensors, metadata


def read_pickle(data: bytes, path: Path) -> Any:
    """Return what ``torch.save`` wrote, if it consists of tensors, containers, numbers and text.

    Raises:
        InvalidValueError: if it is damaged, not in this format, or needs code to be run.
    """
    _check_zip(data, path)
    try:
        with warnings.catch_warnings():
            # About pickle protocols and old storage types; what cannot be read is an error anyway.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        if "TorchScript" in str(error):
            raise InvalidValueError(
                f"Expected weights {path} to hold a state dict, but it is a TorchScript program; refused. Save "
                "`model.state_dict()` instead"
            ) from None
        code = _carried_code(data, str(error))
        if code is not None:
            raise InvalidValueError(
                f"Expected weights {path} to hold tensors only, but it carries Python code ({code}) that loading would "
                "have to run; refused. Save `model.state_dict()` instead, or convert it to .safetensors where it is "
                "trusted"
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InvalidValueError(
            f"Expected weights {path} to be a whole file written by torch.save, but reading it failed: {reason}"
        ) from error


def _check_zip(data: bytes, path: Path) -> None:
    # torch does not compare the checksums it writes, so damage inside a tensor would pass unnoticed.
    if data[:4] != b"PK\x03\x04":
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise InvalidValueError(
            f"Expected weights {path} to be a whole file written by torch.save, but it is truncated or damaged: {error}"
        ) from error
    if damaged is not None:
        raise InvalidValueError(
            f"Expected weights {path} to be undamaged, but the checksum of its record {damaged!r} is wrong"
        )


def _carried_code(data: bytes, message: str) -> str | None:
    """Return the name of the code that a refused pickle refers to, ``"a Python object"``, or None if it has none."""
    if named := re.search(r"GLOBAL ([\w.]+)", message):
        return named[1]
    # torch gives up at the first instruction of newer pickle protocols, before any name; pickletools only reads.
    try:
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
        instructions = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    except Exception:
        return None
    return "a Python object" if instructions & {"GLOBAL", "STACK_GLOBAL", "INST"} else None
