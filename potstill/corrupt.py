"""Broken and non-conforming spellings of a JSON value, each with one right repair: raw material for repair tasks.

`KEYS` change the value's keys (`KEYS[kind](value, rng)` gives another value), `TEXTS` change how it is written
(`TEXTS[kind](value, rng)` gives the text). The value handed in is never modified.
"""

import json
import random
from collections.abc import Callable
from typing import Any

COMMENTS = ("from the last chat", "check this", "client said so", "v2", "copied over")
INTROS = ("Here is the JSON:", "Sure!", "Result below.", "As requested,")


def camel_keys(value: Any, rng: random.Random) -> Any:
    """snake_case keys as camelCase, Title Case or kebab-case, one way throughout."""
    spell = rng.choice((_camel, _title, _kebab))
    return _with_keys(value, lambda items: [(spell(key), inner) for key, inner in items])


def shuffled_keys(value: Any, rng: random.Random) -> Any:
    return _with_keys(value, lambda items: rng.sample(items, len(items)))


def flat_keys(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Lifts the members of inner objects to the top: bare, or under dotted paths. Leaf names must differ."""
    dotted = rng.random() < 0.5
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        for leaf, leaf_value in inner.items() if isinstance(inner, dict) else ((None, inner),):
            flat[key if leaf is None else f"{key}.{leaf}" if dotted else leaf] = leaf_value
    return flat


def without_empty(value: dict[str, Any], rng: random.Random) -> dict[str, Any] | None:
    """Leaves out some of the members of inner objects that are null or []; None where there are none."""
    empty = [(key, leaf) for key, inner in value.items() for leaf in inner if inner[leaf] in (None, [])]
    if not empty:
        return None
    dropped = set(rng.sample(empty, rng.randint(1, len(empty))))
    return {key: {leaf: inner[leaf] for leaf in inner if (key, leaf) not in dropped} for key, inner in value.items()}


def misspellings(word: str) -> list[str]:
    """A snake_case label as people write it: "mid_low" -> "Mid-Low", "MID_LOW", "mid low", "midLow", " mid_low "."""
    spellings = {word.title().replace("_", "-"), word.upper(), word.replace("_", " "), _camel(word), f" {word} "}
    return sorted(spellings - {word})


def single_quotes(value: Any, rng: random.Random) -> str:
    """Python's own spelling: single quotes and None."""
    return repr(value) if rng.random() < 0.5 else repr(value).replace(": ", ":").replace(", ", ",")


def trailing_commas(value: Any, rng: random.Random) -> str:
    return write(value, indent=rng.choice((None, 1)), trailing=True)


def bare_keys(value: Any, rng: random.Random) -> str:
    return write(value, indent=rng.choice((None, 1)), bare=True)


def no_commas(value: Any, rng: random.Random) -> str:
    """One member a line, the commas forgotten."""
    return write(value, indent=1, comma="")


def comments(value: Any, rng: random.Random) -> str:
    lines = write(value, indent=1).split("\n")
    for position in rng.sample(range(len(lines)), rng.randint(1, 3)):
        lines[position] += f" // {rng.choice(COMMENTS)}"
    return "\n".join(lines)


def fenced(value: Any, rng: random.Random) -> str:
    """A Markdown fence with a sentence around it."""
    text = write(value, indent=rng.choice((None, 1)))
    return f"{rng.choice(INTROS)}\n```{rng.choice(('json', ''))}\n{text}\n```{rng.choice(('', ' Anything else?'))}"


def cut_end(value: Any, rng: random.Random) -> str:
    """Some of the closing quotes and brackets are missing."""
    text = write(value)
    closing = len(text) - len(text.rstrip('}]"'))
    return text[: -rng.randint(1, closing)]


def as_text(value: Any, rng: random.Random) -> str:
    """The object as a JSON string, quoted once too often."""
    return json.dumps(write(value), ensure_ascii=False)


KEYS: dict[str, Callable[[Any, random.Random], Any]] = {
    "camel_keys": camel_keys,
    "shuffled_keys": shuffled_keys,
    "flat_keys": flat_keys,
}
TEXTS: dict[str, Callable[[Any, random.Random], str]] = {
    "single_quotes": single_quotes,
    "trailing_commas": trailing_commas,
    "bare_keys": bare_keys,
    "no_commas": no_commas,
    "comments": comments,
    "fenced": fenced,
    "cut_end": cut_end,
    "as_text": as_text,
}


def write(value: Any, indent: int | None = None, comma: str = ",", bare: bool = False, trailing: bool = False) -> str:
    """JSON, but for the habits asked for: other commas, keys without quotes, a comma after the last member."""

    def inner(item: Any, depth: int) -> str:
        if isinstance(item, dict) and item:
            pairs = [f"{key if bare else json.dumps(key)}:{inner(member, depth + 1)}" for key, member in item.items()]
            gap = "" if indent is None else "\n" + " " * indent * (depth + 1)
            close = gap[: len(gap) - (indent or 0)]
            return "{" + gap + (comma + gap).join(pairs) + (comma if trailing else "") + close + "}"
        if isinstance(item, list) and item:
            return "[" + ",".join(inner(member, depth) for member in item) + ("," if trailing else "") + "]"
        return json.dumps(item, ensure_ascii=False)

    return inner(value, 0)


def _with_keys(value: Any, change: Callable[[list[tuple[str, Any]]], list[tuple[str, Any]]]) -> Any:
    if not isinstance(value, dict):
        return value
    return dict(change([(key, _with_keys(inner, change)) for key, inner in value.items()]))


def _camel(key: str) -> str:
    head, *rest = key.split("_")
    return head + "".join(word.title() for word in rest)


def _title(key: str) -> str:
    return key.replace("_", " ").title()


def _kebab(key: str) -> str:
    return key.replace("_", "-")
