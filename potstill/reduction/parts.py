"""Elements that are read as a whole: images, microdata, drop-down lists and menus.

Used by potstill/reduction/blocks.py, which walks the page.
"""

import re
from typing import Any

from potstill.reduction.lines import MAX_URL, SPLIT_CHARS, Block, Frame, Reader, add_text, clean_text, flush, usable_url
from potstill.reduction.regions import WEIGHTS
from potstill.reduction.words import names

# regions worth so little that their boxes need not be told apart, unless they hold one of these
COARSE = ("nav", "footer", "social", "modal")
STRUCTURE = (
    "h1,[itemprop],[class*=pagin],[class*=pager],[class*=page-number],[class*=bread],[class*=cookie],[id*=cookie],"
    "[class*=consent],[id*=consent],script,style,noscript,template,title,del,s,iframe,object,video,audio,canvas,"
    "textarea,datalist,text,desc"
)
# what may be hidden by its own markup; is_hidden says whether it is
HIDDEN = "[hidden],[style*=none i],[style*=hidden i],dialog"
HIDDEN_STYLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)
SOURCES = ("src", "data-src", "data-lazy-src", "data-original", "data-lazy", "data-image", "data-zoom-image")
# machine-readable properties that answer no question about the page's subject
EMPTY_PROPS = names(
    "position url image logo thumbnailurl contenturl embedurl uploaddate datepublished datemodified mainentityofpage "
    "target query-input worstrating bestrating itemcondition pricevaliduntil width height"
)
# inputs to type into: their line is a label that a visitor fills in
FIELDS = ("text", "email", "tel", "password", "search", "url")
MAX_OPTIONS, MAX_LABEL = 24, 40


def is_hidden(attributes: dict[str, str | None], tag: str, revealed: frozenset[str]) -> bool:
    """Whether the element's own markup hides it and nothing on the page can show it. aria-hidden text is on screen."""
    hidden = "hidden" in attributes and attributes["hidden"] != "until-found"
    style = attributes.get("style")
    if not hidden and not (style and HIDDEN_STYLE.search(style)) and not (tag == "dialog" and "open" not in attributes):
        return False
    return attributes.get("role") != "tabpanel" and (attributes.get("id") or "") not in revealed


def add_coarse(reader: Reader, parent: Frame, node: Any, region: str) -> bool:
    """Reads a menu, a footer or the like at once: as a list of its links when it is little else, or as lines of text.

    False when it holds something that wants the full walk. These regions are a third of a shop page's elements.
    """
    if node.css_first(STRUCTURE) is not None:
        return False
    if any(is_hidden(found.attributes, found.tag or "", reader.revealed) for found in node.css(HIDDEN)):
        return False
    links = node.css("a[href]")
    texts = [clean_text(link.text()) for link in links]
    lines = node.text(separator="\n", strip=True, skip_empty=True)
    listed = len(links) >= 8 and sum(map(len, texts)) > 0.7 * len(lines)
    flush(reader, parent)
    frame = Frame("li", parent, region, WEIGHTS[region], False, node, len(reader.blocks), 0)
    if listed:
        urls = [usable_url(link.attributes.get("href")) for link in links]
        found = [(text, f"[{text}]({url})" if url else text) for text, url in zip(texts, urls, strict=True)]
    else:
        found = [(text, text) for text in map(clean_text, lines.split("\n"))]
    for text, linked in found:
        if 0 < len(text) <= SPLIT_CHARS:
            reader.blocks.append(Block(text, linked, "li" if listed else "text", frame, 0, len(text) if listed else 0))
    return True


def add_fact(reader: Reader, frame: Frame, name: str | None, value: str | None) -> None:
    """A machine-readable value, such as <meta itemprop="price" content="12.50">, as a line of its own."""
    text = clean_text((value or "")[: 2 * MAX_URL])
    if not name or not text or len(text) > MAX_URL or "content" not in reader.attributes or name.lower() in EMPTY_PROPS:
        return
    line = f"{clean_text(name)[:40]}: {text}"
    reader.blocks.append(Block(line, line, "fact", frame, 0, 0, name))


def add_void(reader: Reader, parent: Frame, node: Any, tag: str, attributes: dict[str, str | None]) -> None:
    if tag == "img":
        add_image(reader, parent, attributes)
    elif tag in ("br", "hr"):
        flush(reader, parent)
    elif tag == "select":
        add_options(reader, parent, node)
    elif tag in ("meta", "link"):
        value = attributes.get("content") or attributes.get("href") or ""
        add_fact(reader, parent, attributes.get("itemprop"), re.sub(r"^https?://schema\.org/", "", value))
    elif tag == "input":
        kind = (attributes.get("type") or "text").lower()
        if kind in ("submit", "button"):
            add_text(reader, f" {attributes.get('value') or ''} ")
        elif kind in FIELDS:
            reader.field = True


def add_image(reader: Reader, parent: Frame, attributes: dict[str, str | None]) -> None:
    """An image with an address as a block of its own; one without as its alternative text in the line."""
    if any((attributes.get(side) or "").strip().removesuffix("px") in ("0", "1", "2") for side in ("width", "height")):
        return  # a tracker
    alt = clean_text(attributes.get("alt") or "")[:MAX_URL] if "alt" in reader.attributes else ""
    source = ""
    if "src" in reader.attributes:
        source = next(filter(None, (usable_url(attributes.get(name)) for name in SOURCES)), "")
    if source:
        reader.blocks.append(Block(alt, f"![{alt}]({source})", "image", parent, 0, 0, attributes.get("itemprop") or ""))
    elif alt:
        add_text(reader, f" {alt} ")


def add_options(reader: Reader, parent: Frame, node: Any) -> None:
    """A <select> as one line with its label; a long one, such as a list of countries, keeps its first choices and says
    how many there are."""
    label = "".join(reader.plain).strip()
    if len(label) <= MAX_LABEL:
        reader.plain.clear()
        reader.linked.clear()
    flush(reader, parent)
    options = node.css("option")
    if node.css_first(HIDDEN) is not None:
        options = [option for option in options if not is_hidden(option.attributes, "option", reader.revealed)]
    texts = [text for text in (clean_text(option.text()[:200])[:80] for option in options) if text]
    line = " | ".join(texts[:MAX_OPTIONS])
    if len(texts) > MAX_OPTIONS:
        line += f" | ... ({len(texts)})"
    if 0 < len(label) <= MAX_LABEL:
        line = f"{label.rstrip(': ')}: {line}" if line else label
    if line:
        reader.blocks.append(Block(line, line, "options", parent))
