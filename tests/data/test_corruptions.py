import numpy as np
import pytest
import torch

from noiserobust.data.registry import default_normalize, load_data
from noiserobust.errors import InvalidValueError, MissingFileError

# Two images a severity; the value tells image, row, column and channel apart.
FOG = np.fromfunction(lambda n, r, k, c: (n * 23 + r * 7 + k * 3 + c * 85) % 256, (10, 32, 32, 3), dtype=int).astype(
    "u1"
)
LABELS = np.array([3, 9] * 5, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "fog.npy", FOG)
    np.save(folder / "labels.npy", LABELS)
    return folder


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_the_rows_of_a_severity_with_the_channels_first(folder, monkeypatch, severity):
    monkeypatch.setenv("NOISEROBUST_DATA", str(folder.parent))
    for spec in (f"cifar10-c:{folder}/fog/{severity}", f"cifar10-c:fog/{severity}"):
        data = load_data(spec, "test")
        assert data.x.shape == (2, 3, 32, 32)
        assert data.x.dtype == torch.uint8
        for n in range(2):
            for c, r, k in ((0, 0, 0), (2, 31, 0), (1, 5, 17)):
                assert data.x[n, c, r, k] == ((2 * (severity - 1) + n) * 23 + r * 7 + k * 3 + c * 85) % 256
        assert data.y.tolist() == [3, 9]
        assert data.classes[3] == "cat"


def test_the_hundred_classes(folder):
    np.save(folder / "labels.npy", LABELS.astype(np.int64) + 90)
    data = load_data(f"cifar100-c:{folder}/fog/5", "test")
    assert data.y.tolist() == [93, 99]
    assert data.classes[99] == "worm"
    assert default_normalize(f"cifar100-c:{folder}/fog/5") == "cifar100"
    assert default_normalize("cifar10-c:fog/5") == "cifar10"


@pytest.mark.parametrize("path", ["fog", "fog/0", "fog/6", "x/fog/three", "/3", "x//3", "fog/03", "fog/3/"])
def test_other_paths(path):
    with pytest.raises(InvalidValueError, match=r"to be cifar10-c:DIR/CORRUPTION/SEVERITY .* but got 'cifar10-c:"):
        load_data(f"cifar10-c:{path}", "test")


def test_what_is_not_there(folder):
    with pytest.raises(
        InvalidValueError, match="`split` of cifar10-c to be 'test', the only one it has, but got 'train'"
    ):
        load_data(f"cifar10-c:{folder}/fog/3", "train")
    with pytest.raises(MissingFileError, match=r"as frog\.npy and labels\.npy, but it does not; .*zenodo.*mean 'fog'"):
        load_data(f"cifar10-c:{folder}/frog/3", "test")
    with pytest.raises(MissingFileError, match=r"absent to hold .* but there is no such folder; get it from https"):
        load_data(f"cifar10-c:{folder}/absent/fog/3", "test", download=True)
    (folder / "labels.npy").unlink()
    with pytest.raises(MissingFileError, match=r"fog\.npy and labels\.npy"):
        load_data(f"cifar10-c:{folder}/fog/3", "test")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (FOG.astype(np.float32), LABELS, r"fog\.npy to be uint8, 5N x 32 x 32 x 3, but got float32 of shape \(10, 32"),
        (FOG[:9], LABELS[:9], r"but got uint8 of shape \(9, 32, 32, 3\)"),
        (FOG[:0], LABELS[:0], r"but got uint8 of shape \(0, 32"),
        (FOG.transpose(0, 3, 1, 2), LABELS, r"but got uint8 of shape \(10, 3, 32, 32\)"),
        (
            FOG,
            LABELS[:2],
            r"labels\.npy to be 10 integers, one for each image of fog.npy, but got uint8 of shape \(2,\)",
        ),
        (FOG, LABELS.astype(float), "but got float64"),
        (FOG, LABELS + 1, r"labels of .*labels\.npy to be from 0 to 9, but got 4 to 10"),
        (FOG, LABELS.astype(np.int64) - 4, "but got -1 to 5"),
        (np.array([{}] * 5), LABELS, r"fog\.npy to be a whole .npy file of numbers, but got"),
    ],
)
def test_other_arrays(folder, images, labels, message):
    np.save(folder / "fog.npy", images)
    np.save(folder / "labels.npy", labels)
    with pytest.raises(InvalidValueError, match=message):
        load_data(f"cifar10-c:{folder}/fog/3", "test")


def test_damaged_files(folder):
    whole = (folder / "fog.npy").read_bytes()
    for content in (whole[:-1], whole[:50], b"", b"text", b"PK\x03\x04" + whole):
        (folder / "fog.npy").write_bytes(content)
        with pytest.raises(InvalidValueError, match=r"fog\.npy to be a whole .npy file of numbers, but got"):
            load_data(f"cifar10-c:{folder}/fog/3", "test")
