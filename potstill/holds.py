"""Whether a prompt still has what another prompt of the same answer had: the values of the answer, in their order."""

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from potstill.grounding import ground
from potstill.records import Example

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
LETTERS = re.compile(r"[^\W\d_]+")


class Held:
    """The values of an example's answer that its prompt has, and where.

    `words` are the casefolded words of all the answer's texts, found or not. `spans` and `cased` have a byte for every
    character of the prompt: 1 where a value is, and where one with its very capitals is.
    """

    def __init__(self, parent: Example):
        self.answer, self.slots = _answer(parent.response), parent.slots
        found = list(leaves(self.answer))
        self.words = frozenset(word for _, value in found if isinstance(value, str) for word in words(value))
        prompt = Searched(parent.prompt)
        # (path, value, whether its capitals count)
        self.values = [
            (path, value, isinstance(value, str) and value != value.lower() and prompt.find(value, cased=True) >= 0)
            for path, value in found
            if prompt.find(value) >= 0
        ]
        self.order = self._order(prompt)
        self.lost = self._missing(parent.prompt)
        self.spans, self.cased = bytearray(len(parent.prompt)), bytearray(len(parent.prompt))
        for value, cased in {(value, cased) for _, value, cased in self.values}:
            for start, end in _spans(parent.prompt, value):
                for marks in (self.spans, self.cased) if cased else (self.spans,):
                    marks[start:end] = b"\1" * (end - start)

    def problem(self, prompt: str) -> str | None:
        """Why the answer does not hold for another prompt: "answer_lost", "order_changed", or None when it does."""
        searched = Searched(prompt)
        if any(searched.find(value, cased) < 0 for _, value, cased in self.values):
            return "answer_lost"
        # dates, prices and addresses in another form than the answer's
        if self._missing(prompt) - self.lost:
            return "answer_lost"
        return None if self._order(searched) == self.order else "order_changed"

    def _missing(self, prompt: str) -> set[str]:
        return {slot for slot, state in ground(self.answer, self.slots, prompt).items() if state == "missing"}

    def _order(self, prompt: "Searched") -> dict[str, list[int]]:
        """For every list in the answer, the order in which the prompt has its leaves."""
        positions: dict[str, list[int]] = defaultdict(list)
        for path, value, _ in self.values:
            if "[]" in path:
                positions[path.split("[]")[0]].append(prompt.find(value))
        return {path: sorted(range(len(at)), key=at.__getitem__) for path, at in positions.items()}


class Searched:
    """A text in the forms in which values are looked up: as it is, in small letters, and by its numbers."""

    def __init__(self, text: str):
        self.exact = " ".join(unicodedata.normalize("NFKC", text).split())
        self.folded = self.exact.casefold()
        self.numbers: dict[Decimal, int] = {}
        for match in NUMBER.finditer(self.exact):
            for number in _numbers(match[0]):
                self.numbers.setdefault(number, match.start())

    def find(self, value: str | int | float, cased: bool = False) -> int:
        """Where a value is, as whole words; -1 where it is not. `cased`: with its very capitals."""
        if not isinstance(value, str):
            return self.numbers.get(abs(Decimal(str(value))), -1)
        wanted = " ".join(unicodedata.normalize("NFKC", value).split())
        if not wanted:
            return -1
        return _find(self.exact, wanted) if cased else _find(self.folded, wanted.casefold())


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str | int | float]]:
    """(path, leaf) of every text and number in an answer; list items share the path `items[]`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path + "[]")
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield path, value


def words(text: str) -> set[str]:
    """The words of a text, casefolded; those of snake_case too."""
    return {word.casefold() for word in LETTERS.findall(text)}


def _answer(response: str) -> Any:
    try:
        return json.loads(response)
    except ValueError:
        return response


def _spans(text: str, value: str | int | float) -> Iterator[tuple[int, int]]:
    """Everywhere a value is in a text, whatever the case and the gaps between its words."""
    if isinstance(value, str):
        # as whole words: "low" is not in "slow"
        pattern = r"\s+".join(re.escape(word) for word in value.split())
        pattern = (r"(?<!\w)" if value[0].isalnum() else "") + pattern + (r"(?!\w)" if value[-1].isalnum() else "")
        yield from (match.span() for match in re.finditer(pattern, text, re.IGNORECASE))
    else:
        for match in NUMBER.finditer(text):
            if abs(Decimal(str(value))) in _numbers(match[0]):
                yield match.span()


def _find(text: str, wanted: str) -> int:
    at = text.find(wanted)
    while at >= 0:
        end = at + len(wanted)
        inside = at > 0 and text[at - 1].isalnum() and wanted[0].isalnum()
        if not inside and not (end < len(text) and text[end].isalnum() and wanted[-1].isalnum()):
            return at
        at = text.find(wanted, at + 1)
    return -1


def _numbers(token: str) -> set[Decimal]:
    """What a run of digits may stand for: "1,299.50" with either mark as the decimal one."""
    found = set()
    for text in (token.replace(",", ""), token.replace(".", "").replace(",", ".")):
        if text.count(".") < 2:
            found.add(Decimal(text))
    return found
