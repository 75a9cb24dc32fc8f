"""Weights and checkpoints from strangers: nothing in them is run, and nothing of them is believed."""

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from noiserobust import untrusted
from noiserobust.errors import InvalidValueError
from noiserobust.models import weights
from noiserobust.models.weights import read_weights, write_weights
from noiserobust.train.checkpoint import read_checkpoint


class Call:
    """What unpickles as the result of a call."""

    def __init__(self, function, *arguments):
        self.made_of = function, arguments

    def __reduce__(self):
        return self.made_of


def payloads(trace):
    """Return calls each of which writes the file ``trace`` when it is unpickled by Python."""
    write = f"open({str(trace)!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch {trace}"),
        "eval": Call(eval, write),
        "exec": Call(exec, write),
        "open": Call(open, str(trace), "w"),
        "numpy": Call(np.ndarray.tofile, np.zeros(1), str(trace)),
        "torch-save": Call(torch.save, {}, str(trace)),
        "map": Call(list, Call(map, eval, [write])),
    }


def zipped(program):
    """Return what torch.save would write, with another pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def legacy(program):
    """Return what PyTorch before 1.6 would write, with another pickle."""
    head = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in head) + program + pickle.dumps([], 2)


def tarred(program):
    """Return what PyTorch before 0.1.10 would write, with another pickle."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in (("storages", pickle.dumps(0)), ("tensors", pickle.dumps(0)), ("pickle", program)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [bytes, zipped, legacy, tarred])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_no_payload_runs(untouched, pack, protocol):
    trace = untouched / "it_ran"
    for name, call in payloads(trace).items():
        for content in ({"state_dict": {"w": call}}, {call: 1} if name == "system" else [call]):
            file = untouched / "w.pt"
            file.write_bytes(pack(pickle.dumps(content, protocol)))
            for read in (read_weights, read_checkpoint):
                with pytest.raises(InvalidValueError, match=r"^Expected"):
                    read(file)
            assert [p.name for p in untouched.iterdir()] == ["w.pt"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_payloads_do_harm_where_pickles_are_run(tmp_path):
    for call in payloads(tmp_path / "it_ran").values():
        made = pickle.loads(pickle.dumps(call))
        if isinstance(made, io.IOBase):
            made.close()
        (tmp_path / "it_ran").unlink()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch it_ran'\ntR.",
        b"(S'touch it_ran'\nios\nsystem\n.",
        b"cbuiltins\ngetattr\n(cos\npath\nS'os'\ntR(S'system'\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch it_ran\x85R.",
        b"\x80\x02ctorch\nos.system\nX\x0c\x00\x00\x00touch it_ran\x85R.",
        b"\x80\x02ctorch.serialization\nos.system\nX\x0c\x00\x00\x00touch it_ran\x85R.",
        b"\x80\x02ctorch.hub\nload\n(X\x01\x00\x00\x00.X\x04\x00\x00\x00evil)\x81.",
        b"\x80\x02X\x06\x00\x00\x00modulecos\nsystem\nX\x0c\x00\x00\x00touch it_ran\x85R\x86Q.",
        b"\x80\x02(X\x06\x00\x00\x00moduleX\x01\x00\x00\x00aX\x01\x00\x00\x00btQ.",
        b"\x80\x02((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x05\x00\x00\x00../..X\x03\x00\x00\x00cpuK\x01tQtQ.",
        b"\x82\x01.",
    ],
)
@pytest.mark.parametrize("pack", [bytes, zipped, legacy])
def test_programs_by_hand(untouched, monkeypatch, program, pack):
    monkeypatch.chdir(untouched)
    file = untouched / "w.pth"
    file.write_bytes(pack(program))
    for read in (read_weights, read_checkpoint):
        with pytest.raises(InvalidValueError, match=r"^Expected"):
            read(file)
    assert list(untouched.iterdir()) == [file]


# A pickle of few bytes whose last object takes for ever to be hashed, as it is the tuple before twice, sixty times.
DOUBLED = b"\x80\x02X\x01\x00\x00\x00a\x85q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
NESTED = b"\x80\x02)" + b"\x85" * 10**5


@pytest.mark.parametrize("pack", [bytes, zipped, legacy])
@pytest.mark.parametrize(
    "program",
    [
        DOUBLED + b"}h<K\x01s.",
        DOUBLED + b"}K\x01h<s.",
        NESTED + b"}h\x00K\x01s.",
        b"\x80\x02}" + NESTED[2:] + b"K\x01s.",
        b"\x80\x02}r\xff\xff\xff\x7f.",
    ],
    ids=["doubled", "doubled-value", "nested", "nested-key", "memo"],
)
def test_pickles_that_take_for_ever(untouched, program, pack):
    file = untouched / "w.pt"
    file.write_bytes(pack(program))
    with pytest.raises(InvalidValueError, match=r"to be a whole file written by torch.save, but reading it failed"):
        read_weights(file)


def test_a_wrapper_that_contains_itself_and_keys_of_any_size(untouched):
    circle = {}
    circle["state_dict"] = circle
    with pytest.raises(InvalidValueError, match="at most 8 mappings"):
        read_weights(saved(untouched, circle))
    for key, shown in ((10**600, "int"), (("a",) * 5, "tuple"), (b"w", "bytes"), (None, "NoneType")):
        with pytest.raises(InvalidValueError, match=f"but {shown} is of type Tensor"):
            read_weights(saved(untouched, {key: torch.ones(1), "w": torch.ones(1)}))


def saved(folder, content, **options):
    path = folder / "w.pt"
    torch.save(content, path, **options)
    return path


def jagged():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: torch.empty(3, device="meta"), "`w` is without values"),
        (jagged, "`w` is nested"),
        (lambda: torch.eye(3).to_sparse_csr(), "`w` is sparse"),
        (lambda: torch.zeros(2, dtype=torch.float4_e2m1fn_x2), "`w` is of a packed type"),
        (lambda: torch.zeros(2, dtype=torch.complex128), "`w` is complex"),
        (lambda: torch.ones(1).expand(10**12), "to unpack to at most 100 times"),
        (lambda: torch.ones(1).as_strided((2**20, 2**20), (0, 0)), "to unpack to at most 100 times"),
        (lambda: torch.tensor([1.0, float("-inf")], dtype=torch.float64), "finite, but `w`"),
    ],
)
def test_tensors_that_are_not_what_they_seem(untouched, tensor, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = saved(untouched, {"w": tensor()})
        with pytest.raises(InvalidValueError, match=message):
            read_weights(path)


def changed(path, change):
    """Write a file of torch.save anew with other records, and checksums that are right."""
    with zipfile.ZipFile(path) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records:
            archive.writestr(name, change(name, content))
    return path


def test_a_tensor_larger_than_its_record(untouched):
    def lie(name, content):
        return content.replace(b"K\x04tq", b"J\xff\xff\xff\x7ftq") if name.endswith("data.pkl") else content

    with pytest.raises(InvalidValueError, match="reading it failed"):
        read_weights(changed(saved(untouched, {"w": torch.ones(4)}), lie))
    path = saved(untouched, {"w": torch.ones(4)}, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"K\x04N", b"J\xff\xff\xff\x7fN"))
    assert path.read_bytes() != content
    with pytest.raises(InvalidValueError, match="reading it failed"):
        read_weights(path)


def test_tensors_of_a_gpu_and_of_subclasses_become_plain_ones(untouched):
    def elsewhere(name, content):
        return content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:3")

    path = changed(saved(untouched, {"w": torch.ones(4)}), elsewhere)
    assert b"cuda:3" in path.read_bytes()
    assert read_weights(path).state["w"].device == torch.device("cpu")
    parameter = nn.Parameter(torch.ones(2))
    parameter.planted = "state"
    found = read_weights(saved(untouched, {"w": parameter})).state["w"]
    assert type(found) is torch.Tensor
    assert not hasattr(found, "planted")


def test_zip_bombs_and_zips_that_contradict_themselves(untouched, monkeypatch):
    path = saved(untouched, {"w": torch.ones(4)})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("w/data/1", bytes(10**7))
    read_weights(path)  # ten megabytes are none yet
    monkeypatch.setattr(untrusted, "FLOOR", 10**6)
    with pytest.raises(InvalidValueError, match=r"to unpack to at most 100 times its .* bytes"):
        read_weights(path)
    path = saved(untouched, {"w": torch.ones(4)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("w/data.pkl", DOUBLED + b"}h<K\x01s.")
    with pytest.raises(InvalidValueError, match="two records have one name"):
        read_weights(path)


def test_names_of_records_lead_nowhere(untouched):
    path = saved(untouched, {"w": torch.ones(4)})
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../planted", "/tmp/planted", "w/../../planted"):
            archive.writestr(name, "x")
    with pytest.raises(InvalidValueError, match="not in a subdirectory"):
        read_weights(path)
    assert list(untouched.iterdir()) == [path]


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        {"w": F32 | {"data_offsets": [0, 2**62]}},
        {"w": F32 | {"data_offsets": [8, 0]}},
        {"w": F32 | {"data_offsets": [-8, 0]}},
        {"w": F32 | {"data_offsets": [2**64, 2**64 + 8]}},
        {"w": F32, "v": F32},
        {"w": F32, "v": F32 | {"data_offsets": [4, 12]}},
        {"w": F32 | {"shape": [10**12]}},
        {"w": F32 | {"shape": [-2]}},
        {"w": F32 | {"shape": [2**32, 2**32]}},
        {"w": F32 | {"shape": [2.0]}},
        {"w": F32 | {"shape": "2"}},
        {"w": F32 | {"dtype": "object"}},
        {"w": F32 | {"dtype": "F64"}},
        {"w": {"shape": [2]}},
        {"w": []},
        {"__metadata__": {"a": 1}, "w": F32},
        {"__metadata__": {"a": {"b": "c"}}, "w": F32},
        {"__metadata__": {"a": "b"}},
        [],
        "text",
        {},
    ],
    ids=repr,
)
def test_safetensors_headers_that_lie(untouched, header):
    text = json.dumps(header).encode()
    path = untouched / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(InvalidValueError, match=r"^Expected weights"):
        read_weights(path)


@pytest.mark.parametrize("length", [0, 1, 7, 10**3, 10**8, 2**32, 2**63, 2**64 - 1])
def test_safetensors_headers_longer_than_the_file(untouched, length):
    path = untouched / "w.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"w":' + b"[" * 90)
    with pytest.raises(InvalidValueError, match=r"^Expected weights .* to be a whole safetensors file"):
        read_weights(path)


def test_text_in_safetensors_that_is_no_text(untouched):
    path = untouched / "w.safetensors"
    content = safetensors.torch.save({"w": torch.ones(2)}, {"key": "value"})
    for old, new in ((b"value", b"\xff\xfe\xfdue"), (b"value", b"\\ud80"), (b'"w"', b'"\xff"')):
        path.write_bytes(content.replace(old, new))
        with pytest.raises(InvalidValueError, match="to be a whole safetensors file"):
            read_weights(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named(untouched, dtype, bad):
    path = untouched / "w.safetensors"
    state = {"a": torch.ones(3, dtype=dtype), "layer.b": torch.tensor([1, bad], dtype=dtype)}
    path.write_bytes(safetensors.torch.save(state))
    with pytest.raises(InvalidValueError, match=r"to be finite, but `layer.b` holds NaN or infinity"):
        read_weights(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_file_that_changes_while_it_is_read(untouched, monkeypatch, name):
    path = untouched / name
    other = untouched / f"other-{name}"
    for file, value in ((path, 1.0), (other, 2.0)):
        if name.endswith("pt"):
            torch.save({"w": torch.full((4,), value)}, file)
        else:
            write_weights(file, {"w": torch.full((4,), value)}, {})
    hashed = weights.sha256_of

    def replaced_after(file):
        digest = hashed(file)
        other.replace(path)
        return digest

    monkeypatch.setattr(weights, "sha256_of", replaced_after)
    with pytest.raises(InvalidValueError, match="to stay as they are while they are read, but they changed"):
        read_weights(path)


def test_weights_do_not_change_with_their_file_afterwards(untouched):
    path = untouched / "w.safetensors"
    write_weights(path, {"w": torch.ones(10**5)}, {})
    found = read_weights(path)
    path.write_bytes(b"")  # of mapped memory, this would be the end of the program
    assert found.state["w"].sum() == 10**5
