"""Replaces personal data by pseudonyms of the same type, jointly in all the texts of one exemplar.

    key = load_key(Path("data/.pii_key"))
    prompt, response = pseudonymise([prompt, response], key, allow=["+44 20 7946 0018"])

Found: emails, phones, payment cards, IBANs, IP addresses, Social Security numbers, API keys and tokens, private keys,
and user:password@ in URLs. Not found without a recogniser: names of people, postal addresses and places. Never found:
passwords that look like words, user names, licence plates, passport and tax numbers, dates of birth.
"""

import functools
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from potstill import digit_runs, identifiers, phones
from potstill.pseudonyms import normalise, pseudonym
from potstill.stop import DATA, USAGE, Stop

KEY_VARIABLE = "POTSTILL_PII_KEY"
KEY_BYTES = 32
KINDS = ("url_userinfo", "secret", "email", "iban", "card", "ip", "ssn", "phone", "person", "location")
# kinds whose value is looked for as it is written; numbers are looked for in any form
VERBATIM = frozenset(("secret", "email", "person"))
SHORTEST_KNOWN = 8  # digits of a number that is looked for in the other texts
JSON_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)")
NER_CHUNK = 100_000  # characters, well below spaCy's own limit


class Span(NamedTuple):
    start: int
    end: int
    kind: str  # one of KINDS


def pseudonymise(
    texts: Sequence[str], key: bytes, allow: Iterable[str] = (), recogniser: str | None = None
) -> list[str]:
    """The texts with personal data replaced; the same person, card or phone gets the same pseudonym in all of them.

    A value that one text reveals by its context ("phone: ...") is replaced in the others too. What `allow` lists stays,
    however it is written; "@shop.com" keeps a whole domain's addresses. Canonical JSON stays valid JSON of the same
    shape. `recogniser` names an installed spaCy model, or its folder, for names of people and places. Text outside the
    spans that find_all gives is unchanged. Doing it twice with one key keeps all pseudonyms but phones, IPv4 addresses
    and names, which change to others of the same form.
    """
    return replace(texts, find_all(texts, allow, recogniser), key)


def find(text: str, allow: Iterable[str] = (), recogniser: str | None = None) -> list[Span]:
    """Personal data of one text, in order, without overlaps."""
    return find_all([text], allow, recogniser)[0]


def find_all(texts: Sequence[str], allow: Iterable[str] = (), recogniser: str | None = None) -> list[list[Span]]:
    """Personal data of texts that belong together. Raises Stop 2 when the recogniser's model is not installed."""
    allowed = _allowed(allow)
    # an escape such as \n would otherwise glue its letter to the word behind it
    texts = [mask(text) for text in texts]
    runs = [list(digit_runs.runs(text)) for text in texts]
    spans = [_spans(text, found, {}) for text, found in zip(texts, runs, strict=True)]
    if recogniser is not None:
        for text, found in zip(texts, spans, strict=True):
            found += _names(text, recogniser)
    spans = [[s for s in found if not _is_allowed(s, t, allowed)] for t, found in zip(texts, spans, strict=True)]
    if len(texts) > 1 and any(spans):
        values = sorted({(s.kind, t[s.start : s.end]) for t, found in zip(texts, spans, strict=True) for s in found})
        numbers = {normalise(k, w): k for k, w in values if k in ("card", "ssn", "phone")}
        known = {number: kind for number, kind in numbers.items() if len(number) >= SHORTEST_KNOWN}
        spans = [
            found + [s for s in _repeated(t, r, values, known) if not _is_allowed(s, t, allowed)]
            for t, r, found in zip(texts, runs, spans, strict=True)
        ]
    return [_without_overlaps(found) for found in spans]


def replace(texts: Sequence[str], spans: Sequence[Sequence[Span]], key: bytes) -> list[str]:
    """Puts pseudonyms in place of the spans. `key`: at least 16 bytes."""
    if len(key) < 16:
        raise ValueError(f"the key has {len(key)} bytes, want {KEY_BYTES}")
    found = [
        (text[s.start : s.end]) for text, ours in zip(texts, spans, strict=True) for s in ours if s.kind == "phone"
    ]
    # a number written without its country is the one that another text writes with it
    countries = {phone.national: phone.country for phone in map(phones.parse, found) if phone.country}
    return [_replaced(text, ours, key, countries) for text, ours in zip(texts, spans, strict=True)]


def counts(spans: Iterable[Iterable[Span]]) -> dict[str, int]:
    """Spans by kind, in the order of KINDS; for reports, which never show a value."""
    found = Counter(span.kind for ours in spans for span in ours)
    return {kind: found[kind] for kind in KINDS if found[kind]}


def load_key(path: Path) -> bytes:
    """The project's key: POTSTILL_PII_KEY in hex where that is set, else 32 bytes from `path`, made at first use.

    Whoever has the key can link pseudonyms to values; it belongs in no repository and no log. Raises Stop 2 for a key
    that is no hex or too short, Stop 65 for a file that is no key or that others can read.
    """
    given = os.environ.get(KEY_VARIABLE)
    if given is not None:
        if not re.fullmatch(r"(?:[0-9a-fA-F]{2}){32,}", given):
            raise Stop(
                f"{KEY_VARIABLE} is no key: want {KEY_BYTES} bytes or more in hex. Unset it, or make one anew.", USAGE
            )
        return bytes.fromhex(given)
    if not path.exists():
        _make_key(path)
    if path.stat().st_mode & 0o077:
        raise Stop(f"{path} can be read by others. Run chmod 600 {path}.", DATA)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise Stop(
            f"{path} has {len(key)} bytes, want {KEY_BYTES}. Restore it; a new key gives other pseudonyms.", DATA
        )
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # unlike a rename, a link never replaces the key that another process has just made
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def mask(text: str) -> str:
    """The text with JSON's escapes as line ends, at the same places."""
    return JSON_ESCAPE.sub(lambda match: "\n" * len(match[0]), text) if "\\" in text else text


def _spans(text: str, runs: list[list[tuple[int, int]]], known: dict[str, str]) -> list[Span]:
    spans = [] if known else [Span(*found) for found in identifiers.scan(text)]
    for pieces in runs:
        spans += [Span(*found) for found in digit_runs.decide(text, pieces, known)]
    return spans


def _repeated(
    text: str, runs: list[list[tuple[int, int]]], values: list[tuple[str, str]], known: dict[str, str]
) -> list[Span]:
    """Values found in any of the texts, where this text has them without the context that showed what they are.

    `known`: those that are numbers -> their kind.
    """
    spans = []
    for kind, written in values:
        if kind in VERBATIM and len(written) > 2:
            # not a pattern: every exemplar has values of its own, and compiling them would take longer than all else
            start = text.find(written)
            while start >= 0:
                end = start + len(written)
                if not (_is_letter(text, start - 1) or _is_letter(text, end)):
                    spans.append(Span(start, end, kind))
                start = text.find(written, end)
    return spans + (_spans(text, runs, known) if known else [])


def _is_letter(text: str, place: int) -> bool:
    return 0 <= place < len(text) and text[place].isalnum()


def _without_overlaps(spans: list[Span]) -> list[Span]:
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
        elif _rank(span) > _rank(kept[-1]):
            kept[-1] = span
    return kept


def _rank(span: Span) -> tuple[int, int]:
    return span.end - span.start, -KINDS.index(span.kind)


def _replaced(text: str, spans: Sequence[Span], key: bytes, countries: dict[str, str]) -> str:
    parts, reached = [], 0
    for span in spans:
        original = text[span.start : span.end]
        masked = mask(original)
        country = countries.get(phones.parse(masked).national, "") if span.kind == "phone" else ""
        made = pseudonym(span.kind, masked, key, country)
        if masked != original:  # only a private key runs over escapes, and keeps its length
            made = "".join(o if o != m else p for o, m, p in zip(original, masked, made, strict=True))
        parts += [text[reached : span.start], made]
        reached = span.end
    return "".join([*parts, text[reached:]])


def _allowed(allow: Iterable[str]) -> frozenset[str]:
    """The normal forms in which an allowed text can turn up."""
    forms: set[str] = set()
    for text in allow:
        forms |= {text, " ".join(text.casefold().split()), "".join(c for c in text if c.isalnum()).upper()}
        if sum(c.isdigit() for c in text) >= 7:
            forms |= {"".join(c for c in text if c.isdigit()), phones.parse(text).national}
    return frozenset(forms - {""})


def _is_allowed(span: Span, text: str, allowed: frozenset[str]) -> bool:
    if not allowed:
        return False
    value = normalise(span.kind, text[span.start : span.end])
    return value in allowed or (span.kind == "email" and "@" + value.rpartition("@")[2] in allowed)


def _names(text: str, recogniser: str) -> list[Span]:
    """People and places by presidio's spaCy recogniser. Chunks end at line ends where there are some."""
    engine, named = _ner(recogniser)
    spans, start = [], 0
    while start < len(text):
        cut = text.rfind("\n", start, start + NER_CHUNK) + 1 if len(text) - start > NER_CHUNK else 0
        end = cut or start + NER_CHUNK
        artifacts = engine.process_text(text[start:end], "en")
        for result in named.analyze(text[start:end], ["PERSON", "LOCATION"], artifacts):
            # a model may run over the quotes and braces of JSON, which must stay
            for part in re.finditer(r"[^\"{}\[\]:<>\n]+", text[start + result.start : start + result.end]):
                if any(c.isalpha() for c in part[0]):
                    offset = start + result.start
                    spans.append(Span(offset + part.start(), offset + part.end(), result.entity_type.lower()))
        start = end
    return spans


@functools.cache
def _ner(recogniser: str) -> tuple[Any, Any]:
    import spacy

    # checked here, because presidio would download what is missing
    if not (spacy.util.is_package(recogniser) or (Path(recogniser) / "meta.json").is_file()):
        raise Stop(
            f"pii.recogniser names {recogniser!r}, which is no installed spaCy model and no folder of one. Install it, "
            "or leave pii.recogniser out: names and places then stay in the texts.",
            USAGE,
        )
    from presidio_analyzer.nlp_engine import SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    # the language is only the name under which presidio files the model
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": recogniser}])
    engine.load()
    return engine, SpacyRecognizer()
