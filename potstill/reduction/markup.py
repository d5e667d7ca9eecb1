"""The checks of a page before it is parsed: is it text, and does its markup parse in bounded time and memory?

    page = checked(html)

Parsers take quadratic time in depth and in the attributes of one element, and open unclosed formatting elements
again in every block; all of that is seen in one linear scan of the tags.
"""

import re
from collections import deque

MAX_CHARS = 4_000_000
MAX_TAGS = 60_000
# browsers stop nesting at 512
MAX_DEPTH = 512
MAX_ATTRIBUTES, MAX_ATTRIBUTES_OF_ONE = 200_000, 2_000
MAX_REOPENED = 400_000
# the parser's time grows with the square of depth and of one element's attributes; below this it cannot matter
SMALL_TAGS = 1_200
ATTRIBUTES = r"""(?:[^>"'=]++|=\s*+(?:"[^"]*+"?+|'[^']*+'?+)?+|["'])*+"""
RAW_TEXT = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes", "noscript")
# a comment, a raw-text element up to its end tag, or a tag; possessive throughout, so that no input takes it back
TAG = re.compile(
    r"<(?:!--(?:[^-]++|-(?!-!?>))*+"
    + "".join(rf"|{name}(?=[\s/>]){ATTRIBUTES}>?+(?:[^<]++|<(?!/{name}))*+" for name in RAW_TEXT)
    + rf"|(/?[a-z][^\s/>]*+{ATTRIBUTES})>?+)",
    re.I,
)
ATTRIBUTE = re.compile(r"""[^\s/>=]++(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>]*+))?+""")
DATA_URI = re.compile(r"data:[\w.+-]*+/?[\w.+-]*+(?:;[\w=.-]++)*+,[A-Za-z0-9+/=%_-]{256,}+")
# a doctype, a comment or an element: where a page begins
PAGE_START = re.compile(r"<(?:!doctype|!--|[a-z][a-z0-9-]*[\s/>])", re.I)
# what is longer than this is no framing of a prompt but text of its page
MAX_FRAMING_CHARS = 10_000
CONTROL = bytes([*range(9), *range(14, 32), 127])


def ends_of(names: str) -> frozenset[str]:
    return frozenset("/" + name for name in names.split())


# elements, each as its end tag
VOID = ends_of("area base br col embed hr img input link meta param source track wbr")
FORMATTING = ends_of("a b big code em font i nobr s small strike strong tt u")
# end tags do not reach through these
SCOPES = ends_of("applet caption html table td th marquee object template svg math")
# an end tag that is not in this set is ignored when an element of this set lies above its start tag
SPECIAL = SCOPES | ends_of(
    "address article aside blockquote body button center dd details dir div dl dt fieldset figcaption figure "
    "footer form "
    "h1 h2 h3 h4 h5 h6 head header hgroup li listing main menu nav ol p pre search section select summary "
    "tbody tfoot thead "
    "tr ul"
)
HEADING_ENDS = ends_of("h1 h2 h3 h4 h5 h6")
# start tags that end an open element of the kinds named, with the elements they reach through for it
ITEMS, ROWS, NOTHING = ends_of("div p address"), ends_of("tr tbody thead"), ends_of("")
ENDS = {
    "/li": (ends_of("li"), ITEMS),
    "/dt": (ends_of("dt dd"), ITEMS),
    "/dd": (ends_of("dt dd"), ITEMS),
    "/tr": (ends_of("tr td th"), ROWS),
    "/td": (ends_of("td th"), NOTHING),
    "/th": (ends_of("td th"), NOTHING),
    "/tbody": (ends_of("tbody thead tr td th"), ROWS),
    "/tfoot": (ends_of("tbody thead tr td th"), ROWS),
}
# start tags that end an element of the kinds named when it is the innermost
ENDS_TOP = {"/option": ends_of("option")} | dict.fromkeys(HEADING_ENDS, HEADING_ENDS)
ENDS_P = (SPECIAL - SCOPES - ends_of("button body head select")) | ends_of("table p")
# start tags that do more than open an element
ODD = FORMATTING | ENDS.keys() | ENDS_TOP.keys() | ends_of("p body html")
NEARBY = 8


class Unreducible(ValueError):
    """A page that is not reduced. `reason` is a stable snake_case code; `detail` has numbers, never the page's text.

    Reasons: not_text, page_too_large, too_many_tags, page_too_deep, too_many_attributes, tangled_markup, no_text.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def page_place(text: str) -> tuple[int, int] | None:
    """Where a prompt has its page, as (start, end), or None when it has none; the rest is the prompt's framing.

    The page goes from its first tag to its last one, and to the end of the text when that tag leaves something open:
    a comment, a script, an element. Text of more than MAX_FRAMING_CHARS before or after it belongs to it too.
    """
    first = PAGE_START.search(text)
    if first is None:
        return None
    start, size = first.start(), len(text)
    end = text.rfind(">") + 1
    if end <= start:
        # "2 <b and c" has no tag; a comment needs no end to hide all that follows
        return (start, size) if text.startswith("<!--", start) else None
    if text[end:].strip():
        end = last_tag_end(text, start, end)
    if size - end > MAX_FRAMING_CHARS:
        end = size
    return (start if start <= MAX_FRAMING_CHARS else 0), end


def last_tag_end(text: str, start: int, end: int) -> int:
    """Where the last tag after `start` ends, or the text itself where what that tag opens is not closed; `end` is where
    the last bracket is."""
    last = next(iter(deque(TAG.finditer(text, start), maxlen=1)), None)
    if last is None:
        return end
    if last[1] and last[0][-1] != ">":
        # a page cut off within a tag, or the "<b" of some words after it
        return end if last.start() < end or text[end : last.start()].strip() else len(text)
    if last[1]:
        return last.end() if last[1][0] == "/" or end_name(last[1]) in VOID or last[0][-2] == "/" else len(text)
    # a comment's match ends before its -->, a script's before its end tag
    return text.find(">", last.end()) + 1 or len(text)


def end_name(tag: str) -> str:
    """The end tag of a tag, each without its brackets: "/div" for `div class="x"` and `/DIV`."""
    return "/" + tag.split(None, 1)[0].strip("/").lower()


def checked(html: str) -> bytes:
    """`html` as UTF-8 without long data URIs and control characters; raises Unreducible for what is no text or would
    cost too much to parse. One linear scan: 10 MB take well under a second."""
    if len(html) > MAX_CHARS // 4:
        html = DATA_URI.sub("data:,", html)
    if len(html) > MAX_CHARS:
        raise Unreducible("page_too_large", f"{len(html)} characters, at most {MAX_CHARS}")
    encoded = html.encode("utf-8", "replace")
    cleaned = encoded.translate(None, CONTROL)
    odd = len(encoded) - len(cleaned) + (html.count("\ufffd") if not html.isascii() else 0)
    # a NUL is never typed: few of them are one UTF-16 character each
    if odd and (odd + 4 * encoded.count(0)) * 10 > len(html):
        raise Unreducible("not_text", f"{odd} odd characters in {len(html)}; wrong charset?")
    tags = html.count("<")
    if not tags and sum(not ord(c) & 0xFF for c in html[:2000]) * 4 > len(html[:2000]):
        raise Unreducible("not_text", "UTF-16 with its bytes swapped")
    if tags > SMALL_TAGS or len(html) > MAX_ATTRIBUTES:
        check_markup([tag for tag in TAG.findall(html) if tag])
    return cleaned


def check_markup(tags: list[str]) -> None:
    """`tags` has the inside of each tag, such as `a href="x"` or `/a`."""
    check_nesting(tags)
    if len(tags) > MAX_TAGS:
        raise Unreducible("too_many_tags", f"{len(tags)} tags, at most {MAX_TAGS}")
    # an attribute takes two characters at least
    if sum(map(len, tags)) > 3 * MAX_ATTRIBUTES or max(map(len, tags), default=0) > 2 * MAX_ATTRIBUTES_OF_ONE:
        total = 0
        for tag in tags:
            count = len(ATTRIBUTE.findall(tag))
            total += count
            if count > MAX_ATTRIBUTES_OF_ONE or total > MAX_ATTRIBUTES:
                raise Unreducible("too_many_attributes", f"more than {MAX_ATTRIBUTES_OF_ONE} in one or {total} in all")


def check_nesting(tags: list[str]) -> None:
    """Follows the stack of open elements as HTML 13.2.6 keeps it, closely enough to know how deep the tree will be.

    Elements are named by their end tags, `/div`. Formatting elements left open are opened again in every later
    block: they add to the depth, and their number times the blocks is bounded too.
    """
    stack = ["#document"]
    formatting: list[str] = []
    known_tags: dict[str, tuple[str, bool, bool]] = {}
    reopened = steps = roots = paragraphs = 0
    for tag in tags:
        if tag == stack[-1]:
            stack.pop()
            if tag in FORMATTING:
                close_formatting(formatting, tag)
            elif tag == "/p":
                paragraphs -= 1
            continue
        name = tag.partition(" ")[0]
        known = known_tags.get(name)
        if known is None:
            end = end_name(name)
            known = known_tags[name] = (end, end in VOID, tag[0] == "/" or end in ODD)
        end, void, odd = known
        if void:
            continue
        if formatting:
            reopened += len(formatting)
        if odd or (paragraphs and end in ENDS_P):
            if tag[0] == "/":
                steps += end_distant(stack, end)
                if end in FORMATTING:
                    close_formatting(formatting, end)
                paragraphs = stack.count("/p")
            elif end in FORMATTING:
                steps += NEARBY
                # a link ends the one before it
                if end == "/a":
                    close_formatting(formatting, end)
                formatting.append(end)
                stack.append(end)
            else:
                steps += end_implied(stack, end)
                roots += end in ("/body", "/html")
                stack.append(end)
                paragraphs = stack.count("/p")
            if steps > 4 * MAX_REOPENED:
                break
        else:
            stack.append(end)
        if len(stack) + len(formatting) > MAX_DEPTH:
            raise Unreducible("page_too_deep", f"elements nested more than {MAX_DEPTH} deep")
    # the attributes of every <body> are gathered in one
    if reopened > MAX_REOPENED or steps > 4 * MAX_REOPENED or roots > 20:
        raise Unreducible("tangled_markup", "too many elements left open or closed out of order")


def close_formatting(formatting: list[str], end: str) -> None:
    for place in range(len(formatting) - 1, -1, -1):
        if formatting[place] == end:
            del formatting[place]
            return


def end_implied(stack: list[str], end: str) -> int:
    """Ends the heading, paragraph, item or cell that the start tag of `end` ends, if it is near the top."""
    if stack[-1] in ENDS_TOP.get(end, NOTHING):
        stack.pop()
    ended, passed = ENDS.get(end, (NOTHING, NOTHING))
    top = len(stack)
    for place in range(len(stack) - 1, max(0, len(stack) - 1 - NEARBY), -1):
        found = stack[place]
        if found in ended or (found == "/p" and end in ENDS_P):
            top = place
        elif found in SPECIAL and found not in passed:
            break
    del stack[top:]
    return NEARBY


def end_distant(stack: list[str], end: str) -> int:
    """Handles an end tag whose element is not on top; returns how many elements it looked at."""
    blocked = SCOPES if end in SPECIAL or end in FORMATTING else SPECIAL
    for place in range(len(stack) - 1, 0, -1):
        if stack[place] == end:
            # a misnested </b> ends the <b> alone, not the blocks opened inside it; a <form> likewise
            del stack[place : place + 1 if end in FORMATTING or end == "/form" else None]
            return len(stack) - place
        if stack[place] in blocked:
            return len(stack) - place
    return len(stack)
