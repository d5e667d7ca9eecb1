"""The data a page carries for machines: JSON-LD, and the state that a page rendered by its script brings along."""

import json
import re
from typing import Any

from potstill.reduction.lines import clean_text
from potstill.reduction.markup import MAX_CHARS
from potstill.reduction.words import FACTS

STATE = re.compile(
    r"(?:state|data|props|store|preload|apollo|nuxt|initial|product)[\w$]*[\"'\]]*\s*=\s*(?=[{\[])", re.I
)
TECHNICAL = re.compile(
    r"(?:^_|id$|ids$|uuid|hash|token|key$|href|path|class|style|color|locale|build|version|typename|@)", re.I
)
MAX_SCRIPT, MAX_LEAVES, MAX_LEAF = MAX_CHARS, 3_000, 300


def jsonld_lines(tree: Any) -> list[tuple[float, str]]:
    """What the page's JSON-LD says, one line for each short leaf."""
    return [
        line
        for node in tree.css('script[type="application/ld+json"]')
        for line in leaf_lines(read_json(node.text()), 1.0)
    ]


def state_lines(tree: Any) -> list[tuple[float, str]]:
    """The short leaves of the data that a page rendered by its script brings along, such as __NEXT_DATA__."""
    lines: list[tuple[float, str]] = []
    for node in tree.css("script"):
        kind = (node.attributes.get("type") or "").lower()
        if kind == "application/json":
            lines += leaf_lines(read_json(node.text()), 0.4)
        elif kind in ("", "text/javascript", "module"):
            text = node.text()
            found = STATE.search(text) if len(text) <= MAX_SCRIPT else None
            if found:
                lines += leaf_lines(read_json(text[found.end() :]), 0.4)
    return lines[:MAX_LEAVES]


def read_json(text: str) -> Any:
    """The JSON value that `text` starts with, or None."""
    try:
        return json.JSONDecoder().raw_decode(text[:MAX_SCRIPT].lstrip())[0]
    except (ValueError, RecursionError):
        return None


def leaf_lines(value: Any, base: float) -> list[tuple[float, str]]:
    """A line `key: value` with its worth for each short string and number below `value`, in document order."""
    lines: dict[str, float] = {}
    waiting: list[tuple[str, str, Any]] = [("", "", value)]
    while waiting and len(lines) < MAX_LEAVES:
        parent, key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(key or parent, str(name), child) for name, child in reversed(value.items())]
        elif isinstance(value, list):
            waiting += [(parent, key, child) for child in reversed(value)]
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool) and not TECHNICAL.search(key):
            text = clean_text(re.sub(r"<[^<>]{0,200}>", " ", str(value)[: 4 * MAX_LEAF]))
            if 0 < len(text) <= MAX_LEAF:
                worth = base + (
                    1.0 if key.lower() in FACTS or key.lower() in ("title", "currency", "description") else 0.0
                )
                line = f"{parent}.{key}: {text}" if parent else f"{key}: {text}"
                lines.setdefault(line[: MAX_LEAF + 60], worth)
    return [(worth, line) for line, worth in lines.items()]
