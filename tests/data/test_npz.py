import numpy as np
import pytest
import torch

from noiserobust.data import arrays
from noiserobust.data.registry import load_data
from noiserobust.errors import InvalidValueError, MissingFileError

BYTES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
LABELS = np.array([1, 0])


@pytest.fixture
def load(tmp_path):
    def load(split="test", compress=False, **content):
        path = tmp_path / "d.npz"
        (np.savez_compressed if compress else np.savez)(path, **content)
        return load_data(f"npz:{path}", split)

    return load


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (BYTES, torch.from_numpy(BYTES).permute(0, 3, 1, 2)),
        (np.asfortranarray(BYTES), torch.from_numpy(BYTES).permute(0, 3, 1, 2)),
        (BYTES[..., 0], torch.from_numpy(BYTES[..., 0])[:, None]),
        (BYTES[:, 0, 0], torch.from_numpy(BYTES[:, 0, 0])),
        (BYTES.astype(np.float64) / 8, torch.from_numpy(BYTES).float() / 8),
        (BYTES[:, 0, 0].astype(np.float16), torch.from_numpy(BYTES[:, 0, 0]).float()),
    ],
)
def test_arrays_become_images_or_features(load, x, expected, compress):
    data = load(x=x, y=LABELS.astype(np.uint8), compress=compress)
    assert torch.equal(data.x, expected)
    assert data.x.dtype == expected.dtype
    assert data.y.tolist() == [1, 0]
    assert data.name.startswith("npz:")


def test_the_arrays_of_the_split_come_first(load):
    content = {"x": BYTES, "y": LABELS, "test_x": BYTES[:1], "test_y": LABELS[:1]}
    assert len(load("test", **content)) == 1
    assert len(load("train", **content)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": BYTES, "labels": LABELS}, "'test_x' and 'test_y', or 'x' and 'y', but got 'images', 'labels'"),
        ({"train_x": BYTES, "train_y": LABELS}, "but got 'train_x', 'train_y'"),
        ({"test_x": BYTES, "y": LABELS}, "but got 'test_x', 'y'"),
        ({}, "but got nothing"),
        ({"x": BYTES.astype(np.int64), "y": LABELS}, "d.npz: x to be uint8 or floating, but got int64"),
        ({"x": np.array(["a", "b"]), "y": LABELS}, "uint8 or floating, but got <U1"),
        ({"x": np.array([{}, []], dtype=object), "y": LABELS}, "array 'x' of .* holds Python objects, which are not"),
        ({"x": BYTES.transpose(0, 3, 1, 2).repeat(2, 3), "y": LABELS}, r"\(NHWC\) .* \(2, 3, 4, 10\) looks like NCHW"),
        ({"x": np.zeros((2, 3, 4)), "y": LABELS}, r"but got shape \(2, 3, 4\)"),
        ({"x": np.zeros(3), "y": LABELS}, r"but got shape \(3,\)"),
        ({"x": BYTES, "y": LABELS[:1]}, "`y` of npz:.* to be 2 labels"),
        ({"x": BYTES, "y": np.eye(2)}, "integer labels, but got torch.float64"),
        ({"x": np.full((2, 3), np.inf), "y": LABELS}, "finite"),
    ],
)
def test_wrong_arrays(load, content, message):
    with pytest.raises(InvalidValueError, match=message):
        load(**content)


def test_damage_and_missing_files(load, tmp_path):
    load(x=BYTES, y=LABELS)
    path = tmp_path / "d.npz"
    whole = path.read_bytes()
    inside = whole.index(BYTES.tobytes()) + 50
    for content, message in [
        (b"", "to be a whole .npz file"),
        (b"text", "to be a whole .npz file"),
        (b"PK\x01\x02\xff\xff".join(whole.split(b"PK\x01\x02")), "to be a whole .npz file"),
        (whole[:-30], "to be a whole .npz file"),
        (whole[:inside] + b"\xff" + whole[inside + 1 :], "array 'x' of .* undamaged, but got: Bad CRC-32"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InvalidValueError, match=message):
            load_data(f"npz:{path}", "test")
    with pytest.raises(InvalidValueError, match="to be a file, but it is a folder"):
        load_data(f"npz:{tmp_path}", "test")
    with pytest.raises(MissingFileError, match=r"Expected a data file .*absent.npz, but there is none"):
        load_data(f"npz:{tmp_path}/absent.npz", "test")


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(load, monkeypatch):
    monkeypatch.setattr(arrays, "MEMORY_LIMIT", 100)
    with pytest.raises(InvalidValueError, match=r"to fit into .* GiB of memory"):
        load(x=BYTES, y=LABELS, compress=True)
