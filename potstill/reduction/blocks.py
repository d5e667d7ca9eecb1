"""Reads the body of a parsed web page as a list of text blocks in document order: headings, list items, table rows, ...

Used by potstill/html.py; potstill/reduction/worth.py says what each block is worth.
"""

import re
from typing import Any

from potstill.reduction.lines import (
    FORMATTING,
    INLINE,
    KINDS,
    MERGED_BLOCKS,
    MERGED_CHARS,
    ROW_CHARS,
    STRUCK,
    Block,
    Frame,
    Reader,
    add_text,
    close_inline,
    flush,
    put,
    usable_url,
)
from potstill.reduction.parts import COARSE, add_coarse, add_fact, add_void, is_hidden
from potstill.reduction.regions import AROUND_PATHS, PATHS, TAGS, WEIGHTS, region_of
from potstill.reduction.words import names

SKIPPED = names(
    "script style noscript template iframe object embed applet svg math canvas video audio map source track param "
    "datalist progress meter textarea frame frameset colgroup col base head"
)
# elements that make no frame
VOID = names("img input meta link br hr wbr area select")
# elements whose repeated siblings can be the cards of one list
REPEATED = names("div li article section tr dl figure a tbody")
# attributes that say something of the element's text
TELLING = names("style href itemprop aria-label title")
MAX_REFUSED = 6
STRUCK_STYLE = re.compile(r"text-decoration[^;]*line-through", re.I)


def read_blocks(body: Any, kept: frozenset[int], revealed: frozenset[str], attributes: frozenset[str]) -> Reader:
    """The blocks of `body`, a selectolax node.

    `kept` has the mem_id of the main heading and what encloses it, main content whatever their names say; `revealed`
    has the ids that the page's own controls can show, such as tab panels; `attributes` are those whose values are
    kept. Walks with a stack of its own: depth costs no recursion.
    """
    reader = Reader(attributes, kept, revealed)
    frame = Frame("body", None, "main", 1.0, False, None, 0, 0)
    node = body.first_child
    while True:
        if node is None:
            if frame.parent is None:
                break
            close(reader, frame)
            node, frame = frame.node.next, frame.parent
            continue
        tag = node.tag
        if tag == "-text":
            text = node.text_content
            if not text or text.isspace():
                reader.space = True
            else:
                add_text(reader, text)
        elif tag is not None and tag[0] != "-" and tag not in SKIPPED:
            opened = enter(reader, frame, node, tag)
            if opened is not None:
                frame, node = opened, node.first_child
                continue
        node = node.next
    flush(reader, frame)
    return reader


def enter(reader: Reader, parent: Frame, node: Any, tag: str) -> Frame | None:
    """The frame of an element, or None when it is done with: void, hidden, or unwanted."""
    attributes = node.attributes
    if ("style" in attributes or "hidden" in attributes or tag == "dialog") and is_hidden(
        attributes, tag, reader.revealed
    ):
        if attributes.get("itemprop"):
            add_fact(reader, parent, attributes["itemprop"], attributes.get("content") or node.text())
        return None
    if tag in VOID:
        add_void(reader, parent, node, tag, attributes)
        return None
    region, weight, refused = parent.region, parent.weight, parent.refused
    found = region_of(tag, attributes) if attributes or tag in TAGS else ""
    if found and found != region and node.mem_id not in reader.kept:
        if found == "consent":
            return None
        # a pager or a breadcrumb is worth its place inside a menu's element too
        if WEIGHTS[found] <= weight or (found in PATHS and region in AROUND_PATHS):
            region, weight = found, WEIGHTS[found]
            # each try looks through the whole element: menus nested in menus would take quadratic time
            if found in COARSE and refused < MAX_REFUSED:
                if add_coarse(reader, parent, node, found):
                    return None
                refused += 1
    inline = tag in INLINE
    if not inline:
        if reader.plain:
            flush(reader, parent)
        else:
            reader.space = reader.edge = reader.field = False
    elif tag == "a" or tag not in FORMATTING:
        reader.edge = True
    frame = Frame(tag, parent, region, weight, inline, node, len(reader.blocks), len(reader.plain))
    if refused:
        frame.refused = refused
    if tag in REPEATED:
        key = (parent, tag, "" if tag == "li" else first_class(attributes.get("class")))
        rank = reader.siblings.get(key, 0)
        reader.siblings[key] = rank + 1
        frame.card = (key, rank)
    if parent.struck or tag in STRUCK:
        frame.struck = True
    if not TELLING.isdisjoint(attributes):
        read_attributes(reader, frame, tag, attributes)
    if frame.struck and inline and not parent.struck:
        frame.marked = True
        put(reader, "~~")
    return frame


def read_attributes(reader: Reader, frame: Frame, tag: str, attributes: dict[str, str | None]) -> None:
    style = attributes.get("style")
    if style and STRUCK_STYLE.search(style):
        frame.struck = True
    if tag == "a":
        frame.href = usable_url(attributes.get("href"))
    frame.prop = attributes.get("itemprop") or ""
    if frame.prop and attributes.get("content"):
        add_fact(reader, frame, frame.prop, attributes["content"])
        frame.start = len(reader.blocks)
    label = attributes.get("aria-label") or attributes.get("title")
    # a row of stars says its number nowhere else
    if label and len(label) < 60 and any(map(str.isdigit, label)):
        frame.label = label


def first_class(names: str | None) -> str:
    """The first class name without its digits: cards of one list often differ in a number only."""
    words = names.split(None, 1) if names else None
    return words[0].rstrip("-_0123456789") if words else ""


def close(reader: Reader, frame: Frame) -> None:
    """Ends an element: closes its link or strike, or makes its line a block and joins short blocks."""
    tag = frame.tag
    if frame.label and len(reader.blocks) == frame.start and len(reader.plain) <= frame.mark:
        reader.space = True
        add_text(reader, frame.label)
    if frame.inline:
        close_inline(reader, frame)
        return
    if reader.plain:
        flush(reader, frame)
    else:
        reader.space = reader.edge = reader.field = False
    made = len(reader.blocks) - frame.start
    if not 1 <= made <= MERGED_BLOCKS:
        return
    if frame.prop:
        for block in reader.blocks[frame.start :]:
            block.prop = block.prop or frame.prop
    if tag in ("td", "th", "dt", "dd", "li"):
        merge(reader, frame, " ", ROW_CHARS, KINDS.get(tag, "cell"))
        if tag == "dd":
            join_definition(reader, frame)
    elif tag == "tr":
        merge(reader, frame, " | ", ROW_CHARS, "row")
    elif frame.region in PATHS:
        # the outermost element of a path joins all of it
        if frame.parent is None or frame.parent.region != frame.region:
            merge(reader, frame, " > " if frame.region == "crumb" else " | ", ROW_CHARS, frame.region)
    elif made > 1 and tag not in ("table", "tbody", "dl", "form", "main"):
        merge(reader, frame, " | " if tag in ("ul", "ol") else " ", MERGED_CHARS, "text")


def merge(reader: Reader, frame: Frame, joiner: str, limit: int, kind: str) -> None:
    """Joins the blocks of `frame` into one of `kind` when together they are short and hold no larger structure."""
    if len(reader.blocks) == frame.start + 1:
        rename(reader.blocks[-1], frame, kind)
        return
    blocks = reader.blocks[frame.start :]
    worded = [block for block in blocks if block.kind not in ("image", "fact")]
    if kind == "crumb":
        # the separators between crumbs
        worded = [block for block in worded if any(map(str.isalnum, block.plain))]
    if len(worded) == 1:
        rename(worded[0], frame, kind)
        return
    if not worded or sum(len(block.plain) for block in worded) > limit:
        return
    if any(block.kind in ("row", "crumb", "pages", "dt") or 0 < block.level < 3 for block in worded):
        return
    if kind == "text" and sum(block.level > 0 for block in worded) > 1:
        return
    joined = Block(
        joiner.join(block.plain for block in worded),
        joiner.join(block.linked for block in worded),
        "field" if any(block.kind == "field" for block in worded) else kind,
        frame,
        0,
        sum(block.link_chars for block in worded),
        next((block.prop for block in worded if block.prop), ""),
    )
    rest = [block for block in blocks if block.kind in ("image", "fact")]
    reader.blocks[frame.start :] = [*rest, joined]


def rename(block: Block, frame: Frame, kind: str) -> None:
    """Calls the only text of an item, a cell or a row by what it is in."""
    if kind != "text" and block.kind in ("text", "p", "cell"):
        block.kind = kind
        block.frame = frame


def join_definition(reader: Reader, frame: Frame) -> None:
    """Joins a <dd> to its <dt>: one line, `term: definition`."""
    if frame.start < 1 or len(reader.blocks) != frame.start + 1:
        return
    term, definition = reader.blocks[-2:]
    if term.kind == "dt" and definition.kind == "dd":
        colon = " " if term.plain.endswith(":") else ": "
        definition.plain = term.plain + colon + definition.plain
        definition.linked = term.linked + colon + definition.linked
        definition.kind = "row"
        definition.link_chars += term.link_chars
        del reader.blocks[-2]
