"""The leaves of an answer: dotted paths through objects and lists, and the two sides of each leaf side by side."""

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from potstill.records import SlotSpec
from potstill.stop import Stop


class Absent:
    """The type of ABSENT, the value of a key that is not there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()
# match(which list of the path, where it is, reference items, candidate items) -> the items side by side
Match = Callable[[int, str, list[Any], list[Any]], list[tuple[Any, Any]]]
# how an escaped backslash and an escaped dot pass through the split of a path
_ESCAPES = {"\\\\": "\ue000", "\\.": "\ue001"}


def place(name: str, spec: SlotSpec) -> str:
    """The path of a slot's leaf."""
    return name if spec.path is None else spec.path


@functools.lru_cache(4096)
def steps(path: str) -> tuple[str, ...]:
    r"""'items[].price' -> ('items', '[]', 'price'); '.', the whole, has none. Raises Stop 2 for an empty step.

    A backslash keeps the dot of a key: r'a\.b' is the one key 'a.b'. An empty key, or one that ends in [], has no path.
    """
    found: list[str] = []
    if path == ".":
        return ()
    for part in re.sub(r"\\[\\.]", lambda match: _ESCAPES[match[0]], path).split("."):
        key = part.rstrip("[]") if part.endswith("[]") else part
        found += [*([_unescaped(key)] if key else []), *["[]"] * ((len(part) - len(key)) // 2)]
        if not part or (len(part) - len(key)) % 2:
            raise Stop(f"slot path {path!r}: want keys joined by dots, with [] after a list, as in items[].price")
    return tuple(found)


def leaf(value: Any, path: str) -> Any:
    """The value at a dotted path, or ABSENT; with `[]` in the path, the list of values at it."""
    return leaf_at(value, steps(path))


def leaf_at(value: Any, names: tuple[str, ...]) -> Any:
    """`leaf` for a path that is taken apart already."""
    for number, step in enumerate(names):
        if step == "[]":
            return [leaf_at(item, names[number + 1 :]) for item in value] if isinstance(value, list) else ABSENT
        value = _child(value, step)
    return value


def leaf_paths(*values: Any) -> list[str]:
    """The paths of all scalars below some values, in the order met, list indexes left out: a, items[].price."""
    found: dict[str, None] = {}
    todo = [("", value) for value in reversed(values)]
    while todo:
        at, value = todo.pop()
        if isinstance(value, dict):
            known = [(key, item) for key, item in value.items() if key and not key.endswith("[]")]
            todo += [(f"{at}.{escaped(key)}" if at else escaped(key), item) for key, item in reversed(known)]
        elif isinstance(value, list):
            todo += [(f"{at}[]", item) for item in reversed(value)]
        else:
            found[at or "."] = None
    return list(found)


def escaped(key: str) -> str:
    """A key as a step of a path."""
    return key.replace("\\", "\\\\").replace(".", "\\.")


def pairs(reference: Any, candidate: Any, path: str, match: Match | None = None) -> Iterator[tuple[str, Any, Any]]:
    """(path, reference value, candidate value) of every leaf at `path`.

    List items are paired by index, or as `match` pairs them (potstill/alignment.py): the reference's items in their
    order, then what only the candidate has. The paths name that place: `items[0].price`. Two empty lists make one pair
    of ABSENTs, which passes.
    """
    yield from _pairs(reference, candidate, steps(path), "", 0, match or _by_index)


def _pairs(
    reference: Any, candidate: Any, todo: tuple[str, ...], at: str, depth: int, match: Match
) -> Iterator[tuple[str, Any, Any]]:
    if not todo:
        yield at, reference, candidate
    elif todo[0] != "[]":
        name = escaped(todo[0])
        where = f"{at}.{name}" if at else name
        yield from _pairs(_child(reference, todo[0]), _child(candidate, todo[0]), todo[1:], where, depth, match)
    elif not any(isinstance(side, list) and side for side in (reference, candidate)):
        both_empty = reference == [] and candidate == []
        where = at + ".".join(["", *todo]).replace(".[]", "[]")
        yield where, *((ABSENT, ABSENT) if both_empty else (reference, candidate))
    else:
        left = reference if isinstance(reference, list) else []
        right = candidate if isinstance(candidate, list) else []
        for index, (a, b) in enumerate(match(depth, at, left, right)):
            yield from _pairs(a, b, todo[1:], f"{at}[{index}]", depth + 1, match)


def _by_index(depth: int, at: str, left: list[Any], right: list[Any]) -> list[tuple[Any, Any]]:
    return list(itertools.zip_longest(left, right, fillvalue=ABSENT))


def _child(value: Any, key: str) -> Any:
    return value.get(key, ABSENT) if isinstance(value, dict) else ABSENT


def _unescaped(key: str) -> str:
    return key.replace("\ue001", ".").replace("\ue000", "\\")
