import pytest
import torch
from torch.utils.data import DataLoader

from noiserobust.data.arrays import ArrayData
from noiserobust.data.normalize import parse_normalize
from noiserobust.data.registry import default_normalize, load_data
from noiserobust.errors import InvalidValueError, MissingFileError


def test_the_digits_are_split_once_and_for_all():
    train, test = load_data("digits", "train"), load_data("digits", "test")
    assert (len(train), len(test)) == (1000, 797)
    for data in (train, test):
        assert data.x.shape[1:] == (1, 8, 8)
        assert (data.x.min(), data.x.max()) == (0, 1)
        assert torch.equal(data.x * 16, (data.x * 16).round())
        assert data.classes == tuple("0123456789")
        assert data.y.bincount().min() > 70
    assert len({x.numpy().tobytes() for x in torch.cat([train.x, test.x])}) == 1797
    # Golden: another split would make recorded results incomparable.
    assert train.sha256()[:16] == "f34877721de7b557"
    assert test.sha256()[:16] == "a74df90b4183ae3a"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.py"
    path.write_text(
        "import numpy as np, torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "from noiserobust.data.arrays import ArrayData\n"
        "def fixed(): return np.zeros((3, 2)), np.array([0, 1, 2])\n"
        "def by_split(size=3, *, split): return torch.zeros(2 if split == 'train' else 1, size), "
        "torch.zeros(2 if split == 'train' else 1, dtype=torch.int64)\n"
        "def anything(**options): return [np.zeros((len(options['split']), 2)), np.zeros(len(options['split']), int)]\n"
        "def loader(): return DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4)))\n"
        "def ready(): return ArrayData(torch.zeros(1, 2), torch.tensor([0]), 'mine', ('only',))\n"
        "def needs(path): return None\n"
        "def three(): return 1, 2, 3\n"
        "def nothing(): pass\n"
        "def floats(): return np.zeros((3, 2)), np.zeros(3)\n"
        "def fails(split): raise OSError('disk on fire')\n"
    )
    return path


def test_a_function_of_the_user(file):
    assert len(load_data(f"{file}:fixed", "train")) == len(load_data(f"{file}:fixed", "test")) == 3
    assert [load_data(f"{file}:by_split", s).x.shape for s in ("train", "test")] == [(2, 3), (1, 3)]
    assert [len(load_data(f"{file}:anything", s)) for s in ("train", "test")] == [5, 4]
    assert isinstance(load_data(f"{file}:loader", "test"), DataLoader)
    ready = load_data(f"{file}:ready", "test")
    assert isinstance(ready, ArrayData)
    assert ready.classes == ("only",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("needs", r"among its parameters \(path\), but got {}: missing a required argument: 'path'"),
        ("three", r"to return \(x, y\) or a DataLoader, but got 3 values"),
        ("nothing", r"to return \(x, y\) or a DataLoader, but got NoneType"),
        ("floats", "data.py:floats to be integer labels, but got torch.float64"),
        ("fails", "raised OSError: disk on fire"),
        ("fixd", "has no 'fixd'; did you mean 'fixed'"),
    ],
)
def test_a_function_of_the_user_that_does_not_do(file, name, message):
    with pytest.raises(InvalidValueError, match=message):
        load_data(f"{file}:{name}", "train")


@pytest.mark.parametrize(
    ("spec", "split", "message"),
    [
        ("digit", "test", r"Expected `data` to be one of .*'npz:FILE'.*, but got 'digit'; did you mean 'digits'\?"),
        ("npy:d.npz", "test", "Expected `data` to be one of .*, but got 'npy:d.npz'"),
        ("image-folder:somewhere", "test", "Expected `data` to be one of .*; did you mean 'imagefolder:DIR'"),
        ("npz:", "test", "Expected `data` to name a path after 'npz', but got 'npz:'"),
        ("data.py", "test", "Expected `data` to be `package.module:callable`"),
        ("cifar01", "test", r"one of .*'cifar10-c:DIR/CORRUPTION/SEVERITY'.*'cifar10:PATH'.*; did you mean 'cifar10'"),
        ("cifar_10:data", "test", "but got 'cifar_10:data'; did you mean 'cifar10"),
        ("mnist:", "test", "Expected `data` to name a path after 'mnist', but got 'mnist:'"),
        ("cifar10-c", "test", "Expected `data` to name a path after 'cifar10-c', but got 'cifar10-c'"),
        ("digits", "valid", "Expected `split` to be one of 'test', 'train', but got 'valid'"),
    ],
)
def test_unknown_names(spec, split, message):
    with pytest.raises(InvalidValueError, match=message):
        load_data(spec, split)


@pytest.mark.parametrize("spec", ["cifar10:{}", "mnist:{}", "cifar10-c:{}/fog/3"])
def test_a_place_that_cannot_be_looked_at(spec):
    with pytest.raises(InvalidValueError, match=r"Expected data .* to be readable, but got: .*too long"):
        load_data(spec.format("x" * 300), "test", download=True)


def test_a_missing_file_of_the_user():
    for name in ("absent.py", "mnist.py"):
        with pytest.raises(MissingFileError, match=f"but {name} is no such file"):
            load_data(f"{name}:make", "test")


@pytest.mark.parametrize(
    ("spec", "name"), [("digits", "digits"), ("npz:digits.npz", "none"), ("f.py:g", "none"), ("digits:load", "none")]
)
def test_the_normalisation_that_goes_without_saying(spec, name):
    assert default_normalize(spec) == name
    parse_normalize(name)
