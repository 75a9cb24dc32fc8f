"""What a training has recorded, read again: whole or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.results.diagnostics import DIAGNOSTICS_DTYPES, QUANTITIES, SPLITS, read_diagnostics


def rows(**changes) -> pd.DataFrame:
    row = {"method": "007", "train_seed": 0, "epoch": 0.5, "step": 5, "strength": 1.0, "level": np.nan, "value": 1.5}
    row |= {"standard_error": np.nan, "n_examples": 64}
    frame = pd.DataFrame([{**row, "split": split, "quantity": q} for split in SPLITS for q in QUANTITIES])
    return frame.assign(**changes)[list(DIAGNOSTICS_DTYPES)]


def test_what_was_written_is_read_and_an_overflowed_loss_is_empty(tmp_path: Path):
    frame = rows()
    frame.loc[frame["quantity"] == "perturbed_loss", "value"] = np.nan
    for written in (frame, rows(value=np.nan)):
        written.to_csv(tmp_path / "diagnostics.csv", index=False)
        read = read_diagnostics(tmp_path / "diagnostics.csv")
        pd.testing.assert_frame_equal(read, written, check_dtype=False)
        assert read["value"].dtype == np.float64


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (rows(quantity="luck"), "quantities .* known ones, but got 'luck'"),
        (rows(split="test"), "splits .* train or held-out, but got 'test'"),
        (rows(value="high"), "could not convert"),
        (rows(epoch=""), "could not convert|no number in epoch"),
        (rows(step=0.5), "no integer in step"),
        (rows().drop(columns="level"), "the columns method, train_seed"),
    ],
)
def test_damaged_diagnostics_are_refused(tmp_path: Path, frame: pd.DataFrame, said: str):
    frame.to_csv(tmp_path / "diagnostics.csv", index=False)
    with pytest.raises(InvalidValueError, match=f"^Expected .*({said})"):
        read_diagnostics(tmp_path / "diagnostics.csv")


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(MissingFileError, match=r"^Expected a file .*diagnostics\.csv"):
        read_diagnostics(tmp_path / "diagnostics.csv")
