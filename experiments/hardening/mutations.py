"""What may be wrong with a text file, by kind; the same random numbers make the same file."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Mutation = Callable[[Path, random.Random], None]

NUMBERS = [
    *("nan", "-nan", "inf", "-inf", ".nan", ".inf", "1e999", "-1e999", "1e-999", "-1", "0", "-0.0", "0.5", "1e18"),
    *("9" * 30, "9" * 400, "9" * 5000, "0x" + "f" * 6000, "1_000", "1:30", "٣", "1e", "--1", "NaN", "Infinity"),
]
TEXTS = [
    *("", " ", "null", "true", "no", "[]", "{}", "'", '"', "\\", "%s%n", "../../stray", "/etc/passwd", "~"),
    *("\x1b[31mred\x1b]0;title\x07", "a\rb", "a\u2028b", "\u202eabc", "x" * 10_000, "=cmd|' /C calc'!A0", "<b>", "a,b"),
    *(
        "$(touch stray)",
        "`touch stray`",
        "os.system",
        "stray.py:run",
        "http://127.0.0.1:9/x",
        "digits.yaml",
        "-",
        "--out",
    ),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 0.5, 1e300, -1e300, 10**30, 10**400, 2**63, "", "x", "nan", "1e999", "../../stray"),
    *([], {}, [None], [[]], {"a": 1}, {"": ""}, [1] * 1000, list(range(50)), "\x1b[31mred", "x" * 10_000, ["a", "a"]),
]

TAGS = [
    "!!python/object/apply:os.system ['touch stray']",
    "!!python/object/new:os.system ['touch stray']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!binary R0lGODlh",
    "!!set {a, b}",
    "!!timestamp 2021-13-45",
    "!include /etc/passwd",
    "!!int x",
    "!!bool x",
    "!!omap [a: 1]",
    "&a *a",
    "2021-01-01",
]


def _text(change: Callable[[str, random.Random], str]) -> Mutation:
    def mutate(path: Path, rng: random.Random) -> None:
        path.write_bytes(change(path.read_bytes().decode("utf-8"), rng).encode("utf-8", "surrogatepass"))

    return mutate


def _bytes(change: Callable[[bytes, random.Random], bytes]) -> Mutation:
    def mutate(path: Path, rng: random.Random) -> None:
        path.write_bytes(change(path.read_bytes(), rng))

    return mutate


def _put(content: bytes, piece: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(content))
    return content[:at] + piece + content[at:]


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _lines(change: Callable[[list[str], random.Random], list[str]]) -> Mutation:
    return _text(lambda text, rng: "".join(change(text.splitlines(keepends=True), rng)))


def _shuffled(lines: list[str], rng: random.Random) -> list[str]:
    return rng.sample(lines, len(lines))


def _without_one(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return lines[:at] + lines[at + 1 :]


def _doubled_one(lines: list[str], rng: random.Random) -> list[str]:
    at = rng.randrange(len(lines))
    return lines[: at + 1] + lines[at:]


def _token(text: str, rng: random.Random) -> str:
    """Put something else in the place of a word or number."""
    ends = [i for i, sign in enumerate(text) if sign in ' ,:\n[]{}"'] or [0]
    at = rng.choice(ends)
    after = next((i for i in ends if i > at), len(text))
    return text[: at + 1] + rng.choice([*NUMBERS, *TEXTS]) + text[after:]


# Files of the system


def _instead(make: Callable[[Path], object]) -> Mutation:
    def mutate(path: Path, rng: random.Random) -> None:
        path.unlink()
        make(path)

    return mutate


def _unreadable(path: Path, rng: random.Random) -> None:
    path.chmod(0)


ANY: dict[str, Mutation] = {
    "empty": _bytes(lambda content, rng: b""),
    "folder in its place": _instead(lambda path: path.mkdir()),
    "pipe in its place": _instead(lambda path: os.mkfifo(path)),
    "device in its place": _instead(lambda path: path.symlink_to("/dev/zero")),
    "link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "link to nowhere": _instead(lambda path: path.symlink_to("nowhere")),
    "missing": _instead(lambda path: None),
    "unreadable": _unreadable,
    "truncated": _bytes(lambda content, rng: content[: rng.randrange(len(content))]),
    "bits flipped": _bytes(_flip),
    "not UTF-8": _bytes(lambda content, rng: _put(content, rng.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80"]), rng)),
    "UTF-16": _bytes(lambda content, rng: content.decode("utf-8").encode("utf-16")),
    "zero bytes": _bytes(lambda content, rng: _put(content, b"\0" * rng.choice([1, 100, 4096]), rng)),
    "other bytes": _bytes(lambda content, rng: rng.randbytes(rng.choice([1, 10, 1000]))),
}

TEXT: dict[str, Mutation] = {
    "byte order mark": _bytes(lambda content, rng: b"\xef\xbb\xbf" + content),
    "CRLF": _bytes(lambda content, rng: content.replace(b"\n", b"\r\n")),
    "control characters": _text(lambda t, rng: _put(t.encode(), b"\x1b]0;x\x07\x1b[2J\r\x7f", rng).decode()),
    "a word replaced": _text(_token),
    "a number replaced": _text(
        lambda t, rng: t if not (found := [i for i, s in enumerate(t) if s.isdigit()]) else _number(t, found, rng)
    ),
    "a line left out": _lines(_without_one),
    "a line twice": _lines(_doubled_one),
    "lines shuffled": _lines(_shuffled),
    "twice": _text(lambda t, rng: t + t),
    "something inside": _text(
        lambda t, rng: _put(t.encode("ascii", "ignore"), rng.choice(TEXTS).encode(), rng).decode()
    ),
    "a long line": _text(lambda t, rng: _put(t.encode("ascii", "ignore"), b"x" * 5_000_000, rng).decode()),
}


def _number(text: str, places: list[int], rng: random.Random) -> str:
    start = end = rng.choice(places)
    while start > 0 and text[start - 1] in "0123456789.e-+":
        start -= 1
    while end < len(text) and text[end] in "0123456789.e-+":
        end += 1
    return text[:start] + rng.choice(NUMBERS) + text[end:]


# Structure: a value anywhere in what the file stands for


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return where there are values: each container with a key or an index."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _value(content: Any, rng: random.Random) -> Any:
    places = _places(content)
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    inside, key = rng.choice(places)
    inside[key] = rng.choice(VALUES)
    return content


def _key(content: Any, rng: random.Random) -> Any:
    places = [(inside, key) for inside, key in _places(content) if isinstance(inside, dict)]
    if places:
        inside, key = rng.choice(places)
        value = inside.pop(key)
        if rng.random() < 0.5:
            inside[rng.choice(["", f"{key}x", "\x1b[2J", "x" * 3000, "__class__", "noise", "level"])] = value
    return content


def _json(change: Callable[[Any, random.Random], Any]) -> Mutation:
    return _text(lambda text, rng: json.dumps(change(json.loads(text), rng)))


def _json_text(make: Callable[[random.Random], str]) -> Mutation:
    """Put a text in the place of one value."""

    def change(text: str, rng: random.Random) -> str:
        content = json.loads(text)
        places = _places(content)
        if not places:
            return make(rng)
        inside, key = rng.choice(places)
        inside[key] = "@place@"
        return json.dumps(content).replace('"@place@"', make(rng))

    return _text(change)


JSON: dict[str, Mutation] = {
    "another value": _json(_value),
    "another value ": _json(lambda c, rng: _value(_value(c, rng), rng)),
    "a key left out or renamed": _json(_key),
    "no JSON number": _json_text(lambda rng: rng.choice(["NaN", "-Infinity", "1e999", "9" * 5000, "01", "'x'"])),
    "nested deeply": _json_text(lambda rng: "[" * (n := rng.choice([60, 500, 900, 100_000])) + "]" * n),
    "a key twice": _json_text(lambda rng: '{"a": 1, "a": 2}'),
    "a long list": _json_text(lambda rng: json.dumps([rng.choice(VALUES)] * rng.choice([1000, 100_000]))),
}


def _yaml(change: Callable[[Any, random.Random], Any]) -> Mutation:
    def mutate(text: str, rng: random.Random) -> str:
        return str(yaml.safe_dump(change(yaml.safe_load(text), rng), sort_keys=False, allow_unicode=True))

    return _text(mutate)


def _yaml_text(make: Callable[[random.Random], str]) -> Mutation:
    def change(text: str, rng: random.Random) -> str:
        content = yaml.safe_load(text)
        inside, key = rng.choice(_places(content))
        inside[key] = "PLACE"
        return str(yaml.safe_dump(content, sort_keys=False, width=10**9)).replace("PLACE", make(rng))

    return _text(change)


def _bomb(rng: random.Random) -> str:
    """Return aliases of aliases of aliases, in lists, in mappings or merged."""
    kind = rng.choice(["list", "mapping", "merge"])
    depth = rng.choice([9, 20])
    before = "[x, x, x, x, x, x, x, x, x]" if kind == "list" else "{a: x}"
    lines = [f"bomb0: &b0 {before}"]
    for i in range(1, depth):
        own = ", ".join([f"*b{i - 1}"] * 9)
        named = ", ".join(f"k{j}: *b{i - 1}" for j in range(9))
        lines.append(
            f"bomb{i}: &b{i} " + {"list": f"[{own}]", "mapping": f"{{{named}}}", "merge": f"{{<<: [{own}]}}"}[kind]
        )
    return "\n".join(lines) + "\n"


def _deep(rng: random.Random) -> str:
    n = rng.choice([50, 200, 330, 2000, 20_000])
    return rng.choice(["[" * n + "]" * n, "{a: " * n + "}" * n])


YAML: dict[str, Mutation] = {
    "another value": _yaml(_value),
    "another value ": _yaml(lambda c, rng: _value(_value(c, rng), rng)),
    "a key left out or renamed": _yaml(_key),
    "a number that is none": _yaml_text(lambda rng: rng.choice(NUMBERS)),
    "a tag": _yaml_text(lambda rng: rng.choice(TAGS)),
    "an alias bomb": _text(lambda t, rng: _bomb(rng) + t if rng.random() < 0.5 else t.rstrip() + "\n" + _bomb(rng)),
    "nested deeply": _yaml_text(_deep),
    "a key twice": _text(lambda t, rng: t + "".join(rng.sample(t.splitlines(keepends=True), 1))),
    "a long list": _yaml_text(
        lambda rng: "[" + ", ".join([rng.choice(NUMBERS[:14])] * rng.choice([300, 50_000])) + "]"
    ),
    "several documents": _text(lambda t, rng: f"{t}\n---\n{t}"),
}


# Tables


def _cells(change: Callable[[list[list[str]], random.Random], None]) -> Mutation:
    def mutate(text: str, rng: random.Random) -> str:
        table = [line.split(",") for line in text.splitlines()]
        change(table, rng)
        return "".join(",".join(cells) + "\n" for cells in table)

    return _text(mutate)


def _cell(table: list[list[str]], rng: random.Random) -> None:
    row = rng.choice(table[1:] or table)
    row[rng.randrange(len(row))] = rng.choice([*NUMBERS, *TEXTS])


def _column(table: list[list[str]], rng: random.Random) -> None:
    column, value = rng.randrange(len(table[0])), rng.choice([*NUMBERS, *TEXTS])
    for row in table[1:]:
        row[column : column + 1] = [value]


def _no_column(table: list[list[str]], rng: random.Random) -> None:
    column = rng.randrange(len(table[0]))
    for row in table:
        del row[column : column + 1]


def _one_more(table: list[list[str]], rng: random.Random) -> None:
    for row in table:
        row.insert(len(row) // 2, rng.choice(["more", "1", ""]))


def _ragged(table: list[list[str]], rng: random.Random) -> None:
    row = rng.choice(table)
    row.pop() if rng.random() < 0.5 else row.append("1")


TABLE: dict[str, Mutation] = {
    "another cell": _cells(_cell),
    "another cell ": _cells(lambda table, rng: [_cell(table, rng) for _ in range(3)] and None),
    "another column": _cells(_column),
    "a column left out": _cells(_no_column),
    "a column more": _cells(_one_more),
    "a cell more or less": _cells(_ragged),
    "columns swapped": _cells(lambda table, rng: [row.reverse() for row in table] and None),
    "a quote that never ends": _text(lambda t, rng: _put(t.encode("ascii", "ignore"), b',"', rng).decode()),
    "rows twice": _lines(lambda lines, rng: lines + lines[1:]),
    "a column name twice": _lines(
        lambda lines, rng: [",".join([lines[0].split(",")[0]] * lines[0].count(",")) + "\n", *lines[1:]]
    ),
}


def kinds_of(path: Path) -> dict[str, Mutation]:
    """Return what can be done to a file, by kind."""
    own = {".yaml": YAML, ".json": JSON, ".csv": TABLE}.get(path.suffix)
    return {**ANY, **TEXT, **own} if own is not None else ANY
