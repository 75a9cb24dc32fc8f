import pickle
import sys

import pytest

from noiserobust.callables import call, load_callable
from noiserobust.errors import InvalidValueError, MissingFileError


@pytest.fixture
def user_file(tmp_path):
    def write(text, name="user.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_is_imported_with_its_neighbours_and_leaves_sys_path_alone(user_file, tmp_path):
    user_file("VALUE = 7\n", "noiserobust_test_neighbour.py")
    path = user_file("from noiserobust_test_neighbour import VALUE\ndef make(): return VALUE\n")
    before = list(sys.path)
    assert load_callable(f"{path}:make", "model")() == 7
    assert sys.path == before
    del sys.modules["noiserobust_test_neighbour"]


def test_classes_of_a_file_can_be_dataclasses_and_be_pickled(user_file):
    path = user_file(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: int = 1\n    @classmethod\n    def make(cls): return cls(3)\n"
    )
    point = load_callable(f"{path}:Point.make", "model")()
    assert point.x == 3
    assert pickle.loads(pickle.dumps(point)) == point


def test_a_file_is_imported_once_and_again_after_an_edit(user_file):
    path = user_file("def f(): return 1\n")
    first = load_callable(f"{path}:f", "model")
    assert load_callable(f"{path}:f", "data") is first
    user_file("def f(): return 2\n")
    assert load_callable(f"{path}:f", "model")() == 2


def test_a_module_is_found_in_the_working_directory(user_file, tmp_path, monkeypatch):
    user_file("def f(): return 5\n", "noiserobust_test_module.py")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_callable("noiserobust_test_module:f", "model")() == 5
    assert sys.path == before
    del sys.modules["noiserobust_test_module"]
    assert load_callable("json:dumps", "model")([1]) == "[1]"


@pytest.mark.parametrize("spec", ["user.py", "user.py:", ":f", "a.b", "a:not valid", "a:f()"])
def test_other_forms_are_refused(spec):
    with pytest.raises(InvalidValueError, match=r"Expected `model` to be `package.module:callable` or"):
        load_callable(spec, "model")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnett", r"has no 'resnett'; did you mean 'resnet'\?"),
        ("NUMBER", "'NUMBER' in .*user.py is of type int"),
    ],
)
def test_a_missing_or_wrong_name(user_file, name, message):
    path = user_file("NUMBER = 3\ndef resnet(): pass\n")
    with pytest.raises(InvalidValueError, match=message):
        load_callable(f"{path}:{name}", "model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise KeyError('lost')", "user.py to be importable, but it raised KeyError: 'lost'"),
        ("import noiserobust_no_such", "raised ModuleNotFoundError: No module named 'noiserobust_no_such'"),
        ("def f(:", r"raised SyntaxError: .*line 1"),
        ("import sys; sys.exit(3)", "raised SystemExit: 3"),
    ],
)
def test_a_file_that_fails_is_named_with_its_error(user_file, text, message):
    path = user_file(text)
    modules = set(sys.modules)
    with pytest.raises(InvalidValueError, match=message) as caught:
        load_callable(f"{path}:f", "model")
    assert caught.value.__cause__ is not None
    assert not [name for name in set(sys.modules) - modules if name.startswith("_noiserobust_user")]


def test_missing_files_and_modules(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        load_callable(f"{tmp_path}/absent.py:f", "model")
    with pytest.raises(MissingFileError, match="is a folder"):
        load_callable(f"{tmp_path}/:f", "model")
    for module in ("noiserobust_absent", "noiserobust_absent.models", "json.absent"):
        with pytest.raises(MissingFileError, match=r"there is no module 'noiserobust_absent|json.absent'"):
            load_callable(f"{module}:f", "model")
    (tmp_path / "weights.txt").write_text("")
    with pytest.raises(InvalidValueError, match=r"ending in \.py"):
        load_callable(f"{tmp_path}/weights.txt:f", "model")


def test_a_broken_module_is_not_called_missing(user_file, tmp_path, monkeypatch):
    user_file("1 / 0", "noiserobust_test_broken.py")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidValueError, match="noiserobust_test_broken to be importable, but it raised ZeroDivision"):
        load_callable("noiserobust_test_broken:f", "model")


def test_call_tells_wrong_arguments_from_a_failing_function():
    def make(depth, width=3):
        return [depth] * (1 // width)

    assert call(make, "m", "model", depth=2, width=1) == [2]
    with pytest.raises(InvalidValueError, match=r"\(depth, width=3\), but got .*; did you mean 'depth'\?"):
        call(make, "m", "model", detph=2)
    with pytest.raises(InvalidValueError, match="raised ZeroDivisionError") as caught:
        call(make, "m", "model", depth=2, width=0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    # A builtin without a signature is simply called.
    assert call(dict, "dict", "model", a=1) == {"a": 1}
