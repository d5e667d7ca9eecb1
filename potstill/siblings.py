"""Puts sibling blocks of a page's text into another order where that keeps their meaning.

Siblings are sections under headings of one level, items of one bulleted list, `<li>`, `<section>` and `<article>`
elements of one parent, and lines that carry no value of the answer and stand away from those that do. A table, a
numbered list, a label and its value are never taken apart.
"""

import itertools
import random
import re
from collections.abc import Iterator

HEADING = re.compile(r"(#{1,6})\s+\S")
BULLET = re.compile(r"(\s*)[-*•]\s+\S")
TABLE_ROW = re.compile(r"\s*\||.*\s\|\s")
NUMBERED = re.compile(r"\s*\d+[.)]\s")
ELEMENT = re.compile(r"<(/?)(ul|ol|li|section|article|main|div|nav|table|dl)\b[^<>]*+>", re.IGNORECASE)
MOVABLE = frozenset({"li", "section", "article"})
# a numbered list and a trail of breadcrumbs have an order of their own
ORDERED = frozenset({"ol", "nav"})
# fewer lines are somebody's talk, in which a later line may take back an earlier one
PAGE_LINES = 8
# a line of fewer words may be a label, or the value of one
WORDS_OF_A_BLOCK = 5
# how far around a line with a value of the answer everything stays where it is
CONTEXT_LINES = 2

Line = tuple[str, bool]  # a line, and whether a value of the answer is in it


def dom_shuffle(text: str, rng: random.Random, values: bytearray) -> str:
    """`text` with siblings reordered; `text` itself where it has none.

    `values` has a byte for every character: 1 where a value of the answer is.
    """
    # items of the answer have an order; where a shuffle breaks it, one that spares them is drawn sooner or later
    spare = rng.random() < 0.5
    shuffled = _shuffle_elements(text, rng, values if spare else bytearray())
    if shuffled != text:
        return shuffled
    lines, start = [], 0
    for line in text.split("\n"):
        lines.append((line, values.find(1, start, start + len(line)) >= 0))
        start += len(line) + 1
    lines = _shuffle_lists(lines, rng, spare)
    headings = sum(1 for line, _ in lines if HEADING.match(line))
    lines = _shuffle_sections(lines, rng, spare) if headings > 1 else _shuffle_blocks(lines, rng)
    return "\n".join(line for line, _ in lines)


def _shuffle_elements(text: str, rng: random.Random, spared: bytearray) -> str:
    """Reorders every group of sibling elements that is in no other group, but for those with a spared character."""
    for spans in _sibling_spans(text):
        fixed = {n for n, span in enumerate(spans) if spared.find(1, *span) >= 0}
        moved = [spans[n] for n in _order(len(spans), fixed, rng)]
        between = [text[a[1] : b[0]] for a, b in itertools.pairwise(spans)]
        pieces = [text[slice(*span)] + gap for span, gap in zip(moved, [*between, ""], strict=True)]
        # the group has the length it had, so the spans of groups beside it still fit
        text = text[: spans[0][0]] + "".join(pieces) + text[spans[-1][1] :]
    return text


def _sibling_spans(text: str) -> list[list[tuple[int, int]]]:
    """Groups of two or more movable elements of one parent, none of them inside another group."""
    root: list[tuple[str, int, int]] = []
    stack: list[tuple[str, int, list[tuple[str, int, int]]]] = [("", 0, root)]
    groups: list[list[tuple[int, int]]] = []
    ordered = 0
    for tag in ELEMENT.finditer(text):
        name = tag[2].lower()
        if not tag[1]:
            stack.append((name, tag.start(), []))
            ordered += name in ORDERED
        elif len(stack) > 1 and stack[-1][0] == name:
            _, start, children = stack.pop()
            groups += _movable(children, text) if not ordered else []
            ordered -= name in ORDERED
            stack[-1][2].append((name, start, tag.end()))
        else:
            # tags that do not pair up leave no telling what belongs to what
            return []
    groups = groups + _movable(root, text) if len(stack) == 1 else []
    outer: list[list[tuple[int, int]]] = []
    for group in sorted(groups):
        if not outer or group[0][0] >= outer[-1][-1][1]:
            outer.append(group)
    return outer


def _movable(children: list[tuple[str, int, int]], text: str) -> list[list[tuple[int, int]]]:
    """Runs of movable children of one kind; what is between two of them, such as a heading, ends a run."""
    runs: list[list[tuple[int, int]]] = []
    before = ""
    for name, start, end in children:
        if runs and name == before and not text[runs[-1][-1][1] : start].strip():
            runs[-1].append((start, end))
        elif name in MOVABLE:
            runs.append([(start, end)])
        before = name
    return [run for run in runs if len(run) > 1]


def _shuffle_lists(lines: list[Line], rng: random.Random, spare: bool) -> list[Line]:
    """Reorders the items of every run of bullets, or those without a value; deeper lines go with their item."""
    out: list[Line] = []
    items: list[list[Line]] = []
    indent = -1
    for line in lines:
        bullet = BULLET.match(line[0])
        if bullet and len(bullet[1]) == indent:
            items.append([line])
        elif items and line[0].strip() and len(line[0]) - len(line[0].lstrip()) > indent:
            items[-1].append(line)
        else:
            out += _reordered(items, rng, spare)
            items, indent = ([[line]], len(bullet[1])) if bullet else ([], -1)
            if not bullet:
                out.append(line)
    return out + _reordered(items, rng, spare)


def _shuffle_sections(lines: list[Line], rng: random.Random, spare: bool) -> list[Line]:
    """Reorders sibling sections of the highest level that has two or more, or those of them without a value.

    What is above the first stays above; a first section of level 1 is what the page is about, and stays, too.
    """
    levels = [len(match[1]) if (match := HEADING.match(line)) else 0 for line, _ in lines]
    for level in range(1, 7):
        starts = [n for n, found in enumerate(levels) if found == level]
        end = min(
            (n for n, found in enumerate(levels) if 0 < found < level and starts and n > starts[0]), default=len(lines)
        )
        starts = [n for n in starts if n < end][level == 1 :]
        if len(starts) > 1:
            sections = [lines[a:b] for a, b in itertools.pairwise([*starts, end])]
            return [*lines[: starts[0]], *_reordered(sections, rng, spare), *lines[end:]]
    return lines


def _shuffle_blocks(lines: list[Line], rng: random.Random) -> list[Line]:
    """Reorders the blocks far from every value of the answer, among the places that such blocks have."""
    if len(lines) < PAGE_LINES:
        return lines
    fixed = {0}
    for number, (_, carries) in enumerate(lines):
        if carries:
            fixed.update(range(number - CONTEXT_LINES, number + CONTEXT_LINES + 1))
    blocks = list(_blocks([line for line, _ in lines]))
    stay = {n for n, (start, end) in enumerate(blocks) if not fixed.isdisjoint(range(start, end))}
    return [line for n in _order(len(blocks), stay, rng) for line in lines[slice(*blocks[n])]]


def _reordered(parts: list[list[Line]], rng: random.Random, spare: bool) -> list[Line]:
    fixed = {n for n, part in enumerate(parts) if spare and any(carries for _, carries in part)}
    return [line for n in _order(len(parts), fixed, rng) for line in parts[n]]


def _order(count: int, fixed: set[int], rng: random.Random) -> list[int]:
    """0 ... count - 1 in another order, in which the fixed ones are in their places."""
    free = [n for n in range(count) if n not in fixed]
    moved = dict(zip(free, rng.sample(free, len(free)), strict=True))
    return [moved.get(n, n) for n in range(count)]


def _blocks(lines: list[str]) -> Iterator[tuple[int, int]]:
    """(first, after last) line of every block: a line with those around it that it may be of one piece with."""
    start = 0
    for number, line in enumerate(lines):
        if number + 1 == len(lines) or not _goes_with_next(line, lines[number + 1]):
            yield start, number + 1
            start = number + 1


def _goes_with_next(line: str, following: str) -> bool:
    for pattern in (TABLE_ROW, BULLET, NUMBERED):
        if pattern.match(line) and pattern.match(following):
            return True
    short = len(line.split()) < WORDS_OF_A_BLOCK or line.rstrip().endswith(":") or HEADING.match(line)
    # what is indented belongs to the line above it
    return bool(short) or following[:1] in (" ", "\t")
