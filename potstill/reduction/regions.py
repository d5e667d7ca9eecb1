"""What part of a web page an element is: navigation, footer, reviews, ... by its tag, its role and general class words.

Used by potstill/blocks.py. No rule names a site; every word is one that themes of many shops share.
"""

import re

TAGS = {"nav": "nav", "footer": "footer", "aside": "aside", "header": "header", "dialog": "modal"}
ROLES = {
    "navigation": "nav",
    "contentinfo": "footer",
    "complementary": "aside",
    "banner": "header",
    "dialog": "modal",
    "alertdialog": "modal",
    "search": "social",
    "menu": "nav",
    "menubar": "nav",
}
# how much the words of a region are worth; the main content has 1
WEIGHTS = {
    "crumb": 1.0,
    "pages": 0.8,
    "header": 0.4,
    "aside": 0.35,
    "related": 0.3,
    "reviews": 0.3,
    "veiled": 0.3,
    "nav": 0.12,
    "modal": 0.12,
    "social": 0.08,
    "footer": 0.08,
}
# what says where a page is, and the regions it may stand in without being worth less
PATHS, AROUND_PATHS = ("crumb", "pages"), ("nav", "header", "footer")
# attributes that name a region beside class and id
NAMING = frozenset(("role", "aria-label", "itemtype"))
# a heading in one of these that repeats the page's main heading makes it main content
LIFTED = ("aside", "header")

CONSENT = re.compile(
    r"(?:cookie|gdpr|ccpa|consent)s?[-_]?(?:banner|bar(?!s)|notice|consent|law|pop|modal|message|overlay|wall|warning|"
    r"disclaimer|prefer|settings|dialog|layer|manager|hint|tool|accept)|"
    r"(?<![a-z])(?:notice|banner|popup|pop-up|modal|message|overlay|alert|warning|accept)[-_](?:cookies?|gdpr|consent)"
    r"(?![a-z])|"
    r"onetrust|cookiebot|truste|didomi|usercentrics|"
    r"qc-cmp|cmplz|iubenda|osano|termly|fc-consent|^cky-|^cmp-?(?:banner|container|wrapper|box)"
)
# Each is matched from the start of one class name or id, after a site-wide prefix: `footer` and `site-footer_2` are
# footers, `details-footer` is the end of some box; `page-numbers` is a name of its own.
PREFIX = re.compile(
    r"(?:(?:site|page(?!-?numbers)|main|global|app|the|shop|store|section|shopify-section|block|js|l|c|o|m|u)[-_]+)*"
)
REGION = re.compile(
    r"(?P<crumb>.*bread-?_?crumb)|"
    r"(?P<pages>(?:.*pagination|pager|paginat\w+|page-?numbers)(?![a-z]))|"
    r"(?P<footer>foot(?:er)?(?![a-z]))|"
    r"(?P<social>(?:.*newsletter|subscri\w+|sign-?up|log-?in|social|share|sharing|disqus|addthis|follow-us)(?![a-z]))|"
    r"(?P<modal>(?:.*modal|popup|pop-up|lightbox|off-?canvas|drawer|mini-?cart|cart-(?:drawer|popup|"
    r"sidebar))(?![a-z]))|"
    r"(?P<related>.*related|.*recommend|similar|.*also[-_]?(?:like|bought|view)|.*up-?sell|.*cross-?sell|"
    r".*recent(?:ly)?[-_]?(?:view|post)|you[-_]?may|suggest|trending|best-?sell|popular)|"
    r"(?P<reviews>(?:reviews?|comments?|comment-?list|respond|testimonials?)(?![a-z]))|"
    r"(?P<nav>(?:nav|navbar|navigation|(?:mega|main|top|sub|mobile|drop-?down)?-?_?menu)(?![a-z]))|"
    r"(?P<aside>(?:side-?_?bar|aside|widgets?|advert\w*|ads?|sponsor\w*|promos?)(?![a-z]))"
)
# the name of a whole layout, such as content-sidebar-wrap or no-sidebar, is not the name of the part
LAYOUT = re.compile(r"(?:^|[-_])(?:has|with|without|no|content|wrap|wrapper|layout|columns?|product)(?:[-_]|$)")
VEILED = frozenset(("hidden", "hide", "d-none", "is-hidden", "u-hidden"))
SHOWN_AGAIN = re.compile(r"(?:sm|md|lg|xl|xxl)[:-]")
# where a name has several meanings, the earlier wins
ORDER = ["consent", *(name for name in REGION.groupindex)]
CACHE_SIZE = 20_000
_named: dict[str, str] = {}
_words: dict[str, str] = {}


def region_of(tag: str, attributes: dict[str, str | None]) -> str:
    """The region an element announces, "consent" for a cookie banner, or ""."""
    structural = TAGS.get(tag, "")
    if not attributes:
        return structural
    names = attributes.get("class") or ""
    if "id" in attributes:
        names = f"{names} {attributes['id'] or ''}"
    named = _named.get(names)
    if named is None:
        named = name_region(names.lower().split())
        remember(_named, names, named)
    if named in ("consent", "crumb", "pages"):
        return named
    if not NAMING.isdisjoint(attributes):
        if "bread" in (attributes.get("aria-label") or "").lower() or "BreadcrumbList" in (
            attributes.get("itemtype") or ""
        ):
            return "crumb"
        structural = ROLES.get(attributes.get("role") or "", structural)
    if structural and named:
        return min(structural, named, key=WEIGHTS.__getitem__)
    return structural or named


def name_region(names: list[str]) -> str:
    found = {region for region in map(word_region, names[:40]) if region}
    if found:
        return min(found, key=ORDER.index)
    if not VEILED.isdisjoint(names) and not any(SHOWN_AGAIN.match(name) for name in names):
        return "veiled"
    return ""


def word_region(word: str) -> str:
    """The region that one class name or id announces; remembered, because pages repeat their names."""
    region = _words.get(word)
    if region is None:
        cut = word[:80]
        region = ""
        if CONSENT.search(cut):
            region = "consent"
        elif not LAYOUT.search(cut):
            prefix = PREFIX.match(cut)
            found = REGION.match(cut, prefix.end() if prefix else 0)
            region = (found.lastgroup or "") if found else ""
        remember(_words, word, region)
    return region


def remember(cache: dict[str, str], key: str, value: str) -> None:
    if len(cache) >= CACHE_SIZE:
        cache.clear()
    if len(key) < 500:
        cache[key] = value
