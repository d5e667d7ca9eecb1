"""What a parsed page says outside its body's text: title, <meta> lines, main heading, and which parts its controls
show."""

import re
from typing import Any

from potstill.reduction.lines import MAX_URL, clean_text, usable_url
from potstill.reduction.words import words

META = re.compile(
    r"(?:og:(?:title|image|price:amount|price:currency|availability|brand|site_name|type|description)|product:[a-z_:]+|"
    r"description|author|twitter:(?:label|data)\d)$"
)


def head_lines(tree: Any, attributes: frozenset[str]) -> list[tuple[float, str]]:
    """The useful lines of the page's head with their worth: title, language, address, and what its <meta> tags say."""
    lines: list[tuple[float, str]] = []
    title = clean_text(text_of(tree, "title"))[:MAX_URL]
    if title:
        lines.append((4.0, f"title: {title}"))
    language = (tree.root.attributes.get("lang") or "") if tree.root is not None else ""
    if re.fullmatch(r"[A-Za-z]{2,3}(?:[-_][A-Za-z]{2,4})?", language):
        lines.append((0.8, f"lang: {language}"))
    if "href" in attributes:
        link = tree.css_first('link[rel="canonical"]')
        address = usable_url(link.attributes.get("href")) if link is not None else ""
        if address:
            lines.append((0.8, f"url: {address}"))
    return lines + meta_lines(tree, attributes, title) if "content" in attributes else lines


def meta_lines(tree: Any, attributes: frozenset[str], title: str) -> list[tuple[float, str]]:
    """What the <meta> tags say of the page: Open Graph, product data, author, and the pairs some shops put there."""
    said, label = {title}, ""
    named: set[str] = set()
    lines = []
    for node in tree.css("meta[content]"):
        found = node.attributes
        name = (found.get("property") or found.get("name") or "").lower()
        value = clean_text(found.get("content") or "")
        if not META.match(name) or name in named or value in said or not 0 < len(value) <= 400:
            continue
        named.add(name)
        if name.startswith("twitter:label"):
            label = value
            continue
        if name.startswith("twitter:data"):
            name, label = label, ""
        if not name or (name == "og:title" and value in title) or (name == "og:image" and "src" not in attributes):
            continue
        said.add(value)
        priced = name.startswith("product:") or "price" in name.lower()
        lines.append((2.5 if priced else 0.35 if "description" in name else 0.9, f"{name}: {value}"))
    return lines


def text_of(tree: Any, selector: str) -> str:
    node = tree.css_first(selector)
    return node.text() if node is not None else ""


def summary_words(tree: Any) -> set[str]:
    """The words of the page's own description, by which the description in its text is known."""
    node = tree.css_first('meta[name="description"],meta[property="og:description"]')
    return set(words((node.attributes.get("content") or "")[:300])) if node is not None else set()


def main_heading(tree: Any) -> tuple[frozenset[int], str]:
    """The mem_id of the main <h1> and of all that encloses it, and its letters and digits; the one that the title
    repeats is preferred. Empty when there is none."""
    title = squeeze(text_of(tree, "title")[:1000])
    best, letters = None, ""
    for node in tree.css("h1")[:5]:
        text = squeeze(node.text()[:1000])
        if text and (best is None or (text in title and letters not in title)):
            best, letters = node, text
    path = set()
    while best is not None:
        path.add(best.mem_id)
        best = best.parent
    return frozenset(path), letters


def squeeze(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def revealed_ids(tree: Any) -> frozenset[str]:
    """The ids of elements that the page's own tabs and toggles show."""
    ids = set()
    for node in tree.css('[aria-controls],a[href^="#"],[data-target^="#"],[data-bs-target^="#"]'):
        found = node.attributes
        for name in ("aria-controls", "href", "data-target", "data-bs-target"):
            ids.add((found.get(name) or "").removeprefix("#"))
    return frozenset(ids - {""})
