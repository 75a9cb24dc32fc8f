"""The command line: what it writes, and one clear line with exit status 2 for whatever a user gets wrong."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from noiserobust.cli import main
from noiserobust.data.registry import load_data
from noiserobust.models.registry import build_model
from noiserobust.models.weights import write_weights
from noiserobust.results.schema import DRAW_COLUMNS, SUMMARY_COLUMNS


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "w.safetensors"
    write_weights(path, build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})
    return path


@pytest.fixture
def run(capsys):
    def run(*arguments):
        status = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def evaluation(weights, out, **changes):
    settings = {
        "model": "digits-mlp",
        "weights": weights,
        "data": "digits",
        "noise": "gaussian",
        "levels": ["0", "0.1"],
        "draws": 2,
        "out": out,
        **changes,
    }
    arguments = ["evaluate"]
    for key, value in settings.items():
        values = value if isinstance(value, list) else [value]
        arguments += [f"--{key.replace('_', '-')}", *map(str, values)]
    return arguments


def refused(result):
    """Return the one line of a refusal."""
    status, out, err = result
    assert status == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("noiserobust: error: Expected ")
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.thorough
def test_output_that_cannot_be_written_is_no_fault_of_ours(buffered):
    command = [sys.executable, *([] if buffered else ["-u"]), "-m", "noiserobust", "profiles", "show", "pcm-hermes-2"]
    with open("/dev/full", "w") as full:
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("noiserobust: error: Expected to be able to write the output, but got: No space")
    assert process.stderr.count("\n") == 1
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does
    process = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (process.returncode, process.stderr) == (0, "")


class TestEvaluate:
    def test_writes_draws_summary_and_manifest(self, run, weights, tmp_path):
        out = tmp_path / "out"
        status, printed, _ = run(*evaluation(weights, out))
        assert status == 0
        draws = pd.read_csv(out / "draws.csv")
        assert list(draws.columns) == DRAW_COLUMNS
        assert list(pd.read_csv(out / "summary.csv").columns) == SUMMARY_COLUMNS
        assert list(zip(draws.level, draws.draw, strict=True)) == [(0.0, 0), (0.1, 0), (0.1, 1)]
        assert set(draws.n_examples) == {797}
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["configuration"]["levels"] == [0.0, 0.1]
        assert manifest["configuration"]["data"]["name"] == "digits"
        assert len(manifest["configuration"]["weights"][0]["sha256"]) == 64
        assert manifest["environment"]["versions"]["torch"] == torch.__version__
        assert "accuracy" in printed

    def test_the_same_configuration_goes_on_and_another_is_refused(self, run, weights, tmp_path):
        out = tmp_path / "out"
        assert run(*evaluation(weights, out))[0] == 0
        before = (out / "draws.csv").read_bytes()
        assert run(*evaluation(weights, out))[0] == 0
        assert (out / "draws.csv").read_bytes() == before
        line = refused(run(*evaluation(weights, out, draws=3, seed=1)))
        assert "differing: draws, seed" in line
        assert (out / "draws.csv").read_bytes() == before

    def test_batch_size_does_not_change_the_draws(self, run, weights, tmp_path):
        for size in (50, 797):
            assert run(*evaluation(weights, tmp_path / str(size), batch_size=size))[0] == 0
        assert (tmp_path / "50/draws.csv").read_bytes() == (tmp_path / "797/draws.csv").read_bytes()

    def test_files_of_several_methods_in_one_run(self, run, tmp_path):
        files = []
        for method in ("sgd", "rwp"):
            for seed in (0, 1):
                files.append(tmp_path / f"{method}{seed}.safetensors")
                write_weights(files[-1], build_model("digits-mlp"), {"method": method, "train_seed": str(seed)})
        assert run(*evaluation(files, tmp_path / "out"))[0] == 0
        summary = pd.read_csv(tmp_path / "out/summary.csv")
        assert set(zip(summary.method, summary.n_seeds, strict=True)) == {("sgd", 2), ("rwp", 2)}

    def test_torch_files_and_a_model_from_a_file(self, run, tmp_path):
        (tmp_path / "net.py").write_text(
            "from torch import nn\n"
            "def build(width):\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))\n"
        )
        model = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 10)
        )
        state = {f"module.{k}": v for k, v in model.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
        arguments = evaluation(tmp_path / "w.pth", tmp_path / "out", model=f"{tmp_path}/net.py:build")
        assert run(*arguments, "--model-args", "width=12")[0] == 0

    def test_a_device_over_time(self, run, weights, tmp_path):
        arguments = evaluation(weights, tmp_path / "out", noise="pcm-nandakumar-2019", levels=["clean", "1s", "1d"])
        assert run(*arguments)[0] == 0
        draws = pd.read_csv(tmp_path / "out/draws.csv")
        assert draws.groupby("level").size().to_dict() == {0.0: 1, 1.0: 2, 86400.0: 2}
        assert set(draws.level_name) == {"t"}

    @pytest.mark.slow
    def test_interrupted_by_ctrl_c_it_goes_on(self, weights, tmp_path):
        out = tmp_path / "out"
        arguments = [sys.executable, "-m", "noiserobust", *evaluation(weights, out, levels=["0.1", "0.2"], draws=150)]
        process = subprocess.Popen(
            arguments,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A shell starts what it puts in the background, these tests too, with Ctrl-C ignored; children inherit it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        journal = out / ".draws.journal.csv"
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size > 1000):
            assert time.monotonic() < deadline, "nothing was written"
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "the same command goes on" in err
        assert "Traceback" not in err
        done = len(journal.read_text().splitlines())
        assert 0 < done < 300
        subprocess.run(arguments, check=True, capture_output=True)
        whole = pd.read_csv(out / "draws.csv")
        assert len(whole) == 300
        assert not journal.exists()


class TestBadInputOfEvaluate:
    def check(self, run, given, tmp_path, *words, **changes):
        out = changes.pop("out", tmp_path / "out")
        line = refused(run(*evaluation(changes.pop("weights", given), out, **changes)))
        for word in words:
            assert word in line, line
        assert not (tmp_path / "out" / "draws.csv").exists()

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"weights": "nothing.safetensors"}, ["weights file nothing.safetensors"]),
            ({"model": "digits-mpl"}, ["`model`", "did you mean 'digits-mlp'?"]),
            ({"model": "no/such.py:build"}, ["no/such.py"]),
            ({"data": "digit"}, ["`data`", "did you mean 'digits'?"]),
            ({"data": "npz:nothing.npz"}, ["nothing.npz"]),
            ({"data": "imagefolder:nothing"}, ["nothing"]),
            ({"noise": "gausian"}, ["`noise`", "did you mean 'gaussian'?"]),
            ({"noise": "pcm-nandakumar-2018"}, ["did you mean 'pcm-nandakumar-2019'?"]),
            ({"noise": "nothing.yaml"}, ["nothing.yaml"]),
            ({"levels": ["-0.1"]}, ["`sigma`", ">= 0", "-0.1"]),
            ({"levels": ["nan"]}, ["`sigma`", "nan"]),
            ({"levels": ["inf"]}, ["`sigma`", "inf"]),
            ({"levels": ["a"]}, ["`sigma`", "'a'"]),
            ({"levels": []}, ["levels"]),
            ({"levels": ["0.1", "0.10"]}, ["distinct"]),
            ({"noise": "pcm-nandakumar-2019", "levels": ["0"]}, ["`t`", "> 0"]),
            ({"noise": "pcm-nandakumar-2019", "levels": ["1 fortnight"]}, ["`t`", "1d"]),
            ({"draws": 0}, ["`draws`", ">= 1"]),
            ({"draws": "many"}, ["`draws`", "int"]),
            ({"seed": -1}, ["`seed`", ">= 0"]),
            ({"batch_size": 0}, ["`batch_size`", ">= 1"]),
            ({"device": "cuda:99"}, ["`device`", "cuda:99"]),
            ({"precision": "fp8"}, ["`precision`", "'fp8'"]),
            ({"normalize": "cifar11"}, ["normalize", "did you mean 'cifar10'?"]),
            ({"model_args": "hidden"}, ["name=value"]),
            ({"model_args": "hiden=3"}, ["hiden"]),
        ],
        ids=lambda v: "-".join(f"{k}={w}" for k, w in v.items()) if isinstance(v, dict) else "",
    )
    def test_one_line(self, run, weights, tmp_path, changes, words):
        self.check(run, weights, tmp_path, *words, **changes)

    def test_empty_weights(self, run, weights, tmp_path):
        for name in ("e.safetensors", "e.pt"):
            (tmp_path / name).write_bytes(b"")
            self.check(run, weights, tmp_path, name, "empty", weights=tmp_path / name)

    def test_weights_that_carry_code(self, run, weights, tmp_path):
        class Payload:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/owned",)

        torch.save({"state_dict": Payload()}, tmp_path / "evil.pt")
        self.check(run, weights, tmp_path, "evil.pt", "code", weights=tmp_path / "evil.pt")
        (tmp_path / "evil.pth").write_bytes(pickle.dumps(Payload()))
        self.check(run, weights, tmp_path, "evil.pth", weights=tmp_path / "evil.pth")
        assert not (tmp_path / "owned").exists()

    def test_weights_of_another_model(self, run, weights, tmp_path):
        write_weights(tmp_path / "cnn.safetensors", build_model("digits-cnn"), {})
        self.check(run, weights, tmp_path, "cnn.safetensors", weights=tmp_path / "cnn.safetensors")
        write_weights(tmp_path / "wide.safetensors", build_model("digits-mlp", {"hidden": 32}), {})
        self.check(run, weights, tmp_path, "(32, 64)", "(256, 64)", weights=tmp_path / "wide.safetensors")

    def test_weights_with_nan(self, run, weights, tmp_path):
        state = build_model("digits-mlp").state_dict()
        next(iter(state.values()))[0, 0] = float("nan")
        torch.save(state, tmp_path / "nan.pt")
        self.check(run, weights, tmp_path, "nan.pt", "finite", weights=tmp_path / "nan.pt")

    def test_images_and_labels_that_do_not_fit(self, run, weights, tmp_path):
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "big.npz", x=rng.random((5, 1, 9, 9), dtype=np.float32), y=np.arange(5))
        self.check(run, weights, tmp_path, "(5, 1, 9, 9)", data=f"npz:{tmp_path}/big.npz")
        np.savez(tmp_path / "labels.npz", x=rng.random((5, 1, 8, 8), dtype=np.float32), y=np.arange(8, 13))
        self.check(run, weights, tmp_path, "0..9", "12", data=f"npz:{tmp_path}/labels.npz")

    def test_an_out_that_cannot_be_written(self, run, weights, tmp_path):
        (tmp_path / "file").write_text("x")
        self.check(run, weights, tmp_path, "write", out=tmp_path / "file" / "out")
        self.check(run, weights, tmp_path, "/proc/nowhere", out="/proc/nowhere")

    def test_two_files_of_one_train_seed(self, run, weights, tmp_path):
        self.check(run, weights, tmp_path, "different train seeds", weights=[weights, weights])


def training(tmp_path, *more):
    settings = {"model": "digits-mlp", "data": "digits", "epochs": 1, "batch_size": 100, "model_args": {"hidden": 8}}
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(settings))
    return ["train", "--config", config, "--out", tmp_path / "run", *more]


class TestTrain:
    def test_trains_for_a_noise_with_several_seeds(self, run, tmp_path):
        status, out, _ = run(
            *training(tmp_path, "--method.name", "rwp", "--method.noise.level", "0.1", "--seeds", 0, 3)
        )
        assert status == 0
        files = [Path(line) for line in out.split()]
        assert [f.relative_to(tmp_path).as_posix() for f in files] == [f"run/seed{s}/best.safetensors" for s in (0, 3)]
        metrics = pd.read_csv(tmp_path / "run/seed3/metrics.csv")
        assert metrics.train_seed.tolist() == [3]
        manifest = json.loads((tmp_path / "run/manifest.json").read_text())
        assert manifest["configuration"]["method"]["noise"]["level"] == 0.1
        arguments = evaluation(files, tmp_path / "eval")
        assert run(*arguments, "--model-args", "hidden=8")[0] == 0
        assert set(pd.read_csv(tmp_path / "eval/draws.csv").train_seed) == {0, 3}

    def test_a_launcher_that_leaves_things_out(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        line = refused(run(*training(tmp_path)))
        assert "what torchrun sets" in line
        assert "LOCAL_RANK" in line
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (["--method.name", "sma"], ["`method.name`", "did you mean 'sam'?"]),
            (["--method.rho", "-1"], ["`method.rho`", ">= 0"]),
            (["--epochs", "0"], ["`epochs`", ">= 1"]),
            (["--epochs", "ten"], ["`epochs`", "int"]),
            (["--optimizer.lr", "0"], ["`optimizer.lr`", "> 0"]),
            (["--held_out", "1"], ["`held_out`", "< 1"]),
            (["--lr_schedule", "cosin"], ["`lr_schedule`", "did you mean 'cosine'?"]),
            (["--seeds", "0", "0"], ["`seeds`", "distinct"]),
            (["--seeds", "-1"], ["`seeds`", ">= 0"]),
            (["--epoch_s", "3"], ["'epoch_s'", "did you mean 'epochs'?"]),
            (["--method.name", "rwp", "--method.noise.reference", "l3"], ["`reference`", "'l3'"]),
            (["--select.noise.name", "gaussin"], ["`noise`", "did you mean 'gaussian'?"]),
            (["--augment.crop", "-1"], ["`augment.crop`", ">= 0"]),
            (
                ["--method.name", "sam", "--method.noise.level", "0.3"],
                ["`method.noise`", "rwp, arwp, was only", "'sam'"],
            ),
            (
                ["--method.name", "sgd", "--method.noise.name", "laplace"],
                ["`method.noise`", "rwp, arwp, was only", "'sgd'"],
            ),
            (["--method.noise.reference", "l2"], ["`method.noise.level` to be given", "'l2'"]),
            (["--method.name", "rwp", "--method.rho", "0.1"], ["`method.rho`", "sam, asam only", "'rwp'"]),
            (["--method.draws", "abc"], ["`method.draws`", "int or null", "'abc'"]),
            (["--method.name", "was", "--method.noise.name", "gaussian"], ["KernelTransform"]),
            (["--method.name", "rwp", "--method.noise.name", "kernels"], ["kernels", "'was' only"]),
            (["--method.name", "sam", "--method.schedule.name", "linear", "--method.schedule.steps", "0"], ["`steps`"]),
            (
                ["--method.name", "rwp", "--method.two_batches", "true"],
                ["`method.two_batches`", "perturbed_weight < 1"],
            ),
            (["--checkpoint-minutes", "-1"], ["`checkpoint-minutes`", ">= 0"]),
            (["--resume"], ["to hold a training to resume"]),
            (["--device", "meta"], ["`device`", "holds no numbers"]),
            (
                ["--method.name", "sgd", "--method.perturbed_weight", "0.5"],
                ["`method.perturbed_weight`", "sam, asam, robust, rwp, arwp, was only"],
            ),
        ],
        ids=lambda v: " ".join(v) if v and v[0].startswith("--") else "",
    )
    def test_bad_settings(self, run, tmp_path, more, words):
        line = refused(run(*training(tmp_path, *more)))
        for word in words:
            assert word in line, line
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("method: [rwp]", "`method`"),
            ("method: {name: rwp, schedule: null}", "`method.schedule`"),
            ("method: {name: rwp}\nmethod: {name: sam}", "'method' twice"),
            ("out: elsewhere", "`out`"),
            ("model_args: {1: 2}", "`model_args`"),
            ("", "nothing"),
        ],
    )
    def test_a_file_that_means_nothing(self, run, tmp_path, text, said):
        (tmp_path / "bad.yaml").write_text(text)
        assert said in refused(run(*training(tmp_path, "--config", str(tmp_path / "bad.yaml"))))
        assert not (tmp_path / "run").exists()

    def test_options_replace_what_the_file_says_wherever_they_stand(self, run, tmp_path):
        (tmp_path / "c.yaml").write_text("model: digits-mlp\ndata: digits\nepochs: 3\n")
        line = refused(run("train", "--epochs", "0", "--config", tmp_path / "c.yaml", "--out", tmp_path / "run"))
        assert "`epochs`" in line

    def test_a_misspelt_key_in_the_file(self, run, tmp_path):
        (tmp_path / "bad.yaml").write_text("model: digits-mlp\ndata: digits\nmetod: {name: sam}\n")
        line = refused(run("train", "--config", tmp_path / "bad.yaml", "--out", tmp_path / "run"))
        assert "'metod.name'" in line
        assert "did you mean 'method.name'?" in line

    def test_a_file_that_is_missing_or_builds_objects(self, run, tmp_path):
        assert "nothing.yaml" in refused(run("train", "--config", "nothing.yaml", "--out", tmp_path / "run"))
        (tmp_path / "evil.yaml").write_text(f"model: !!python/object/apply:os.system ['touch {tmp_path}/owned']\n")
        status, _, err = run("train", "--config", tmp_path / "evil.yaml", "--out", tmp_path / "run")
        assert status == 2
        assert "Traceback" not in err
        assert not (tmp_path / "owned").exists()

    def test_another_configuration_is_refused(self, run, tmp_path):
        assert run(*training(tmp_path))[0] == 0
        assert "differing: epochs" in refused(run(*training(tmp_path, "--epochs", "2")))


class TestOtherVerbs:
    def test_help_and_no_verb(self, run, capsys):
        assert run()[0] == 0
        for verb in ("demo", "train", "evaluate", "report", "diagnose", "profiles"):
            with pytest.raises(SystemExit) as stop:
                main([verb, "--help"])
            assert stop.value.code == 0
        assert "usage" in capsys.readouterr().out

    def test_misspelt_verb(self, run):
        assert "did you mean 'evaluate'?" in refused(run("evalute"))

    @pytest.mark.slow
    def test_report(self, run, weights, tmp_path):
        assert run(*evaluation(weights, tmp_path / "out"))[0] == 0
        status, out, _ = run("report", tmp_path / "out", "--out", tmp_path / "report")
        assert status == 0
        assert Path(out.strip()).read_text().startswith("<!doctype html>")
        assert "nowhere" in refused(run("report", tmp_path / "nowhere", "--out", tmp_path / "report2"))

    def test_profiles(self, run):
        assert "pcm-nandakumar-2019" in run("profiles", "list")[1]
        shown = yaml.safe_load(io.StringIO(run("profiles", "show", "pcm-nandakumar-2019")[1]))
        assert shown["conductance"]["g_max_us"] == 25.0
        refused(run("profiles", "show"))
        refused(run("profiles", "shw"))
        assert "pcm-nandakumar-2019" in refused(run("profiles", "show", "pcm-nandakumar"))

    def test_digits_are_what_the_demo_says(self):
        data = load_data("digits", "test")
        assert len(data) == 797


@pytest.mark.thorough
def test_demo_end_to_end(tmp_path):
    """The main job; run twice: the second time everything is there already."""
    command = [sys.executable, "-m", "noiserobust", "demo", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"The report: {tmp_path}/demo/report/report.html" in done.stdout
    draws = pd.concat(pd.read_csv(p) for p in sorted((tmp_path / "demo/evaluate").glob("*/draws.csv")))
    assert draws.groupby("method").train_seed.nunique().to_dict() == {"rwp": 3, "sam": 3, "sgd": 3}
    means = draws[draws.noise == "gaussian"].groupby(["level", "method"]).value.mean()
    assert means[0.3]["rwp"] > means[0.3]["sam"] > means[0.3]["sgd"]  # the methods visibly differ
    before = {p: p.read_bytes() for p in (tmp_path / "demo").rglob("*") if p.is_file()}
    subprocess.run(command, capture_output=True, check=True)
    assert before == {p: p.read_bytes() for p in (tmp_path / "demo").rglob("*") if p.is_file()}


class TestWhatCarelessUsersDid:
    def test_trainings_of_two_configurations_are_not_pooled(self, run, tmp_path):
        for name, epochs in (("a", 1), ("b", 2)):
            assert run(*training(tmp_path, "--epochs", epochs, "--seeds", 0, 1, "--out", tmp_path / name))[0] == 0
            files = sorted((tmp_path / name).glob("seed*/best.safetensors"))
            assert run(*evaluation(files, tmp_path / "q" / name, model_args="hidden=8"))[0] == 0
        mixed = [tmp_path / "a/seed0/best.safetensors", tmp_path / "b/seed1/best.safetensors"]
        assert "one configuration" in refused(run(*evaluation(mixed, tmp_path / "mixed", model_args="hidden=8")))
        assert "one training" in refused(run("report", tmp_path / "q", "--out", tmp_path / "report"))

    def test_a_deleted_or_emptied_result_is_made_anew(self, run, tmp_path):
        assert run(*training(tmp_path))[0] == 0
        best = tmp_path / "run/seed0/best.safetensors"
        before = best.read_bytes()
        for spoil in (best.unlink, lambda: best.write_bytes(b"")):
            spoil()
            assert run(*training(tmp_path))[0] == 0
            assert best.read_bytes() == before

    def test_scores_that_are_no_numbers_are_no_accuracy(self, run, weights, tmp_path):
        assert "NaN" in refused(run(*evaluation(weights, tmp_path / "out", levels=["1e39"])))

    def test_dashes_and_underscores_are_one(self, run, weights, tmp_path):
        assert run(*training(tmp_path, "--batch-size", 200, "--held-out=0.2"))[0] == 0
        arguments = evaluation(weights, tmp_path / "out")
        assert run(*arguments, "--batch_size", 200)[0] == 0
        assert "'lr'" in refused(run(*training(tmp_path, "--lr", "0.1")))

    def test_a_configuration_that_is_no_text(self, run, tmp_path):
        (tmp_path / "latin.yaml").write_bytes("model: café".encode("latin-1"))
        assert "UTF-8" in refused(run("train", "--config", tmp_path / "latin.yaml", "--out", tmp_path / "run"))

    def test_code_that_exits(self, run, weights, tmp_path):
        (tmp_path / "net.py").write_text("import sys\ndef build():\n    sys.exit(0)\n")
        assert "SystemExit" in refused(run(*evaluation(weights, tmp_path / "out", model=f"{tmp_path}/net.py:build")))
