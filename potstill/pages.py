"""What a raw page says, for looking values up in it: its text, attributes that carry values, the JSON in its scripts.

One cheap pass without a parser, linear in the page whatever is in it; potstill/html.py makes the text for a prompt.
"""

import re

MAX_PAGE_CHARS = 2_000_000

_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*>")
_UNREAD = re.compile(r"<(script|style)\b[^<>]*>", re.IGNORECASE)
_END = {name: re.compile(rf"</{name}", re.IGNORECASE) for name in ("script", "style")}
_ATTRIBUTES = (
    "content|value|lang|href|src|srcset|alt|title|label|placeholder|datetime|aria-label|data-[a-zA-Z0-9_-]{1,64}"
)
# a value without quotes ends at white space or a bracket
_ATTRIBUTE = re.compile(
    rf"""\b(?:{_ATTRIBUTES})\s?=\s?(?:"([^"<]*)"|'([^'<]*)'|([^\s"'<>=`][^\s"'<>`]*+))""", re.IGNORECASE
)
# possessive, and without its closing quote too: a script made of backslashes and quotes takes no longer than another
_JSON_VALUE = re.compile(r'"((?:[^"\\\n]++|\\.)*+)"?(?:\s?:\s?(-?[0-9][0-9.eE+-]*))?')
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": " ", "r": " ", "b": " ", "f": " "}
_LANGUAGE = re.compile(r"""<html\b[^<>]*\slang\s?=\s?["']?([a-zA-Z]{2,3}(?:[-_][a-zA-Z]{2,4}){0,2})\b""", re.IGNORECASE)


def page_text(raw: str) -> str:
    """Text, attribute values and JSON strings and numbers, a line each; the first 2 million characters of the page.

    A text without tags comes back as it is. Comments, styles and scripts that hold no JSON are left out. Entities are
    left as they are: potstill/folding.py decodes them.
    """
    raw = raw[:MAX_PAGE_CHARS]
    if not _TAG.search(raw):
        return raw
    markup, scripts = _split(raw)
    attributes = ["".join(match.groups("")) for match in _ATTRIBUTE.finditer(markup)]
    return "\n".join([_TAG.sub(" ", markup), *attributes, *scripts])


def declared_language(raw: str) -> str | None:
    """The lang attribute of the html element, as in "de" or "en-GB"."""
    match = _LANGUAGE.search(raw[:5_000])
    return match[1] if match else None


def _split(raw: str) -> tuple[str, list[str]]:
    """(the markup without scripts and styles, the values of the scripts' JSON)."""
    markup, values, position = [], [], 0
    while opened := _UNREAD.search(raw, position):
        markup.append(raw[position : opened.start()])
        name = opened[1].lower()
        closed = _END[name].search(raw, opened.end())
        position = closed.start() if closed else len(raw)
        body = raw[opened.end() : position]
        # code without a quoted key is no JSON
        if name == "script" and '":' in body:
            values += [_unescape(value) for match in _JSON_VALUE.finditer(body) for value in match.groups("") if value]
    return " ".join([*markup, raw[position:]]), values


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    text = _ESCAPE.sub(lambda match: _escaped(match[1]), value)
    # a character beyond the basic plane is written as two halves
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _escaped(code: str) -> str:
    return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, code)
