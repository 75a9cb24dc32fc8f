"""Parts of an evaluation, joined, are the evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import noiserobust as nr
from noiserobust.cli import main
from noiserobust.errors import InvalidValueError, MissingFileError
from noiserobust.models.weights import write_weights
from noiserobust.results.merge import merge_folders

FILES = ("draws.csv", "summary.csv")


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        torch.manual_seed(seed)
        write_weights(
            Path(f"w{seed}.safetensors"), nr.build_model("digits-mlp"), {"method": "sgd", "train_seed": str(seed)}
        )

    def run(out: str, *more: str, draws: int = 4, status: int = 0) -> Path:
        words = "evaluate --model digits-mlp --weights w0.safetensors w1.safetensors --data digits --noise gaussian"
        words += f" --levels 0 0.1 0.2 --draws {draws} --metrics accuracy loss --examples 100 --out {out}"
        assert main([*words.split(), *more]) == status
        return Path(out)

    return run


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(("parts", "draws"), [(1, 4), (2, 4), (5, 4), (8, 1)], ids=str)
@pytest.mark.thorough
def test_parts_make_up_the_whole(evaluated: Any, parts: int, draws: int) -> None:
    number = 2 * (1 + 2 * draws)  # fewer than the most parts
    whole = evaluated("whole", draws=draws)
    folders = [evaluated(f"part{i}", "--shard", f"{i}/{parts}", draws=draws) for i in range(1, parts + 1)]
    sizes = [len(pd.read_csv(f / "draws.csv")) // 2 for f in folders]
    assert sum(sizes) == number
    assert max(sizes) - min(sizes) <= 2
    assert main(["merge", *map(str, folders), "--out", "merged"]) == 0
    assert same(whole, Path("merged"))
    assert json.loads(Path("merged/manifest.json").read_text())["kind"] == "evaluation"
    assert main(["report", "merged", "--out", "report"]) == 0


def test_parts_may_overlap_and_lack_draws(evaluated: Any, capsys: pytest.CaptureFixture[str]) -> None:
    whole, first, second = evaluated("whole"), evaluated("a", "--shard", "1/2"), evaluated("b", "--shard", "1/3")
    capsys.readouterr()
    assert main(["merge", "a", "b", "--out", "merged"]) == 0
    assert "6 draws are missing" in capsys.readouterr().out
    assert not Path("merged/draws.csv").exists()
    evaluated("merged")
    assert same(whole, Path("merged"))
    assert merge_folders([first, second, whole], first) == 0  # into one of them
    assert same(whole, first)
    assert merge_folders([whole, whole], Path("again")) == 0
    assert same(whole, Path("again"))


@pytest.mark.slow
def test_parts_of_other_evaluations_are_refused(evaluated: Any, tmp_path: Path) -> None:
    one, other = evaluated("one", "--shard", "1/2"), evaluated("other", "--shard", "2/2", "--seed", "1")
    with pytest.raises(InvalidValueError, match=r"but one and other differ in data\.sha256, seed"):
        merge_folders([one, other], Path("out"))
    with pytest.raises(InvalidValueError, match="one and three differ in draws"):
        merge_folders([one, evaluated("three", "--shard", "2/2", draws=5)], Path("out"))
    unlike = evaluated("unlike", "--shard", "2/2")
    manifest = json.loads((unlike / "manifest.json").read_text())
    manifest["settled"]["batch_size"] = 9
    (unlike / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidValueError, match=r"one and unlike differ in settled\.batch_size"):
        merge_folders([one, unlike], Path("out"))
    spoilt = evaluated("spoilt", "--shard", "1/2")
    draws = pd.read_csv(spoilt / "draws.csv")
    draws.loc[3, "value"] += 1
    draws.to_csv(spoilt / "draws.csv", index=False)
    with pytest.raises(InvalidValueError, match="Expected one and spoilt to agree where they hold the same draw"):
        merge_folders([one, spoilt], Path("out"))
    with pytest.raises(MissingFileError, match=r"nothing/manifest\.json"):
        merge_folders([one, Path("nothing")], Path("out"))
    assert not Path("out").exists()
    with pytest.raises(InvalidValueError, match=r"differing: data\.sha256, seed"):
        merge_folders([one], other)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_a_shard_is_a_part(evaluated: Any, shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated("out", f"--shard={shard}", status=2)
    assert "Expected `shard` to be a part such as 2/8" in capsys.readouterr().err
    assert not Path("out").exists()


def test_half_a_draw_is_missing(evaluated: Any) -> None:
    whole, cut = evaluated("whole"), evaluated("cut")
    draws = pd.read_csv(cut / "draws.csv")
    draws.drop(index=len(draws) - 1).to_csv(cut / "draws.csv", index=False)  # a loss, of which the accuracy is there
    assert merge_folders([cut], Path("merged")) == 1
    assert not Path("merged/draws.csv").exists()
    evaluated("merged")
    assert same(whole, Path("merged"))


def test_what_was_settled_is_compared_whichever_part_has_it(evaluated: Any) -> None:
    parts = [evaluated(name, "--shard", f"{i}/3") for i, name in enumerate(("a", "b", "c"), start=1)]
    manifests = [json.loads((part / "manifest.json").read_text()) for part in parts]
    del manifests[0]["settled"]  # as if it had been killed before
    (parts[0] / "manifest.json").write_text(json.dumps(manifests[0]))
    assert merge_folders(parts, Path("merged")) == 0
    assert json.loads(Path("merged/manifest.json").read_text())["settled"] == manifests[1]["settled"]
    manifests[2]["settled"]["precision"] = "bf16"
    (parts[2] / "manifest.json").write_text(json.dumps(manifests[2]))
    with pytest.raises(InvalidValueError, match=r"b and c differ in settled\.precision"):
        merge_folders(parts, Path("again"))


def test_what_is_there_already_has_to_agree(evaluated: Any) -> None:
    one, out = evaluated("one"), evaluated("out")
    draws = pd.read_csv(out / "draws.csv")
    draws.loc[0, "value"] += 1
    draws.to_csv(out / "draws.csv", index=False)
    with pytest.raises(InvalidValueError, match="Expected one and out to agree where they hold the same draw"):
        merge_folders([one], out)
