"""``--quiet``, ``--verbose`` and ``--log-file``: who hears what."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from noiserobust import log
from noiserobust.cli import main
from noiserobust.errors import InvalidValueError, OutputError
from noiserobust.log import Messages, messages, note, say, take_messages
from noiserobust.models.registry import build_model
from noiserobust.models.weights import write_weights

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) \[\d+( rank \d+)?\] noiserobust\S*: .+"
)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_weights(tmp_path / "w.safetensors", build_model("digits-mlp"), {"method": "sgd", "train_seed": "0"})
    return tmp_path / "w.safetensors"


def evaluation(weights: Path, out: Path) -> list[str]:
    given = ["--model", "digits-mlp", "--weights", str(weights), "--data", "digits", "--noise", "gaussian"]
    return ["evaluate", *given, "--levels", "0", "0.1", "--draws", "2", "--out", str(out)]


@pytest.mark.parametrize(
    "words",
    [
        ["--log-file", "a.log", "compare", "results", "--quiet"],
        ["compare", "--quiet", "results", "--log-file=a.log"],
        ["compare", "results", "--log_file", "a.log", "--quiet"],
    ],
)
def test_they_stand_where_they_like(words: list[str]) -> None:
    assert take_messages(words) == (Messages(quiet=True, log_file=Path("a.log")), ["compare", "results"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--quiet", "--verbose"], "`--quiet` or `--verbose`"),
        (["--log-file"], "`--log-file` to be followed by a file, but got nothing"),
        (["--log-file", "--quiet"], "followed by a file, but got --quiet"),
        (["--log-file="], "got nothing"),
    ],
)
def test_careless_words(words: list[str], said: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(said)):
        take_messages(["compare", *words])


def test_quiet_says_the_result_and_nothing_else(capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    assert main([*evaluation(weights, weights.parent / "out"), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 3  # a table of two levels
    assert main([*evaluation(weights, weights.parent / "out")]) == 0
    assert "summary.csv" in capsys.readouterr().out
    assert main(["--quiet", "compare", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_verbose_says_what_was_decided_and_when(capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    out = weights.parent / "out"
    assert main(["--verbose", *evaluation(weights, out)]) == 0
    err = capsys.readouterr().err
    assert re.search(r"^\d\d:\d\d:\d\d +\d+\.\d s  evaluate\.settle: network: .+; fp32; batches of \d+$", err, re.M)
    assert "3 draws: 0 are done, 3 to do" in err
    assert "exit status 0 after" in err
    assert main([*evaluation(weights, out), "--verbose"]) == 0
    assert "3 draws: 3 are done, 0 to do" in capsys.readouterr().err


def test_without_either_nothing_of_it_is_seen(capsys: pytest.CaptureFixture[str], weights: Path) -> None:
    assert main(evaluation(weights, weights.parent / "out")) == 0
    assert capsys.readouterr().err == ""


def test_the_log_file_has_everything_and_is_appended_to(
    capsys: pytest.CaptureFixture[str], weights: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.log"
    assert main([*evaluation(weights, tmp_path / "out"), "--quiet", "--log-file", str(file)]) == 0
    first = file.read_text()
    assert main(["compare", "nowhere", "--log-file", str(file)]) == 2
    text = file.read_text()
    assert text.startswith(first)
    assert all(LINE.fullmatch(line) for line in text.splitlines())
    assert "network: " in first
    assert "exit status 0" in first
    assert re.search(r"ERROR .*nowhere", text)


def test_a_fault_leaves_its_traceback_there_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(settings: object) -> None:
        raise ZeroDivisionError("of ours")

    from noiserobust import cli

    monkeypatch.setitem(cli._VERBS, "compare", (*cli._VERBS["compare"][:1], broken, "compare"))
    file = tmp_path / "a.log"
    assert main(["compare", "x", "--log-file", str(file)]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: of ours" in err
    last = err.splitlines()[-1]
    assert str(file) in last
    assert "`noiserobust doctor`" in last
    text = file.read_text()
    assert "    Traceback (most recent call last):" in text
    assert "    ZeroDivisionError: of ours" in text
    assert main(["compare", "x"]) == 1
    assert "--log-file FILE" in capsys.readouterr().err


def test_a_full_disk_is_an_error_before_anything_is_done(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    assert main(["profiles", "list", "--log-file", "/dev/full"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "noiserobust: error: Expected to be able to write the log file /dev/full, but got: No space left on device\n"
    )
    assert main(["profiles", "list", "--log-file", str(tmp_path / "no/such/a.log")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_a_disk_that_becomes_full_ends_the_log_and_not_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with messages(Messages(log_file=tmp_path / "a.log")):
        handler = next(h for h in log.LOGGER.handlers if isinstance(h, log._LogFile))
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, handler.descriptor)
        os.close(full)
        log.LOGGER.info("one")
        log.LOGGER.info("two")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("noiserobust: error: Expected to be able to write the log file")


def test_several_processes_do_not_mix_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    code = (
        "import sys; from pathlib import Path; from noiserobust.log import LOGGER, Messages, messages\n"
        "with messages(Messages(log_file=Path(sys.argv[1]))):\n"
        "    for n in range(300): LOGGER.debug('%d %s', n, 'x' * 3000)\n"
    )
    ranks = [os.environ | {"RANK": str(rank)} for rank in range(3)]
    processes = [subprocess.Popen([sys.executable, "-c", code, str(file)], env=e) for e in ranks]
    assert [process.wait() for process in processes] == [0, 0, 0]
    lines = file.read_text().splitlines()
    assert len(lines) == 3 * 301
    assert all(LINE.fullmatch(line) for line in lines)
    for rank in range(3):
        own = [line for line in lines if f"rank {rank}]" in line and "DEBUG" in line]
        assert [int(line.split(": ", 1)[1].split()[0]) for line in own] == list(range(300))


def test_in_python_nothing_is_shown_and_nothing_configured() -> None:
    code = (
        "import logging, noiserobust\n"
        "from noiserobust.log import LOGGER\n"
        "LOGGER.error('an error')\n"
        "logging.getLogger('noiserobust.evaluate.settle').warning('a warning')\n"
        "assert not logging.getLogger().handlers\n"
        "assert logging.getLogger().level == logging.WARNING\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_afterwards_all_is_as_before(tmp_path: Path) -> None:
    handlers, level = list(log.LOGGER.handlers), log.LOGGER.level
    with messages(Messages(quiet=True, log_file=tmp_path / "a.log")):
        assert log.quiet()
    assert not log.quiet()
    assert (log.LOGGER.handlers, log.LOGGER.level) == (handlers, level)
    assert any(isinstance(h, logging.NullHandler) for h in log.LOGGER.handlers)
    with pytest.raises(OutputError), messages(Messages(log_file=tmp_path)):
        pass
    assert (log.LOGGER.handlers, log.LOGGER.level) == (handlers, level)


def test_what_is_good_to_know(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for how in (Messages(), Messages(quiet=True), Messages(verbose=True)):
        with messages(how):
            say("beside the result")
            note("of the result")
    out, err = capsys.readouterr()
    assert out == "beside the result\n" * 2
    lines = err.splitlines()
    assert lines[0] == "note: of the result"
    assert len(lines) == 2
    assert lines[1].endswith("note: of the result")


def test_warnings_are_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with messages(Messages()):
        warnings.simplefilter("always")
        warnings.warn("something\nof others", UserWarning, stacklevel=1)
    err = capsys.readouterr().err
    assert err.startswith("noiserobust: warning: UserWarning: something of others (")
    assert err.count("\n") == 1


def test_a_configuration_does_not_say_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{model: digits-mlp, data: digits, quiet: true}")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "`quiet` to be given as an option" in capsys.readouterr().err


def test_a_training_says_what_it_keeps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["train", "--model", "digits-mlp", "--data", "digits", "--epochs", "1", "--out", str(tmp_path / "run")]
    assert main([*words, "--log-file", str(tmp_path / "a.log"), "--quiet"]) == 0
    assert "epoch=1, " in (tmp_path / "a.log").read_text()
    capsys.readouterr()
    assert main([*words, "--verbose"]) == 0
    assert "train seed 0 is finished, and kept" in capsys.readouterr().err
