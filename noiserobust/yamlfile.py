"""YAML files of plain data: nothing is built or run, nothing is taken twice, nothing contains itself."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from noiserobust.errors import InvalidValueError, MissingFileError


def read_yaml(path: Path) -> Any:
    """Read a YAML file safely: plain data only, no tags that build objects.

    Raises:
        MissingFileError: if there is no such file.
        InvalidValueError: if it is not UTF-8 YAML of plain data, or a key occurs twice in one place.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise MissingFileError(f"Expected a file {path}, but there is none") from None
    except OSError as error:
        raise InvalidValueError(f"Expected {path} to be readable, but got: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML lets errors of Python's own pass: 2021-13-45 is a ValueError, `!!bool x` a KeyError.
        reason = " ".join(str(error).split())
        raise InvalidValueError(f"Expected {path} to be YAML of plain data in UTF-8, but got: {reason}") from None


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
    """Refuses a key that occurs twice, and an anchor inside itself."""

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

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.NodeEvent = self.peek_event()  # type: ignore[no-untyped-call]
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor in self._open:
                raise yaml.YAMLError(f"&{anchor} inside itself")
            return super().compose_node(parent, index)
        self._open.append(anchor)
        try:
            return super().compose_node(parent, index)
        finally:
            self._open.pop()

    @property
    def _open(self) -> list[str | None]:
        stack: list[str | None] = self.__dict__.setdefault("_anchors_open", [])
        return stack
