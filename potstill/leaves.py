"""The leaves of an answer: dotted paths through objects and lists, and the two sides of each leaf side by side."""

import functools
from collections.abc import Iterator
from typing import Any

from potstill.records import SlotSpec
from potstill.stop import Stop


class Absent:
    """The type of ABSENT, the value of a key that is not there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


def place(name: str, spec: SlotSpec) -> str:
    """The path of a slot's leaf."""
    return name if spec.path is None else spec.path


@functools.lru_cache(4096)
def steps(path: str) -> tuple[str, ...]:
    """'items[].price' -> ('items', '[]', 'price'); '.', the whole, has none. Raises Stop 2 for an empty step."""
    found: list[str] = []
    if path == ".":
        return ()
    for part in path.split("."):
        key = part.rstrip("[]") if part.endswith("[]") else part
        found += [*([key] if key else []), *["[]"] * ((len(part) - len(key)) // 2)]
        if not part or (len(part) - len(key)) % 2:
            raise Stop(f"slot path {path!r}: want keys joined by dots, with [] after a list, as in items[].price")
    return tuple(found)


def leaf(value: Any, path: str) -> Any:
    """The value at a dotted path, or ABSENT; with `[]` in the path, the list of values at it."""
    for number, step in enumerate(names := steps(path)):
        if step == "[]":
            if not isinstance(value, list):
                return ABSENT
            rest = ".".join(names[number + 1 :]).replace(".[]", "[]")
            return [leaf(item, rest) if rest else item for item in value]
        value = _child(value, step)
    return value


def pairs(reference: Any, candidate: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, reference value, candidate value) of every leaf at `path`; list items are paired by index.

    The paths name the index: `items[0].price`. Two empty lists make one pair of ABSENTs, which passes.
    """
    yield from _pairs(reference, candidate, steps(path), "")


def _pairs(reference: Any, candidate: Any, todo: tuple[str, ...], at: str) -> Iterator[tuple[str, Any, Any]]:
    if not todo:
        yield at, reference, candidate
    elif todo[0] != "[]":
        where = f"{at}.{todo[0]}" if at else todo[0]
        yield from _pairs(_child(reference, todo[0]), _child(candidate, todo[0]), todo[1:], where)
    elif not any(isinstance(side, list) and side for side in (reference, candidate)):
        both_empty = reference == [] and candidate == []
        where = at + ".".join(["", *todo]).replace(".[]", "[]")
        yield where, *((ABSENT, ABSENT) if both_empty else (reference, candidate))
    else:
        left = reference if isinstance(reference, list) else []
        right = candidate if isinstance(candidate, list) else []
        for index in range(max(len(left), len(right))):
            a = left[index] if index < len(left) else ABSENT
            b = right[index] if index < len(right) else ABSENT
            yield from _pairs(a, b, todo[1:], f"{at}[{index}]")


def _child(value: Any, key: str) -> Any:
    return value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
