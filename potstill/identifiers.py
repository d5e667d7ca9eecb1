"""Finds identifiers that are more than a run of digits: emails, URL userinfo, IP addresses, IBANs, keys and tokens.

Every scan starts from something rare (an "@", a pair of colons, a key's prefix) and then looks at a bounded window, so
that time is linear in the text whatever it holds.
"""

import ipaddress
import itertools
import re
from collections.abc import Iterator

from potstill.pseudonyms import AT, iban_remainder

Found = tuple[int, int, str]  # start, end, kind

LOCAL_REVERSED = re.compile(r"[\w.+'-]{0,100}")
# labels and their number as RFC 1035 bounds them, the number tighter
DOMAIN = re.compile(r"(?:[^\W_][\w-]{0,62}\.){1,8}(xn--[a-z0-9-]{2,59}|[^\W\d_]{2,24})(?![\w-])")
# image@2x.png is no address
FILE_ENDINGS = frozenset(
    (
        "png",
        "jpg",
        "jpeg",
        "gif",
        "webp",
        "svg",
        "ico",
        "css",
        "js",
        "json",
        "html",
        "htm",
        "php",
        "pdf",
        "mp4",
        "woff",
        "xml",
        "avif",
        "scss",
        "map",
    )
)
NOT_IN_USERINFO = re.compile(r"[\s/\"'<>\\?#{}|]")
SERVICE_USERS = frozenset(("git", "hg", "svn"))

IPV4 = re.compile(r"[0-9](?<![\w.][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.\w)")
DECIMAL = re.compile(r"\.[0-9]")
NEAR = 32  # characters in which a word can name an address
IP_LABEL = re.compile(r"(?<![^\W_])ip(?:v4)?(?![^\W_])|address|host|server|client", re.IGNORECASE)
VERSION_LABEL = re.compile(
    r"(?<![^\W\d_])(?:v|vers?|versi(?:o|ó)n(?:en|s)?|versie|firmware|release|build|rev|revision|section|chapter|sec"
    r"|driver|bios|sdk|software|kernel|agent|chrome|safari|clause|generator|plugin)(?![^\W\d_])|§",
    re.IGNORECASE,
)
# a loopback, an unset address and netmasks are nobody's
NOBODYS = re.compile(r"127\.0\.0\.1|0\.0\.0\.0|255\.255\.\d+\.\d+")
COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
IPV6_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")
IPV6_LONGEST = 45

# from the check digits, two letters in: digits are rarer
IBAN = re.compile(r"[0-9](?<=[A-Za-z]{2}[0-9])(?<![^\W_][A-Za-z]{2}[0-9])[0-9](?:[ \u00a0-]?[A-Za-z0-9]){11,31}+")
# ISO 13616 registry: the total length by country
IBAN_COUNTRIES = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 DZ24 EE20 "
    "EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 "
    "KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 "
    "PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 "
    "XK20 YE30 "
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in IBAN_COUNTRIES.split()}

# what must be in a text before the pattern is tried -> the pattern; group 1, where there is one, is the secret. What
# may not stand before a literal is asked after it: a pattern that starts with a literal is found ten times as fast
KEYS = {
    "sk-": r"sk-(?<![\w-]sk-)(?:[a-z]{2,10}\d{0,2}-){0,3}[A-Za-z0-9_-]{16,400}",
    "_live_": r"(?<!\w)(?:[spr]k|whsec)_live_[A-Za-z0-9]{16,200}",
    "_test_": r"(?<!\w)(?:[spr]k|whsec)_test_[A-Za-z0-9]{16,200}",
    "whsec_": r"whsec_(?<!\wwhsec_)[A-Za-z0-9+/]{24,200}",
    "github_pat_": r"github_pat_(?<!\wgithub_pat_)[A-Za-z0-9_]{22,255}",
    "glpat-": r"glpat-(?<![\w-]glpat-)[\w-]{20,200}",
    "AKIA": r"AKIA(?<!\wAKIA)[A-Z0-9]{16}(?!\w)",
    "ASIA": r"ASIA(?<!\wASIA)[A-Z0-9]{16}(?!\w)",
    "AIza": r"AIza(?<![\w-]AIza)[\w-]{35}(?![\w-])",
    "ya29.": r"ya29\.(?<!\wya29\.)[\w-]{20,400}",
    "xox": r"xox(?<![\w-]xox)[abeoprs]-[A-Za-z0-9-]{10,250}",
    "xapp-": r"xapp-(?<![\w-]xapp-)[A-Za-z0-9-]{20,250}",
    "hf_": r"hf_(?<!\whf_)[A-Za-z0-9]{30,60}(?!\w)",
    "npm_": r"npm_(?<!\wnpm_)[A-Za-z0-9]{36}(?!\w)",
    "pypi-": r"pypi-(?<![\w-]pypi-)[\w-]{40,250}",
    "SG.": r"SG\.(?<!\wSG\.)[\w-]{16,32}\.[\w-]{16,64}",
    "shp": r"shp(?<!\wshp)(?:at|ca|pa|ss)_[a-fA-F0-9]{32}(?!\w)",
    "dop_v1_": r"dop_v1_(?<!\wdop_v1_)[a-f0-9]{64}(?!\w)",
    "eyJ": r"eyJ(?<![\w-]eyJ)[\w-]{8,4000}\.[\w-]{8,8000}\.[\w-]{10,2000}",
    "PRIVATE KEY-----": r"-----BEGIN (?:[A-Z]{2,9} ){0,2}PRIVATE KEY-----"
    r"(\s*(?:[\w-]{3,20}:[^\n]{0,90}\n+)*[A-Za-z0-9+/=\s]{16,20000})",
}
KEYS |= {f"gh{kind}_": rf"gh{kind}_(?<!\wgh{kind}_)[A-Za-z0-9]{{30,255}}" for kind in "pousr"}
KEY_PATTERNS = [(literal, re.compile(pattern)) for literal, pattern in KEYS.items()]
AUTHORIZATION = re.compile(r"(?<!\w)(?:bearer|basic)\s{1,4}([A-Za-z0-9._~+/-]{16,4000}={0,2})", re.IGNORECASE)
ASSIGNED = re.compile(
    r"(?:api[_-]?key|secret(?:[_-]?key)?|token|passw(?:or)?d|pwd|access[_-]?key(?:[_-]?id)?|auth[_-]?key|private[_-]?key|credentials?)"
    r"[\"']?\s{0,3}(?:[:=]>?|[\"']?\s{1,3}(?:value|content)=)\s{0,3}[\"']?([A-Za-z0-9+/_.~-]{16,500}={0,2})",
    re.IGNORECASE,
)
# every match begins with one of these
AUTHORIZATION_WORDS = ("bearer", "basic")
ASSIGNED_WORDS = ("api", "secret", "token", "passw", "pwd", "access", "auth", "private", "credential")


def scan(text: str) -> Iterator[Found]:
    """Yields what is found, in no order; spans may overlap."""
    yield from _addresses(text)
    yield from _ipv4(text)
    yield from _ipv6(text)
    yield from _ibans(text)
    yield from _secrets(text)


def _addresses(text: str) -> Iterator[Found]:
    for match in AT.finditer(text):
        at = match.start()
        if userinfo := _userinfo(text, at, match.end()):
            yield userinfo
            continue
        reversed_local = LOCAL_REVERSED.match(text[max(0, at - 100) : at][::-1])
        local = reversed_local[0][::-1].lstrip(".'-+") if reversed_local else ""
        if text[at - len(local) - 1 : at - len(local)] == "%":  # the two digits of %20
            local = local[2:]
        if not local or local[-1] in ".'":
            continue
        domain = DOMAIN.match(text, match.end())
        if domain and domain[1].lower() not in FILE_ENDINGS:
            yield at - len(local), domain.end(), "email"


def _userinfo(text: str, at: int, after: int) -> Found | None:
    window = text[max(0, at - 300) : at]
    scheme, slashes, info = window.rpartition("://")
    host = text[after : after + 1]
    if not (slashes and info and scheme[-1:].isalpha() and (host.isalnum() or host == "[")):
        return None
    if NOT_IN_USERINFO.search(info) or info[0] in "$:@" or info in SERVICE_USERS:
        return None
    return at - len(info), at, "url_userinfo"


def _ipv4(text: str) -> Iterator[Found]:
    for match in IPV4.finditer(text):
        octets = match[0].split(".")
        if any(int(octet) > 255 or (octet[0] == "0" and octet != "0") for octet in octets) or NOBODYS.fullmatch(
            match[0]
        ):
            continue
        start = match.start()
        before, after = text[max(0, start - NEAR) : start], text[match.end() : match.end() + NEAR]
        labelled = _last(IP_LABEL, before)
        if _last(VERSION_LABEL, before) > labelled:
            continue
        # jquery-1.12.4.1, Firefox/1.2.3.4, and numbered sections
        in_a_name = len(before) > 1 and before[-1] in "-/_" and before[-2].isalnum()
        # the path of a drawing runs its decimals together: .43.13.74
        in_decimals = len(DECIMAL.findall(IPV4.sub("", before + " " + after))) > 1
        if labelled < 0 and (in_a_name or in_decimals or all(len(octet) == 1 for octet in octets)):
            continue
        yield start, match.end(), "ip"


def _ipv6(text: str) -> Iterator[Found]:
    reached = 0
    for match in COLONS.finditer(text):
        if match.start() < reached:
            continue
        lowest, highest = max(reached, match.start() - IPV6_LONGEST), min(len(text), match.end() + IPV6_LONGEST)
        start = match.start()
        while start > lowest and text[start - 1] in IPV6_CHARACTERS:
            start -= 1
        end = match.end()
        while end < highest and text[end] in IPV6_CHARACTERS:
            end += 1
        reached = end
        if (start and (text[start - 1].isalnum() or text[start - 1] in "_:")) or text[end : end + 1].isalnum():
            continue
        written = text[start:end].rstrip(".")
        written = written if written.endswith("::") else written.rstrip(":")
        if _is_ipv6(written):
            yield start, start + len(written), "ip"


def _is_ipv6(written: str) -> bool:
    """False as well for what CSS and C++ write with two colons."""
    if "::" in written:
        groups = [group for group in written.split(":") if group]
        if len(groups) < 2 or not any(len(group) >= 3 for group in groups) or not any(c.isdigit() for c in written):
            return False
    elif written.count(":") not in (6, 7):
        return False
    try:
        ipaddress.IPv6Address(written)
    except ValueError:
        return False
    return True


def _ibans(text: str) -> Iterator[Found]:
    reached = 0
    while match := IBAN.search(text, reached + 2):
        start, reached = match.start() - 2, match.end()
        length = IBAN_LENGTHS.get(text[start : start + 2].upper())
        if length is None:
            continue
        # words that follow look like more of the number: its country says where it ends
        places = [n for n in range(start, reached) if text[n].isalnum()]
        if len(places) < length:
            continue
        end = places[length - 1] + 1
        iban = "".join(text[n] for n in places[:length])
        if text[end : end + 1].isalnum() or not (iban.isupper() or iban.islower()):
            continue
        if iban_remainder(iban) == 1:
            yield start, end, "iban"


def _secrets(text: str) -> Iterator[Found]:
    for literal, pattern in KEY_PATTERNS:
        for match in pattern.finditer(text) if literal in text else ():
            # sk- also begins names of CSS classes
            if literal != "sk-" or _is_random(match[0]):
                yield *match.span(1 if pattern.groups else 0), "secret"
    lower = text.lower()
    for pattern, words in ((AUTHORIZATION, AUTHORIZATION_WORDS), (ASSIGNED, ASSIGNED_WORDS)):
        for match in _worded(pattern, words, text, lower):
            if _is_random(match[1]):
                yield *match.span(1), "secret"


def _worded(pattern: "re.Pattern[str]", words: tuple[str, ...], text: str, lower: str) -> list[re.Match[str]]:
    """What pattern.finditer gives; to look for the plain words it begins with first is ten times as fast."""
    if len(lower) != len(text):  # a few letters grow when they are lowered, and places would shift
        return list(pattern.finditer(text))
    places = []
    for word in words:
        place = lower.find(word)
        while place >= 0:
            places.append(place)
            place = lower.find(word, place + 1)
    found: list[re.Match[str]] = []
    for place in sorted(places):
        if not found or place >= found[-1].end():
            match = pattern.match(text, place)
            found += [match] if match else []
    return found


def _is_random(value: str) -> bool:
    """Whether a text looks drawn, not written: class names and design tokens are words between hyphens."""
    longest = max(re.split(r"[^A-Za-z0-9]+", value), key=len)
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in longest]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    enough = 3 if "d" in kinds else 5
    return len(longest) >= 10 and changes >= enough and len(set(longest)) >= 6 and any(c.isdigit() for c in value)


def _last(pattern: "re.Pattern[str]", text: str) -> int:
    return max((match.start() for match in pattern.finditer(text)), default=-1)
