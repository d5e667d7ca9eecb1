"""Finds the cards of lists, such as the products of a listing, and says which blocks stay or go together.

Used by potstill/html.py.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from potstill.reduction.lines import Frame, Reader
from potstill.reduction.words import BUY, DETAIL, has_price, words

CARD_SIBLINGS, CARD_BLOCKS, CARD_CHARS, CARD_LINE_CHARS = 4, 14, 700, 160
# how far up a block looks for what encloses it
REACH = 60
Cards = list[tuple[Frame, int] | None]


@dataclass(slots=True)
class Unit:
    """Blocks that stay or go together, by number, with their worth: a line, or the text of a whole card of a list."""

    members: list[int]
    score: float
    card: bool = False


def enclosing(frame: Frame | None) -> list[Frame]:
    found: list[Frame] = []
    while frame is not None and len(found) < REACH:
        found.append(frame)
        frame = frame.parent
    return found


def find_cards(reader: Reader) -> Cards:
    """For each block the card of a linked list that holds it, with the card's rank, or None.

    Four or more siblings alike are such a list when they say little but links, or most have a link and two lines or
    more, and none is far larger than the others. Specifications, ingredients with a link here and there, and the
    head, body and foot of a page are not.
    """
    chars: Counter[Any] = Counter()
    links: Counter[Any] = Counter()
    lines: Counter[Any] = Counter()
    sizes: Counter[Frame] = Counter()
    linking: dict[Any, set[int]] = {}
    # many blocks share a frame
    chains: dict[Frame, list[tuple[Frame, Any, int]]] = {}
    for block in reader.blocks:
        chain = chains.get(block.frame)
        if chain is None:
            chain = chains[block.frame] = repeated(reader, block.frame)
        if not chain:
            continue
        size = len(block.plain) if block.kind != "image" else 0
        for frame, key, rank in chain:
            chars[key] += size
            lines[key] += 1
            sizes[frame] += size
            if block.link_chars or block.linked[0] == "[":
                links[key] += block.link_chars
                linking.setdefault(key, set()).add(rank)
    largest: dict[Any, int] = {}
    for frame, size in sizes.items():
        largest[group(frame)] = max(largest.get(group(frame), 0), size)
    lists = {
        key
        for key, total in chars.items()
        if (links[key] > 0.75 * total or min(len(linking.get(key, ())), lines[key] / 2) > 0.6 * reader.siblings[key])
        and total < CARD_CHARS * reader.siblings[key]
        and largest[key] <= max(0.4 * total, 60)
    }
    outermost = {
        inner: next(((frame, rank) for frame, key, rank in reversed(chain) if key in lists), None)
        for inner, chain in chains.items()
    }
    return [outermost[block.frame] for block in reader.blocks]


def repeated(reader: Reader, frame: Frame) -> list[tuple[Frame, Any, int]]:
    """Each of `frame` and what encloses it that is one of CARD_SIBLINGS alike or more, with its group and its rank
    there; innermost first."""
    found = []
    one: Frame | None = frame
    for _ in range(REACH):
        if one is None:
            break
        if one.card and reader.siblings[one.card[0]] >= CARD_SIBLINGS:
            found.append((one, *one.card))
        one = one.parent
    return found


def group(frame: Frame) -> Any:
    """What the cards of one list share."""
    return frame.card[0] if frame.card else None


def priced_lists(reader: Reader, cards: Cards) -> set[Any]:
    """The groups of which half of the cards or more show a price."""
    priced = {
        card
        for block, card in zip(reader.blocks, cards, strict=True)
        if card is not None and len(block.plain) <= 200 and has_price(block.plain, words(block.plain))
    }
    counts = Counter(group(frame) for frame, _ in priced)
    return {key for key, count in counts.items() if count >= 0.5 * reader.siblings[key]}


def units_of(reader: Reader, scores: list[float], cards: Cards) -> list[Unit]:
    """Groups the text of a card, so that a name never goes without its price; all else stands alone.

    Lines without a number that every card of a list says, such as its button, tell none from another and are left out.
    """
    members: dict[Frame, list[int]] = {}
    units = []
    for number, card in enumerate(cards):
        if card is None:
            units.append(Unit([number], scores[number]))
        elif reader.blocks[number].kind == "image" or len(reader.blocks[number].plain) > CARD_LINE_CHARS:
            # first the names and prices of all cards, then their images and descriptions
            units.append(Unit([number], 0.4 * scores[number]))
        else:
            members.setdefault(card[0], []).append(number)
    lines = {frame: {reader.blocks[n].plain for n in numbers} for frame, numbers in members.items()}
    said = Counter((group(frame), text) for frame, texts in lines.items() for text in texts)
    for frame, numbers in members.items():
        common = 0.8 * reader.siblings[group(frame)]
        telling = [
            n
            for n in numbers
            if said[group(frame), reader.blocks[n].plain] < common or any(map(str.isdigit, reader.blocks[n].plain))
        ]
        if 1 < len(telling) <= CARD_BLOCKS and sum(len(reader.blocks[n].plain) for n in telling) <= CARD_CHARS:
            units.append(Unit(telling, 0.8 * max(scores[n] for n in telling), True))
        else:
            units += [Unit([n], scores[n], True) for n in telling]
    return units


def is_detail(reader: Reader, anchor: int, cards: Cards, head: list[str]) -> bool:
    """Whether the page is about one thing: it says so itself, or a price, a buy button or a long text of its own
    follows the main heading, before any list of priced cards."""
    if any(DETAIL.match(line) for line in head):
        return True
    text = 0
    for block, card in zip(reader.blocks[anchor + 1 :], cards[anchor + 1 :], strict=True) if anchor >= 0 else ():
        if card is None and block.frame.weight < 0.4:
            continue
        if text < 1500 and len(block.plain) <= 200:
            if has_price(block.plain, words(block.plain)):
                return card is None
            if card is None and BUY.search(block.plain):
                return True
        if card is None:
            text += len(block.plain) - block.link_chars
        if text > 3000:
            return True
    return False
