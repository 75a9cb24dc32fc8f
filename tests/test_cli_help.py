"""What ``--help`` tells: of each option its unit, range or default, and for each command an example that runs."""

from __future__ import annotations

import inspect
import re
import shlex
from argparse import SUPPRESS, Action
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from jsonargparse import ArgumentParser

import noiserobust as nr
from noiserobust.cli import _VERBS, build_parser, main
from noiserobust.cli.help import examples_of, leaves, subparsers
from noiserobust.cli.parsing import parse

PARSER = build_parser()
LEAVES = dict(leaves(PARSER))
SWEEP = """\
base: {model: digits-mlp, data: digits, epochs: 1}
grid: {method.name: [sgd, rwp]}
evaluate: {gaussian: {noise: gaussian, levels: [0, 0.1], draws: 2}}
"""


def parsers(parser: ArgumentParser, *words: str) -> dict[tuple[str, ...], ArgumentParser]:
    found = {words: parser}
    for name, sub in subparsers(parser).items():
        found |= parsers(sub, *words, name)
    return found


def options() -> list[Any]:
    return [
        pytest.param(
            parser, action, id=" ".join([*words, action.option_strings[0] if action.option_strings else action.dest])
        )
        for words, parser in LEAVES.items()
        for action in parser._actions
        if action.help != SUPPRESS and not isinstance(action.default, type)
    ]


def is_number(kind: Any) -> bool:
    return kind in (int, float) or any(is_number(part) for part in get_args(kind))


def commands() -> list[list[str]]:
    return [command for parser in parsers(PARSER).values() for command in examples_of(parser)]


@pytest.mark.parametrize(("parser", "action"), options())
def test_an_option_says_what_it_is(parser: ArgumentParser, action: Action) -> None:
    assert action.help, "there is no help"
    if is_number(getattr(action, "_typehint", action.type)):
        said = parser._get_formatter()._expand_help(action)
        assert re.search(r">=|>|<|\bin [\[(]|default|such as|percent", said), said


@pytest.mark.parametrize("words", list(parsers(PARSER)), ids=" ".join)
def test_each_help_ends_with_an_example_as_it_is_typed(words: tuple[str, ...]) -> None:
    parser = parsers(PARSER)[words]
    examples = examples_of(parser)
    assert examples
    for example in examples:
        assert example[: 1 + len(words)] == ["noiserobust", *words] or "eval" in example
    text = parser.format_help()
    assert text.rstrip().endswith((parser.epilog or "").rstrip())
    assert "<class" not in text
    assert max(map(len, (parser.epilog or "").splitlines())) <= 120


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_example_is_understood(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command[-1] == "--help":
        with pytest.raises(SystemExit) as stop:
            main(command[1:])
        assert stop.value.code == 0
        return
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(SWEEP)
    Path("base.yaml").write_text("{model: digits-mlp, data: digits, epochs: 1}")
    words = shlex.split(command[1].strip("$()")) if command[0] == "eval" else command
    settings = parse(PARSER, words[1:])
    assert settings.verb == words[1]


@pytest.mark.thorough
def test_the_examples_run_in_the_order_of_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    rows = [f"{g},{g + random.normal()},{t}" for g in range(1, 25) for t in (20, 3600)]
    Path("measurements.csv").write_text("\n".join(["target_us,measured_us,time_s", *rows]))
    Path("sweep.yaml").write_text(SWEEP)
    for command in commands():
        # Tested apart: in minutes, and by what a shell does with it.
        if command[0] == "eval" or "--help" in command or command[1] in ("demo", "tune"):
            continue
        words = [p for word in command[1:] for p in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
        assert main(words) == 0, words
    for path in ("results/gaussian/summary.csv", "results/pcm/draws.csv", "table.tex", "report/report.html"):
        assert Path(path).is_file()


def test_help_of_an_action_is_of_this_action_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["diagnose", "landscape", "--help"])
    out = capsys.readouterr().out
    assert "--points" in out
    assert "--rhos" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["diagnose"], "`action` to be one of sensitivity, sharpness"),
        (["diagnose", "landscap"], "did you mean 'landscape'?"),
        (["profiles"], "`action` to be one of list, show"),
        (["profiles", "list", "pcm-hermes-2"], "no further arguments, but got 'pcm-hermes-2'"),
        (["diagnose", "filters", "--model", "x", "--weights", "w", "--outt", "o"], "did you mean 'out'?"),
        (["compare", "results", "--basline", "sgd"], "did you mean 'baseline'?"),
    ],
)
def test_actions_are_refused_in_one_voice(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("noiserobust: error: Expected ")
    assert err.count("\n") == 1
    assert said in err


def test_every_public_name_says_what_it_is() -> None:
    for name in set(nr.__all__) - {"__version__"}:
        text = inspect.getdoc(getattr(nr, name)) or ""
        assert len(text.split()) >= 3, name


def test_every_verb_is_in_the_summary_of_the_package() -> None:
    import noiserobust.cli

    named = re.findall(r"[a-z]+", (noiserobust.cli.__doc__ or "").partition("``noiserobust")[2].partition("``")[0])
    assert set(named) == set(_VERBS)
