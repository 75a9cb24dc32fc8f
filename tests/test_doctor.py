"""What ``noiserobust doctor`` finds, on this machine and on broken ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from noiserobust.cli import main
from noiserobust.doctor import STATES, Diagnosis, Finding, as_text, examine, try_out, versions
from noiserobust.doctor.probes import PROBES, SLOW

QUICK = ["cores and memory", "disk", "temporary files", "file locks", "UTF-8"]


def test_what_it_says_of_the_machine_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = {finding.name: finding for finding in examine(QUICK).findings}
    assert list(found) == QUICK
    assert found["temporary files"].state == found["file locks"].state == "works"
    assert found["cores and memory"].details["cores"] >= 1
    assert found["disk"].details["free_gib"].keys() == {"here", "data", "temporary files"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_torch_and_gpu() -> None:
    found = {finding.name: finding for finding in examine(["torch", "GPU"]).findings}
    assert found["torch"].state == "works"
    assert torch.__version__ in found["torch"].text
    assert (found["GPU"].state == "works") == torch.cuda.is_available()


@pytest.mark.thorough
@pytest.mark.parametrize("thorough", [False, True])
def test_everything_is_tried_for_real(thorough: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--format", "json", *(["--thorough"] if thorough else [])]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {finding["name"]: finding["state"] for finding in found["findings"]}
    assert list(states) == list(PROBES)
    assert set(states.values()) <= set(STATES)
    for name in ("torch", "numbers", "figures", "worker processes", "data sets"):
        assert states[name] == "works", name
    if find_spec("aihwkit"):
        assert states["aihwkit noise"] == states["aihwkit torch tiles"] == "works"
    if find_spec("ray"):
        assert states["Ray"] == ("works" if thorough else "untried")
    assert ("untried" in states.values()) == (not thorough)
    assert found["versions"]["torch"] == torch.__version__
    assert "works" in found["summary"]


def test_the_table_has_a_summary_and_no_long_lines() -> None:
    found = Diagnosis(
        {"python": "3.11", "ray": None},
        [
            Finding("torch", "works", "torch 2, " + "many words " * 20, {}, 1.0),
            Finding("Ray", "absent", "not installed", {}, 0.1),
            Finding("locks", "limited", "none", {}, 0.1),
        ],
    )
    text = as_text(found, width=70)
    assert max(map(len, text.splitlines())) <= 70
    assert text.splitlines()[-1] == found.summary == "1 works; 1 limited (locks); 1 absent (Ray)"
    assert "not installed: ray" in text


class TestBrokenMachines:
    """Packages that crash, hang or fail, put before those that are installed."""

    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def put(name: str, code: str) -> None:
            (tmp_path / f"{name}.py").write_text(code)
            monkeypatch.setenv("PYTHONPATH", str(tmp_path))

        return put

    def test_a_crash(self, package) -> None:
        package("aihwkit", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
        found = try_out("aihwkit noise")
        assert (found.state, found.text) == ("fails", "it crashed: killed by SIGSEGV")

    @pytest.mark.thorough
    def test_a_hang_with_children(self, package, tmp_path: Path) -> None:
        package(
            "aihwkit",
            "import subprocess, sys, time\n"
            f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
            "time.sleep(60)\n",
        )
        start = time.monotonic()
        found = try_out("aihwkit noise", timeout=4)
        assert time.monotonic() - start < 30
        assert (found.state, found.text) == ("fails", "it took longer than 4 s, and was ended")
        status = Path("/proc", (tmp_path / "pid").read_text(), "stat")
        deadline = time.monotonic() + 10  # a process that was killed takes its time to go on a busy machine
        while status.exists() and status.read_text().split(") ")[1][0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_an_exit_and_an_error(self, package) -> None:
        package("aihwkit", "import sys\nsys.exit('no licence')\n")
        assert try_out("aihwkit noise").text == "it ended with exit status 1: no licence"
        package("aihwkit", "raise OSError('libcudart.so: cannot open')\n")
        assert try_out("aihwkit noise").text == "OSError: libcudart.so: cannot open"

    def test_a_module_of_the_working_folder_is_nobodys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "random.py").write_text("raise SystemExit('mine')\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("PYTHONPATH", raising=False)
        assert try_out("temporary files").state == "works"

    def test_text_that_is_not_utf8(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
            monkeypatch.setenv(name, value)
        found = try_out("UTF-8")
        assert found.state == "limited"
        assert "PYTHONUTF8=1" in found.text

    def test_no_room_for_temporary_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        code = (
            "import tempfile, sys; tempfile.tempdir = sys.argv[1]\n"
            "from noiserobust.doctor.probes import answer; print(answer('temporary files', False)['state'])"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "file")]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "fails\n"


@pytest.mark.thorough
def test_a_damaged_data_set_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"not an archive")
    monkeypatch.setenv("NOISEROBUST_DATA", str(tmp_path))
    found = try_out("data sets")
    assert found.state == "limited"
    assert found.details["test_images"] == {"digits": 797}
    assert found.details["broken"][0].startswith("cifar10: ")
    assert found.details["absent"] == ["cifar100", "mnist", "fashion-mnist"]


@pytest.mark.parametrize("words", [["--format", "yaml"], ["--timeout", "0"], ["--timeout", "soon"]])
def test_careless_options(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert words[0].removeprefix("--") in capsys.readouterr().err


def test_versions_are_those_that_are_imported() -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert (found["ray"] is None) == (find_spec("ray") is None)
    assert set(SLOW) <= set(PROBES)
