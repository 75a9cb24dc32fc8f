"""The two formats of weights files, parsed without running anything that they hold."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from noiserobust.errors import InvalidValueError
from noiserobust.pickles import check_pickle
from noiserobust.untrusted import check_expansion, size_of

_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5  # at the beginning of a file of PyTorch before 1.6: magic number, version, system, object, storages


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        InvalidValueError: if it is damaged or not in this format.
    """
    # Any exception at all means damage: the parser's own, or one of torch's about a header that makes no sense.
    try:
        with safe_open(path, framework="pt") as file:
            # Copies: mapped tensors would change with the file, and end the program if it gets shorter.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - it is no mapping
            metadata = dict(file.metadata() or {})
    except Exception as error:
        raise InvalidValueError(f"Expected weights {path} to be a whole safetensors file, but got: {error}") from error
    return tensors, metadata


def read_pickle(file: BinaryIO, path: Path) -> Any:
    """Return what ``torch.save`` wrote, if it consists of tensors, containers, numbers and text.

    Args:
        file: opened to be read.
        path: of the file, for errors.

    Raises:
        InvalidValueError: if it is damaged, not in this format, or needs code to be run.
    """
    _check_zip(file, path)
    try:
        _check_pickles(file)
        file.seek(0)
        with warnings.catch_warnings():
            # About pickle protocols and old storage types; what cannot be read is an error anyway.
            warnings.simplefilter("ignore")
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        if "TorchScript" in str(error):
            raise InvalidValueError(
                f"Expected weights {path} to hold a state dict, but it is a TorchScript program; refused. Save "
                "`model.state_dict()` instead"
            ) from None
        code = _carried_code(file, str(error))
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


def _is_zip(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(len(_ZIP)) == _ZIP


def _check_zip(file: BinaryIO, path: Path) -> None:
    # torch does not compare the checksums it writes, so damage inside a tensor would pass unnoticed.
    if not _is_zip(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            names = [record.filename for record in records]
            if len(set(names)) < len(names):
                raise ValueError("two records have one name")
            check_expansion(sum(record.file_size for record in records), size_of(file), f"weights {path}")
            damaged = archive.testzip()
    except InvalidValueError:
        raise
    except Exception as error:
        raise InvalidValueError(
            f"Expected weights {path} to be a whole file written by torch.save, but it is truncated or damaged: {error}"
        ) from error
    if damaged is not None:
        raise InvalidValueError(
            f"Expected weights {path} to be undamaged, but the checksum of its record {damaged!r} is wrong"
        )


def _check_pickles(file: BinaryIO) -> None:
    if _is_zip(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    check_pickle(archive.read(name))
        return
    file.seek(0)
    for _ in range(_LEGACY_PICKLES):
        if file.tell() < size_of(file):
            check_pickle(file)


def _carried_code(file: BinaryIO, message: str) -> str | None:
    """Return the name of the code that a refused pickle refers to, ``"a Python object"``, or None if it has none."""
    if named := re.search(r"GLOBAL ([\w.]+)", message):
        return named[1]
    # torch gives up at the first instruction of newer pickle protocols, before any name; pickletools only reads.
    try:
        data: BinaryIO | bytes = file
        if _is_zip(file):
            with zipfile.ZipFile(file) as archive:
                data = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
        file.seek(0)
        instructions = [(opcode.name, str(argument)) for opcode, argument, _ in pickletools.genops(data)]
    except Exception:
        return None
    for name, argument in instructions:
        # torch and containers are named in every file that it wrote itself.
        if name in ("STACK_GLOBAL", "INST") or (
            name == "GLOBAL" and not argument.startswith(("torch", "collections "))
        ):
            return "a Python object"
    return None
