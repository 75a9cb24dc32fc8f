import argparse
import os
import pickle
import warnings

import pytest
import safetensors.torch
import torch
from torch import nn

from noiserobust.errors import InvalidValueError, MissingFileError, OutputError, StateError
from noiserobust.models.registry import build_model
from noiserobust.models.weights import fit_weights, read_weights, write_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.5, -0.0])}
PREFIXED = {f"module._orig_mod.{k}": v for k, v in STATE.items()}


def same(state, expected):
    return state.keys() == expected.keys() and all(
        state[k].dtype == expected[k].dtype and torch.equal(state[k], expected[k]) for k in expected
    )


def saved(tmp_path, content, name="w.pt", **options):
    path = tmp_path / name
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3, "loss": torch.tensor(float("nan"))},
        {"model": {"state_dict": PREFIXED}},
        {"net": {f"module.{k}": v for k, v in STATE.items()}, "optimizer": {"state": {}}},
        {"model_state_dict": {f"_orig_mod.module.{k}": nn.Parameter(v) for k, v in STATE.items()}},
        {"model": "resnet20", "weights": STATE},
    ],
)
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_wrapping_keys_and_prefixes_are_taken_off(tmp_path, content, options):
    weights = read_weights(saved(tmp_path, content, "w.pth", **options))
    assert same(weights.state, STATE)
    assert not any(t.requires_grad for t in weights.state.values())
    assert weights.metadata == {}
    assert len(weights.sha256) == 64


def test_a_prefix_that_only_some_names_have_is_kept(tmp_path):
    state = {"module.weight": torch.ones(2), "n_averaged": torch.ones(1)}
    assert read_weights(saved(tmp_path, state)).state.keys() == state.keys()


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.th"])
@pytest.mark.parametrize("write", ["zip", "legacy", "pickle2", "pickle5", "zip4"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, name, write):
    target, path = tmp_path / "pwned", tmp_path / name
    content = {"state_dict": STATE, "extra": Evil(target)}
    if write.startswith("pickle"):
        path.write_bytes(pickle.dumps(Evil(target), protocol=int(write[-1])))
    elif write == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(content, path, pickle_protocol=4 if write == "zip4" else 2)
    with pytest.raises(InvalidValueError, match=rf"{name} .*it carries Python code \(.*\) .*refused.*safetensors"):
        read_weights(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [(nn.Linear(2, 2), "torch.nn.modules.linear.Linear"), ({"args": argparse.Namespace()}, "argparse.Namespace")],
)
def test_the_code_that_a_file_carries_is_named(tmp_path, content, named):
    with pytest.raises(InvalidValueError, match=rf"\({named}\)"):
        read_weights(saved(tmp_path, content))


def test_a_torchscript_program_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(InvalidValueError, match="it is a TorchScript program; refused"):
        read_weights(tmp_path / "w.pt")


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "to hold a mapping from names to tensors, but got Tensor"),
        ([1, 2], "to hold a mapping from names to tensors, but got list"),
        ({}, "to hold tensors, but there are none"),
        ({"epoch": 3, "lr": 0.1}, r"there are none \(keys: 'epoch', 'lr'\)"),
        ({"model": {"state_dict": {}}}, "there are none"),
        ({"w": torch.ones(1), "epoch": 3}, "to map names to tensors only, but 'epoch' is of type int"),
        ({1: torch.ones(1)}, "to map names to tensors only, but 1 is"),
        ({"w": torch.tensor([1.0, float("nan")])}, "to be finite, but `w` holds NaN or infinity"),
        ({"ok": torch.ones(1), "w": torch.tensor([float("inf")]).half()}, "finite, but `w`"),
        ({"w": torch.full((2,), float("nan")).to(torch.float8_e4m3fn)}, "finite, but `w`"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, r"`w` is complex \(torch.complex64\)"),
        ({"w": torch.eye(3).to_sparse()}, "`w` is sparse"),
        ({"w": quantised()}, "`w` is quantised"),
    ],
)
def test_content_that_is_no_weights(tmp_path, content, message):
    with pytest.raises(InvalidValueError, match=rf"w\.pt.*{message}"):
        read_weights(saved(tmp_path, content))


def damaged(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [lambda d: d[:20], lambda d: d[: len(d) // 2], lambda d: d[:-7], lambda d: b"text"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(tmp_path, damage, kind):
    state = {"w": torch.ones(1000)}
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        write_weights(path, state, {"a": "b"})
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InvalidValueError, match=rf"Expected weights .*{path.name} to be a whole"):
        read_weights(path)


def test_a_flipped_byte_inside_a_tensor_is_noticed(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(1000)})
    path.write_bytes(damaged(path.read_bytes()))
    with pytest.raises(InvalidValueError, match="the checksum of its record 'w/data/0' is wrong"):
        read_weights(path)


def test_missing_empty_foreign_and_folder(tmp_path):
    with pytest.raises(MissingFileError, match=r"Expected a weights file .*absent.pt, but there is none"):
        read_weights(tmp_path / "absent.pt")
    with pytest.raises(InvalidValueError, match="to be a file, but it is a folder"):
        read_weights(tmp_path)
    for name, message in [("w.pt", r"empty \(0 bytes\)"), ("w.onnx", "but got '.onnx'"), ("w", "but got 'no ending'")]:
        (tmp_path / name).touch()
        with pytest.raises(InvalidValueError, match=message):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn", "resnet20"])
def test_a_round_trip_is_exact(tmp_path, name):
    model, other = build_model(name), build_model(name)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(3)
    write_weights(tmp_path / "w.safetensors", model, {"train_seed": "3", "ü": "ß"})
    weights = read_weights(tmp_path / "w.safetensors")
    assert weights.metadata == {"train_seed": "3", "ü": "ß"}
    fit_weights(other, weights)
    assert same(other.state_dict(), model.state_dict())
    assert all(p.requires_grad for p in other.parameters())


def test_every_layout_and_dtype_survives(tmp_path):
    base = torch.randn(4, 3, 5, 5)
    state = {
        "channels_last": base.to(memory_format=torch.channels_last),
        "transposed": base[0, 0].T,
        "view": base[1:2],
        "expanded": torch.ones(1).expand(7),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(2**40),
        **{str(t): torch.ones(3, dtype=t) for t in (torch.bfloat16, torch.float64, torch.bool, torch.float8_e5m2)},
    }
    write_weights(tmp_path / "w.safetensors", state, {})
    assert same(read_weights(tmp_path / "w.safetensors").state, {k: v.contiguous() for k, v in state.items()})


def test_equal_weights_give_equal_files(tmp_path):
    # safetensors itself orders metadata at random.
    state = {"b": torch.ones(3), "a": torch.zeros(2)}
    for i in range(8):
        write_weights(tmp_path / f"{i}.safetensors", state, {c: c for c in "abcdefgh"})
    assert len({read_weights(p).sha256 for p in tmp_path.iterdir()}) == 1
    # Any other reader still understands the file.
    assert same(safetensors.torch.load_file(tmp_path / "1.safetensors"), state)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight


def test_tied_weights(tmp_path):
    model, other = Tied(), Tied()
    write_weights(tmp_path / "w.safetensors", model, {})
    fit_weights(other, read_weights(tmp_path / "w.safetensors"))
    assert same(other.state_dict(), model.state_dict())
    assert other.first.weight is other.second.weight

    # Some writers keep one name of a shared tensor only.
    value = torch.randn(3, 3)
    for name in ("first.weight", "second.weight"):
        fit_weights(other, read_weights(saved(tmp_path, {name: value + 1})))
        assert torch.equal(other.first.weight, value + 1)
    with pytest.raises(InvalidValueError, match=r"Expected `first.weight` and `second.weight` in .* to be equal"):
        fit_weights(other, read_weights(saved(tmp_path, {"first.weight": value, "second.weight": -value})))


def test_a_refused_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, STATE, {})
    before = path.read_bytes()
    with pytest.raises(InvalidValueError, match="to be finite, but `w`"):
        write_weights(path, {"w": torch.tensor([float("nan")])}, {})
    with pytest.raises(InvalidValueError, match="Expected `metadata` to map text to text, but got 'seed': 3"):
        write_weights(path, STATE, {"seed": 3})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InvalidValueError, match=r"to end in \.safetensors"):
        write_weights(tmp_path / "w.pt", STATE, {})
    with pytest.raises(OutputError, match="Expected to be able to write"):
        write_weights(tmp_path / "absent" / "w.safetensors", STATE, {})


def weights_for(tmp_path, changes):
    state = {**nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict(), **changes}
    return read_weights(saved(tmp_path, {k: v for k, v in state.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"0.weight": torch.ones(4, 3)},
            r"\(7 tensors\), but of its 7 .* 1 is of another shape: `0.weight`: file has \(4, 3\), model has \(2, 3\)",
        ),
        (
            {"0.weight": None, "0.weigth": torch.ones(2, 3)},
            r"missing: `0.weight`; did you mean '0.weigth'\?; 1 is unexp",
        ),
        ({str(i): torch.ones(1) for i in range(10, 15)}, "5 are unexpected: `10`, `11`, `12`, and 2 more"),
        (
            {"0.weight": torch.ones(2, 3, dtype=torch.int64)},
            "`0.weight` .* to be torch.float32 like .* got torch.int64",
        ),
        ({"0.bias": torch.tensor([1e300, 0], dtype=torch.float64)}, "`0.bias` .* holds values outside its range"),
    ],
)
def test_a_mismatch_is_told_and_changes_nothing(tmp_path, changes, message):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InvalidValueError, match=message):
        fit_weights(model, weights_for(tmp_path, changes))
    assert same(model.state_dict(), before)


def test_old_checkpoints_without_batch_counters_and_of_other_precision(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    weight = torch.randn(2, 3).half()
    fit_weights(model, weights_for(tmp_path, {"1.num_batches_tracked": None, "0.weight": weight}))
    assert model[1].num_batches_tracked == 0
    assert torch.equal(model[0].weight, weight.float())


class Extra(nn.Linear):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        assert state == {"version": 1}


def test_extra_state_is_left_alone_and_lazy_models_are_refused(tmp_path):
    weights = read_weights(saved(tmp_path, {"weight": torch.ones(2, 3), "bias": torch.ones(2)}))
    model = Extra(3, 2)
    fit_weights(model, weights)
    assert model.weight.eq(1).all()
    with pytest.raises(StateError, match="`weight` is not initialised"):
        fit_weights(nn.LazyLinear(2), weights)
