"""What a shell completes, asked of the shell itself."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from noiserobust.cli import build_parser, main, names
from noiserobust.cli.help import leaves
from noiserobust.config import METHODS
from noiserobust.data.normalize import parse_normalize
from noiserobust.data.registry import DATASETS
from noiserobust.evaluate.calibration import KINDS
from noiserobust.evaluate.metrics import METRICS
from noiserobust.executors import EXECUTORS
from noiserobust.models.registry import MODELS
from noiserobust.noise.profiles import profile_names
from noiserobust.noise.reference import GRANULARITIES, REFERENCES
from noiserobust.noise.registry import _NOISES
from noiserobust.report.papers.catalogue import CATALOGUE

BASH = shutil.which("bash")

ASK = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last} COMP_LINE={line} COMP_POINT=${{#COMP_LINE}}
_shtab_noiserobust noiserobust {word} {before} 2>/dev/null
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["completion", "bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "noiserobust.bash"
    path.write_text(out.getvalue())
    return path


def completed(script: Path, *words: str, folder: Path | None = None) -> list[str]:
    """Return what bash would offer for the last of the words."""
    assert BASH
    typed = ["noiserobust", *words]
    text = ASK.format(
        script=shlex.quote(str(script)),
        words=" ".join(map(shlex.quote, typed)),
        last=len(typed) - 1,
        line=shlex.quote(" ".join(typed)),
        word=shlex.quote(typed[-1]),
        before=shlex.quote(typed[-2]),
    )
    done = subprocess.run([BASH, "-c", text], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(BASH is None, reason="there is no bash")
class TestBash:
    @pytest.mark.parametrize(
        ("words", "found"),
        [
            (("eval",), ["evaluate"]),
            (("diagnose", "l"), ["landscape"]),
            (("profiles", "s"), ["show"]),
            (("evaluate", "--prec"), ["--precision"]),
            (("diagnose", "landscape", "--direct"), ["--direction-seed"]),
            (("train", "--method.noise.l"), ["--method.noise.level"]),
            (("compare", "--log"), ["--log-file"]),
            (("evaluate", "--model", "resnet3"), ["resnet32", "resnet34"]),
            (("evaluate", "--data", "cifar"), ["cifar10", "cifar100"]),
            (("evaluate", "--noise", "pcm-her"), ["pcm-hermes-1", "pcm-hermes-2"]),
            (("train", "--method.name", "s"), ["sgd", "sam"]),
            (("train", "--precision", "fp"), ["fp32", "fp16"]),
            (("evaluate", "--precision", "fp"), ["fp32"]),
            (("compare", "results", "--format", "la"), ["latex"]),
            (("profiles", "show", "pcm-her"), ["pcm-hermes-1", "pcm-hermes-2"]),
            (("completion", "z"), ["zsh"]),
        ],
    )
    def test_words_and_names(self, script: Path, words: tuple[str, ...], found: list[str]) -> None:
        assert completed(script, *words) == found

    def test_options_are_of_the_action(self, script: Path) -> None:
        offered = completed(script, "diagnose", "sharpness", "--")
        assert "--rhos" in offered
        assert "--points" not in offered

    def test_files(self, script: Path, tmp_path: Path) -> None:
        (tmp_path / "seed0.pt").touch()
        (tmp_path / "seed1.pt").touch()
        assert sorted(completed(script, "evaluate", "--weights", "se", folder=tmp_path)) == ["seed0.pt", "seed1.pt"]
        assert completed(script, "evaluate", "--weights", "a.pt", "seed1", folder=tmp_path) == ["seed1.pt"]
        assert completed(script, "train", "--config", "seed0", folder=tmp_path) == ["seed0.pt"]


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_the_line_that_installs_it_registers_it(script: Path) -> None:
    text = f'eval "$(cat {shlex.quote(str(script))})"; complete -p noiserobust'
    done = subprocess.run([str(BASH), "-c", text], capture_output=True, text=True, check=True)
    assert "_shtab_noiserobust" in done.stdout


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "landscape" in text
    assert "resnet32" in text
    if program := shutil.which(shell):
        done = subprocess.run([program, "-n", "/dev/stdin"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean 'bash'?" in capsys.readouterr().err


def test_the_names_are_those_that_are_known() -> None:
    assert set(names.MODELS) == set(MODELS)
    assert set(names.DATA) == set(DATASETS)
    assert set(names.NOISES) == set(_NOISES)
    assert set(names.profiles()) == set(profile_names())
    assert set(names.METRICS) == set(METRICS)
    assert set(names.REFERENCES) == set(REFERENCES)
    assert set(names.GRANULARITIES) == set(GRANULARITIES)
    assert set(names.EXECUTORS) == set(EXECUTORS)
    assert set(names.FIGURES) == set(CATALOGUE)
    assert set(names.choices()["calibrate"]) == set(KINDS)
    assert names.choices()["method.name"] == METHODS
    for name in names.NORMALIZES:
        parse_normalize(name)


def test_every_completion_is_of_an_option_that_there_is() -> None:
    known = {
        place
        for words, leaf in leaves(build_parser())
        for a in leaf._actions
        for place in (a.dest, " ".join((*words, a.dest)))
    }
    assert set(names.choices()) <= known
