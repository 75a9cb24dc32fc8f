"""What diagnoses of landscapes and filters have left, read again: whole or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.results.filters import FILTERS_DTYPES, read_filters
from noiserobust.results.landscapes import LANDSCAPE_DTYPES, read_landscape


def points(**changes) -> pd.DataFrame:
    row = {"method": "007", "train_seed": 0, "weights": "NA", "split": "train", "metric": "loss"}
    frame = pd.DataFrame(
        [{**row, "x": x, "y": y, "value": x + y, "n_draws": 1} for x in (-1.0, 1.0) for y in (0.0, 1.0)]
    )
    return frame.assign(**changes)[list(LANDSCAPE_DTYPES)]


def norms(**changes) -> pd.DataFrame:
    row = {"method": "SGD", "train_seed": 0, "weights": "a", "layer": "conv"}
    frame = pd.DataFrame([{**row, "filter": i, "norm": 1.0 + i} for i in range(3)])
    return frame.assign(**changes)[list(FILTERS_DTYPES)]


def test_what_was_written_is_read_text_as_text(tmp_path: Path):
    points().to_csv(tmp_path / "landscape.csv", index=False)
    norms(method="1.0").to_csv(tmp_path / "filters.csv", index=False)
    landscape, filters = read_landscape(tmp_path), read_filters(tmp_path)
    pd.testing.assert_frame_equal(landscape, points(), check_dtype=False)
    assert set(landscape["method"]) == {"007"}
    assert set(landscape["weights"]) == {"NA"}
    assert dict(filters.dtypes)["norm"] == np.float64
    assert set(filters["method"]) == {"1.0"}


def test_one_direction_has_no_y_and_a_loss_may_be_infinite(tmp_path: Path):
    line = points().drop_duplicates("x").assign(y=np.nan, value=np.inf)
    line.to_csv(tmp_path / "landscape.csv", index=False)
    read = read_landscape(tmp_path)
    assert read["y"].isna().all()
    assert np.isinf(read["value"]).all()


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (points(split="validation"), "splits .* train or test, but got 'validation'"),
        (points(x=np.inf), "`x` .* finite"),
        (points(value="nan"), "no number in value"),
        (points(value=-np.inf), "`value` .* finite numbers, or inf where a loss explodes"),
        (points(metric="accuracy", value=np.inf), "`value` .* finite numbers, or inf where a loss explodes"),
        (points(value=""), "no number in value"),
        (points(value="high"), "could not convert"),
        (points(y=[0.0, np.nan, 0.0, 1.0]), "`y` .* empty for all points of a landscape or none"),
        (points(y=0.0), "distinct, but got x = -1, y = 0 twice for '007'"),
        (points().drop(columns="n_draws"), "the columns method, train_seed"),
        (points(train_seed=0.5), "no integer in train_seed"),
    ],
)
def test_a_damaged_landscape_is_refused(tmp_path: Path, frame: pd.DataFrame, said: str):
    frame.to_csv(tmp_path / "landscape.csv", index=False)
    with pytest.raises(InvalidValueError, match=f"^Expected .*{said}"):
        read_landscape(tmp_path)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (norms(norm=-1.0), "finite numbers >= 0"),
        (norms(norm=np.inf), "finite numbers >= 0"),
        (norms(filter=0), "filter 0 of conv twice for 'SGD'"),
        (norms(norm=""), "no number in norm|could not convert"),
    ],
)
def test_damaged_filters_are_refused(tmp_path: Path, frame: pd.DataFrame, said: str):
    frame.to_csv(tmp_path / "filters.csv", index=False)
    with pytest.raises(InvalidValueError, match=f"^Expected .*({said})"):
        read_filters(tmp_path)


def test_missing_files_and_bytes_that_are_no_table(tmp_path: Path):
    with pytest.raises(MissingFileError, match=r"landscape\.csv, but there is none; is the diagnosis finished"):
        read_landscape(tmp_path)
    with pytest.raises(MissingFileError, match=r"filters\.csv, but there is none"):
        read_filters(tmp_path)
    (tmp_path / "filters.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "landscape.csv").write_bytes(b"")
    for read in (read_filters, read_landscape):
        with pytest.raises(InvalidValueError, match=r"^Expected "):
            read(tmp_path)
