"""YAML files of plain data: nothing is built or run, nothing is taken twice, nothing contains itself."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from noiserobust.errors import InvalidValueError
from noiserobust.textfile import read_text

_LARGEST = 1 << 20  # bytes: PyYAML takes seconds for it
_MOST_VALUES = 200_000  # with those of anchors written out wherever they are named
_DEEPEST = 64
_LARGEST_INTEGER = 1000  # digits: Python writes no more than 4300


def read_yaml(path: Path) -> Any:
    """Read a YAML file safely: plain data only, no tags that build objects.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is not UTF-8 YAML of plain data, a key occurs twice in one place, or it stands for more
            than a file of settings does: values without end by anchors, lists in lists, integers of many digits.
    """
    wanted = "to be YAML of plain data in UTF-8"
    text = read_text(path, wanted, at_most=_LARGEST)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise InvalidValueError(f"Expected {path} {wanted}, but got: {error}") from None


def parse_yaml(text: str) -> Any:
    """Return the plain data that a text in YAML stands for.

    Raises:
        ValueError: as :func:`read_yaml` raises; the message says what is wrong.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets errors of Python's own pass: 2021-13-45 is a ValueError, `!!bool x` a KeyError.
        raise ValueError(" ".join(str(error).split())) from None


def read_settings(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is no YAML mapping of plain data with names as keys.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InvalidValueError(f"Expected {path} to hold settings, `name: value`, but got {_kind(content)}")
    for key in content:
        if not isinstance(key, str):
            raise InvalidValueError(f"Expected {path} to have names as keys, but got {key!r}")
    return content


def _kind(content: object) -> str:
    kinds = {type(None): "nothing", list: "a list", str: "text"}
    return kinds.get(type(content), repr(content))


class _Loader(yaml.SafeLoader):
    """Refuses a key that occurs twice, an anchor inside itself, and what would stand for too much."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._anchors_open: list[str | None] = []
        self._sizes: dict[int, int] = {}  # of nodes, by id: how many values they stand for

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.YAMLError(f"{key!r} twice{key_node.start_mark}")
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        # Hexadecimal ones have no limit of Python's own, and then no one could say what they are.
        if node.tag == "tag:yaml.org,2002:int" and len(str(value)) > _LARGEST_INTEGER:
            raise yaml.YAMLError(f"an integer of {len(value)} digits{node.start_mark}")
        return value

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.NodeEvent = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._anchors_open:
                raise yaml.YAMLError(f"&{anchor} inside itself")
            return super().compose_node(parent, index)
        if len(self._anchors_open) >= _DEEPEST:
            raise yaml.YAMLError(f"values in each other, more than {_DEEPEST} deep{event.start_mark}")
        self._anchors_open.append(anchor)
        try:
            node = super().compose_node(parent, index)
        finally:
            self._anchors_open.pop()
        self._sizes[id(node)] = size = 1 + sum(self._sizes[id(part)] for part in _parts(node))
        if size > _MOST_VALUES:
            raise yaml.YAMLError(f"more than {_MOST_VALUES:,} values{event.start_mark}")
        return node


def _parts(node: yaml.Node | None) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
