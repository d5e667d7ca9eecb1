"""Disturbances of a prompt that leave its answer as it is: what dataset.augment makes variants with.

`KINDS[kind](text, rng, keep)` gives the disturbed text, or `text` itself where there is nothing to disturb. They work
on lines and on inline markup, whatever wrote them; potstill/augment.py checks that the answer still holds.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from potstill.siblings import PAGE_LINES, dom_shuffle

# no < or > inside, so that a hostile text is scanned in linear time
TAG = re.compile(r"<(/?)([A-Za-z][\w:-]*+)([^<>]*+)>")
# the end of a Markdown link or image, as potstill/html.py writes them
TARGET = re.compile(r"(?<=\])\(([^()\s]++)\)")
QUOTED = re.compile(r"(\s[\w:-]+=)([\"'])([\w./:%#-]+)\2")
# a word with its punctuation around it; digits, @, / and _ are of numbers, codes and addresses, which stay as they are
WORD = re.compile(r"(?<!\S)([\"'(\[]*)([^\W\d_]+(?:['’-][^\W\d_]+)*)(?=[\"')\].,;:!?]*(?!\S))")
STOP = re.compile(r"[,.!?;](?=\s|$)")
# a line that opens or closes an object, or a key of one; "weight: 2.8" is what people write, too
DATA = re.compile(
    r"^[ \t]*+(?:\{|[\[}\]],?[ \t]*$)|\{\s*+[\"']?\w++[\"']?\s*+:|[\"'][\w .-]{1,60}+\\*[\"'][ \t]*+:", re.MULTILINE
)
GAP = re.compile(r"(?<=\S)[ \t]+(?=\S)|\n+")
# an element whose end is not written swallows what follows it
RAW_TEXT = frozenset({"script", "style", "textarea", "title", "template", "noscript"})
NEIGHBOURS = {
    letter: row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for at, letter in enumerate(row)
}
# one letter more or less makes another number, or the opposite, of these
FRAGILE = frozenset(
    word
    for row in (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million",
        "point half quarter third double never neither none nothing without cannot except unless",
    )
    for word in row.split()
)
SWAPS = {",": (";", " ,", ",,"), ".": ("..", "...", "!", " ."), "!": ("!!", "."), "?": ("??", " ?"), ";": (",", " ;")}


@dataclass(frozen=True)
class Keep:
    """What a disturbance must leave alone.

    `words`, casefolded, are neither misspelt nor made by a misspelling. `values` and `cased` have a byte for every
    character of the text: 1 where a value of the answer is, and where one with capitals is.
    """

    words: frozenset[str]
    values: bytearray
    cased: bytearray

    def free(self, match: re.Match[str]) -> bool:
        """Whether no value of the answer is in a match or, where that is empty, on both sides of it."""
        start, end = match.span()
        return self.values.find(1, start, end) < 0 if end > start else not all(self.values[start - 1 : start + 1])


def typos(text: str, rng: random.Random, keep: Keep) -> str:
    """About one word in ten with a neighbouring key, a letter dropped, doubled or swapped; never the first letter."""
    found = list(WORD.finditer(text))
    able = [match for match in found if len(match[2]) > 3 and _may_misspell(match[2], keep)]
    # "from" for "form" is no typo but another word
    words = {match[2].casefold() for match in found} | keep.words | FRAGILE
    edits = {}
    for match in rng.sample(able, min(len(able), max(1, len(found) // 10))):
        word = _misspelt(match[2], rng)
        if word.casefold() not in words:
            edits[match.span(2)] = word
    return _edited(text, edits)


def casing(text: str, rng: random.Random, keep: Keep) -> str:
    """The text in small letters, capitals, capitalised throughout, or with some words in capitals."""
    change, share = rng.choice(((str.lower, 1.0), (str.upper, 1.0), (str.capitalize, 1.0), (str.upper, 0.2)))
    edits = {}
    for match in WORD.finditer(text):
        word = change(match[2])
        # "ß" in capitals is another word, and a value with capitals of its own is copied as it is
        if rng.random() < share and len(word) == len(match[2]) and keep.cased.find(1, *match.span(2)) < 0:
            edits[match.span(2)] = word
    return _edited(text, edits)


def punctuation(text: str, rng: random.Random, keep: Keep) -> str:
    """Other, more or stray punctuation. A boundary stays one: nothing but the very last full stop goes."""
    edits = {}
    for match in _some(list(filter(keep.free, STOP.finditer(text))), rng, 0.3):
        following = text[match.end() :].lstrip()
        # "No. 5" is no end of a sentence
        if not following[:1].isdigit():
            edits[match.span()] = rng.choice(SWAPS[match[0]])
    if text[-1:] == "." and not keep.values[-1] and rng.random() < 0.5:
        edits[(len(text) - 1, len(text))] = ""
    if text[-1:].isalpha():
        edits[(len(text), len(text))] = rng.choice((".", "!", "..."))
    return _edited(text, edits)


def whitespace(text: str, rng: random.Random, keep: Keep) -> str:
    """Wider gaps, tabs and blank lines; not inside values or double quotes, nor between the rows of a table."""
    edits = {}
    for gap in _some(list(filter(keep.free, _gaps(text))), rng, 0.15):
        edits[gap.span()] = "\n" + gap[0] if "\n" in gap[0] else rng.choice(("  ", "   ", "\t", " \t "))
    return _edited(text, edits)


def malformed_tags(text: str, rng: random.Random, keep: Keep) -> str:
    """Closing tags left out or doubled, attributes without quotes; stray tags where a page has none."""
    tags = [tag for tag in TAG.finditer(text) if tag[2].lower() not in RAW_TEXT]
    edits = {}
    for tag in _some([tag for tag in tags if tag[1] or QUOTED.search(tag[0])], rng, 0.25):
        if tag[1]:
            # a gap, so that the words on both sides do not become one
            edits[tag.span()] = rng.choice((" ", tag[0] * 2))
        else:
            bare = QUOTED.sub(r"\1\3", tag[0])
            # HTML Standard 13.1.2.3: a slash right after an unquoted value would be part of it
            edits[tag.span()] = re.sub(r"(?<=\S)/>$", " />", bare)
    if not tags and text.count("\n") + 1 >= PAGE_LINES and not is_data(text):
        ends = re.finditer(r"(?<=\w)$", text, re.MULTILINE)
        for end in _some(list(filter(keep.free, ends)), rng, 0.1):
            edits[end.span()] = f" {rng.choice(('</div>', '</span>', '</p>', '<br>', '</a>', '<p>'))}"
    # as dataset.clean leaves every prompt: nothing at the ends of lines
    return "\n".join(line.rstrip() for line in _edited(text, edits).split("\n")).strip() if edits else text


def attribute_noise(text: str, rng: random.Random, keep: Keep) -> str:
    """Opening tags with an attribute that says nothing, or with the other quotes; Markdown links with a title."""
    edits = {}
    for tag in _some([tag for tag in TAG.finditer(text) if not tag[1]], rng, 0.3):
        other = QUOTED.sub(lambda m: m[1] + _other_quote(m[2]) + m[3] + _other_quote(m[2]), tag[3])
        edits[tag.span()] = f"<{tag[2]} {_noise(rng)}{rng.choice((tag[3], other))}>"
    for link in _some(list(TARGET.finditer(text)), rng, 0.3):
        edits[link.span()] = f'({link[1]} "{_letters(rng)}")'
    return _edited(text, edits)


KINDS: dict[str, Callable[[str, random.Random, Keep], str]] = {
    "dom_shuffle": lambda text, rng, keep: text if is_data(text) else dom_shuffle(text, rng, keep.values),
    "malformed_tags": malformed_tags,
    "attribute_noise": attribute_noise,
    "whitespace": whitespace,
    "casing": casing,
    "typos": typos,
    "punctuation": punctuation,
}
# what people do to their own sentences, and no program does to its output
FREE_TEXT = frozenset({"casing", "typos", "punctuation"})


def is_data(text: str) -> bool:
    """Whether a text is, or holds, JSON or something that was meant to be."""
    return bool(DATA.search(text))


def is_markup(text: str) -> bool:
    return bool(TAG.search(text))


def _may_misspell(word: str, keep: Keep) -> bool:
    plain = word.isascii() and word.isalpha() and (word[1:].islower() or word.isupper())
    return plain and word.casefold() not in keep.words | FRAGILE


def _misspelt(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    letter = word[at]
    key = rng.choice(NEIGHBOURS[letter.lower()])
    swapped = word[: at - 1] + letter + word[at - 1] if at > 1 else word[:at] + letter
    middle = (key.upper() if letter.isupper() else key, "", letter * 2)
    return rng.choice([*(word[:at] + m + word[at + 1 :] for m in middle), swapped + word[at + 1 :]])


def _gaps(text: str) -> Iterator[re.Match[str]]:
    quotes, at, above = 0, 0, 0
    for gap in GAP.finditer(text):
        quotes, at = quotes + text.count('"', at, gap.start()), gap.end()
        if "\n" in gap[0]:
            below = text.find("\n", gap.end())
            if text.find("|", above, below if below >= 0 else len(text)) < 0:
                yield gap
            quotes, above = 0, gap.end()
        elif quotes % 2 == 0:
            yield gap


def _some(matches: list[re.Match[str]], rng: random.Random, share: float) -> list[re.Match[str]]:
    """At least one of the matches, about `share` of them."""
    return rng.sample(matches, min(len(matches), max(1, round(len(matches) * share))))


def _edited(text: str, edits: dict[tuple[int, int], str]) -> str:
    parts, at = [], 0
    for (start, end), new in sorted(edits.items()):
        parts += [text[at:start], new]
        at = end
    return "".join([*parts, text[at:]])


def _other_quote(quote: str) -> str:
    return "'" if quote == '"' else '"'


def _noise(rng: random.Random) -> str:
    form = rng.choice(('class="js-{}"', 'class="{} clearfix"', 'id="{}"', 'data-{}="true"', 'data-track="{}"', "{}"))
    return form.format(_letters(rng))


def _letters(rng: random.Random) -> str:
    # consonants only: neither a number nor a word that an answer could have
    return "".join(rng.choice("bcdfghjklmnpqrstvwxz") for _ in range(6))
