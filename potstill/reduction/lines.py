"""The lines of a reduced page: text put together as a browser shows it, with marks for links and struck prices.

Used by potstill/reduction/blocks.py, which walks the page.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from potstill.reduction.words import names

HEADINGS = {f"h{level}": level for level in range(1, 7)}
# the parts of a word touch across these: <b>J</b>ohn
FORMATTING = names("a abbr b bdi bdo big cite code em font i ins kbd mark q s samp small strong sub sup tt u var")
INLINE = FORMATTING | names("del strike span label time data output button ruby rb rp rt nobr option")
STRUCK = frozenset(("del", "s", "strike"))
KINDS = {"li": "li", "p": "p", "dt": "dt", "dd": "dd"}
SENTENCE_END = re.compile(r"(?<=[.!?。;])\s")
# soft hyphens, zero-width spaces and direction marks; joiners stay, Persian and emoji need them
INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff\u200e\u200f"))
MERGED_CHARS, ROW_CHARS, SPLIT_CHARS = 120, 400, 900
MERGED_BLOCKS = 40
MAX_URL = 300
USELESS_SCHEMES = ("javascript:", "data:", "blob:", "about:", "vbscript:")


@dataclass(slots=True)
class Block:
    """One line of the reduced page: `plain` is its text, `linked` the same with link targets and image addresses.

    `kind` is heading, p, li, row, text, image, options, fact, field, crumb, pages, dt, dd or cell; `level` is 1 to 6 in
    a heading; `link_chars` counts the characters of `plain` inside links; `prop` is the microdata name of the text.
    """

    plain: str
    linked: str
    kind: str
    frame: "Frame"
    level: int = 0
    link_chars: int = 0
    prop: str = ""


class Frame:
    """An open element, and what its blocks inherit.

    `start` counts the blocks and `mark` the pieces of the line there were before it; `card` is its group of siblings
    alike and its rank among them; `refused` counts the menus around it that could not be read at once. One is made
    for every element: what few have is set on those few.
    """

    card: "tuple[Any, int] | None" = None
    href = prop = label = ""
    struck = marked = False
    refused = 0

    def __init__(
        self,
        tag: str,
        parent: "Frame | None",
        region: str,
        weight: float,
        inline: bool,
        node: Any,
        start: int,
        mark: int,
    ):
        self.tag = tag
        self.parent = parent
        self.region = region
        self.weight = weight
        self.inline = inline
        self.node = node
        self.start = start
        self.mark = mark


@dataclass(slots=True)
class Reader:
    """What the walk has collected: finished blocks, how many siblings each group has, and the line under way."""

    attributes: frozenset[str]
    kept: frozenset[int]
    revealed: frozenset[str]
    blocks: list[Block] = field(default_factory=list)
    siblings: dict[Any, int] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    link_chars: int = 0
    space: bool = False
    edge: bool = False
    field: bool = False
    prop: str = ""


def usable_url(value: str | None) -> str:
    """An address worth its tokens, or "": no script, no fragment alone, no inlined data, and short."""
    url = value.strip() if value else ""
    if not url or url[0] == "#":
        return ""
    # most addresses are told by their first letter
    if url[0] in "jJdDbBaAvV" and url[:11].lower().startswith(USELESS_SCHEMES):
        return ""
    if len(url) > MAX_URL:
        url = url.split("?", 1)[0]
    return url if len(url) <= MAX_URL and len(url.split(None, 1)) == 1 else ""


def clean_text(text: str) -> str:
    """`text` with single spaces and without invisible characters."""
    return " ".join((text if text.isascii() else text.translate(INVISIBLE)).split())


def add_text(reader: Reader, raw: str) -> None:
    """Adds text to the line, with white space as a browser shows it and a space where boxes meet."""
    text = clean_text(raw)
    if not text:
        reader.space = True
        return
    plain, linked = reader.plain, reader.linked
    # the space before struck text stands before its mark
    opened = bool(plain) and plain[-1] == "~~" and plain.count("~~") % 2 == 1
    if len(plain) > opened:
        last = plain[-2] if plain[-1] == "~~" else plain[-1]
        if reader.space or raw[0].isspace() or (reader.edge and needs_space(last[-1], text[0])):
            plain.insert(len(plain) - opened, " ")
            linked.insert(len(linked) - opened, " ")
    reader.space = raw[-1].isspace()
    reader.edge = False
    plain.append(text)
    linked.append(text)


def needs_space(last: str, first: str) -> bool:
    """Whether boxes that touch in the markup hold words of their own; the parts of a price, `$` `19` `.99`, do not."""
    return (last.isalnum() or last in ":;!?") and first.isalnum()


def put(reader: Reader, text: str) -> None:
    reader.plain.append(text)
    reader.linked.append(text)


def close_inline(reader: Reader, frame: Frame) -> None:
    """Marks what an inline element says of its text: struck, linked, or a property."""
    if frame.marked and reader.plain.count("~~") % 2:
        if reader.plain[-1] == "~~":
            del reader.plain[-1], reader.linked[-1]
        else:
            put(reader, "~~")
    if frame.tag == "a":
        reader.edge = True
        if frame.href:
            close_link(reader, frame)
    elif frame.tag not in FORMATTING:
        reader.edge = True
    if frame.prop and len(reader.plain) > frame.mark and len(reader.blocks) == frame.start:
        reader.prop = frame.prop


def close_link(reader: Reader, frame: Frame) -> None:
    """Marks a link in the line, or on the best block inside it when it encloses whole blocks."""
    inside = reader.blocks[frame.start : frame.start + MERGED_BLOCKS]
    if len(reader.plain) > frame.mark and all(block.kind in ("image", "fact") for block in inside):
        first = frame.mark + (reader.plain[frame.mark] == " ")
        if first < len(reader.plain):
            reader.link_chars += sum(map(len, reader.plain[first:]))
            reader.linked[first] = "[" + reader.linked[first]
            reader.linked[-1] += f"]({frame.href})"
        return
    flush(reader, frame)
    inside = reader.blocks[frame.start : frame.start + MERGED_BLOCKS]
    worded = [block for block in inside if block.kind not in ("image", "fact")]
    for block in worded:
        block.link_chars = len(block.plain)
    if worded:
        best = max(worded, key=lambda block: (block.kind == "heading", min(len(block.plain), 80)))
        best.linked = f"[{best.plain}]({frame.href})"
    elif inside and inside[0].kind == "image":
        inside[0].linked = f"[{inside[0].linked}]({frame.href})"


def flush(reader: Reader, frame: Frame) -> None:
    """Ends the line under way and makes it a block, or several when it is long."""
    if reader.plain:
        if reader.plain.count("~~") % 2:
            put(reader, "~~")
        plain, linked = "".join(reader.plain).strip(), "".join(reader.linked).strip()
        if frame.struck and "~~" not in plain:
            plain, linked = f"~~{plain}~~", f"~~{linked}~~"
        if plain.strip("~ "):
            owner = frame
            while owner.inline and owner.parent is not None:
                owner = owner.parent
            level = HEADINGS.get(owner.tag, 0)
            kind = "heading" if level else "field" if reader.field else KINDS.get(owner.tag, "text")
            if len(plain) > SPLIT_CHARS:
                share = reader.link_chars / len(plain)
                for part in split_long(plain):
                    reader.blocks.append(Block(part, part, kind, owner, level, int(share * len(part)), reader.prop))
            else:
                reader.blocks.append(Block(plain, linked, kind, owner, level, reader.link_chars, reader.prop))
        reader.plain.clear()
        reader.linked.clear()
    reader.link_chars = 0
    reader.space = reader.edge = reader.field = False
    reader.prop = ""


def split_long(text: str) -> list[str]:
    """Pieces of about half SPLIT_CHARS that end with a sentence where there is one, so that the first ones can be
    kept."""
    parts: list[str] = []
    line = ""
    for sentence in SENTENCE_END.split(text):
        for start in range(0, len(sentence), SPLIT_CHARS):
            piece = sentence[start : start + SPLIT_CHARS]
            if line and len(line) + len(piece) > SPLIT_CHARS // 2:
                parts.append(line)
                line = piece
            else:
                line = f"{line} {piece}" if line else piece
    return [*parts, line]
