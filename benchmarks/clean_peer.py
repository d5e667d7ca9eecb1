"""The pipeline that benchmarks/dataset_clean.py compares with: BeautifulSoup, presidio and datasketch.

Run in a project's folder: python -m benchmarks.clean_peer
It does what dataset.clean does, in the plain way these libraries are used: reads the table, reduces each page to light
Markdown, validates the answer, looks its values up, replaces personal data of the same kinds in prompt and answer by
keyed pseudonyms, drops near-duplicates by MinHash over the same 5-character shingles, and writes JSON lines; on every
core. Left out, in its favour: token budgets, limits for hostile pages, pseudonyms that keep a value's form, number
forms, and a report. Faster choices are taken where the libraries offer them: lxml, xxhash, shared permutations, one
registry of the kinds that are wanted.
"""

import functools
import hmac
import json
import multiprocessing
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from potstill import workload
from potstill.files import canonical_json, sha256_text

PERMUTATIONS, THRESHOLD, SHINGLE = 128, 0.85, 5
KEY = b"benchmark only, of no other use."
KINDS = ["EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN", "SECRET", "URL_USERINFO"]
DROPPED = frozenset(["script", "style", "noscript", "template", "iframe", "svg", "nav", "footer"])
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
CONSENT = re.compile(r"cookie|consent|gdpr|onetrust", re.I)
# what stays in the text with a mark
MARKED = ["h1", "h2", "h3", "h4", "h5", "h6", "li", "a", "img"]
# a mark that stands on a line of its own
MARK = re.compile(r"^(#+|-)\n", re.M)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SECRETS = {
    "issued key": r"\b(?:sk-|(?:[spr]k|whsec)_(?:live|test)_|gh[pousr]_|github_pat_|glpat-|AKIA|ASIA|AIza|ya29\."
    r"|xox[a-z]-|hf_|npm_|pypi-|SG\.|shp(?:at|ca|pa|ss)_|dop_v1_|eyJ)[A-Za-z0-9_.-]{16,400}",
    "named": r"(?:bearer|basic|api[_-]?key|secret|token|password|passwd|pwd|access[_-]?key)[\"']?[\s:=]{1,4}[\"']?"
    r"(?=[A-Za-z+/_.~-]*\d)[A-Za-z0-9+/_.~-]{16,500}",
    "private key": r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[A-Za-z0-9+/=\s]{16,20000}",
}


def main() -> int:
    folder = Path("data/processed/peer")
    folder.mkdir(parents=True, exist_ok=True)
    with (
        multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool,
        open(folder / "clean.jsonl", "w", encoding="utf-8") as kept,
        open(folder / "rejected.jsonl", "w", encoding="utf-8") as rejected,
    ):
        for row, reason in deduplicated(pool.imap(clean, read(), chunksize=64)):
            (rejected if reason else kept).write(json.dumps(row, ensure_ascii=False) + "\n")
        pool.close()
        # its CPU time counts once it is waited for
        pool.join()
    return 0


def read() -> Iterator[tuple[str, ...]]:
    import duckdb

    connection = duckdb.connect("data/raw/dataset.duckdb", read_only=True)
    cursor = connection.execute("SELECT id, task, prompt_text, response_strong, metadata FROM examples ORDER BY id")
    while rows := cursor.fetchmany(1024):
        yield from rows


def deduplicated(results: Iterator[tuple[dict[str, Any], Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each row with the reason why it is dropped, or "". A near-duplicate has an equal answer."""
    from datasketch import MinHashLSH

    seen: dict[str, str] = {}
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    answers: dict[str, str] = {}
    for row, sketch in results:
        if sketch is None:
            yield row, row["reason"]
            continue
        key = sha256_text(row["prompt"])
        near = [other for other in index.query(sketch) if answers[other] == row["response"]]
        if key in seen or near:
            yield {"id": row["id"], "reason": "near_duplicate" if near else "duplicate"}, "duplicate"
            continue
        seen[key] = row["id"]
        answers[row["id"]] = row["response"]
        index.insert(row["id"], sketch)
        yield row, ""


def clean(row: tuple[str, ...]) -> tuple[dict[str, Any], Any]:
    """The example and its MinHash, or the reject and None."""
    from pydantic import ValidationError

    id, task, page, response, metadata = row
    prompt = reduce(page)
    try:
        answer = job().schemas[task].model_validate_json(response)
    except ValidationError as error:
        return {"id": id, "reason": "schema_violation", "detail": str(error)}, None
    values = answer.model_dump()
    prompt, response = pseudonymise([prompt, canonical_json(values)])
    example = {
        "id": id,
        "task": task,
        "system": job().system_prompt,
        "prompt": prompt,
        "response": response,
        "metadata": json.loads(metadata) | {"grounded": ground(values, prompt)},
        "source_sha256": sha256_text(canonical_json([page, response])),
    }
    return example, sketch(prompt)


@functools.cache
def job() -> workload.Workload:
    return workload.load("bench")


def reduce(page: str) -> str:
    """Headings, list items, links and images of what is visible, a line for each text."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, "lxml")
    for tag in soup.find_all(unwanted):
        tag.decompose()
    for tag in soup.find_all(MARKED):
        if tag.name == "a" and tag.get("href"):
            tag.append(f"({tag['href']})")
        elif tag.name == "img":
            tag.replace_with(tag.get("alt", ""))
        elif tag.name == "li":
            tag.insert(0, "-")
        elif tag.name[0] == "h":
            tag.insert(0, "#" * int(tag.name[1]))
    return MARK.sub(r"\1 ", soup.get_text("\n", strip=True))


def unwanted(tag: Any) -> bool:
    if tag.name in DROPPED:
        return True
    attributes = tag.attrs
    if not attributes:
        return False
    named = f"{' '.join(attributes.get('class', ()))} {attributes.get('id', '')}"
    return "hidden" in attributes or bool(HIDDEN.search(attributes.get("style", "")) or CONSENT.search(named))


def ground(values: dict[str, Any], prompt: str) -> dict[str, str]:
    numbers = {float(found.replace(",", "")) for found in NUMBER.findall(prompt) if found.count(".") < 2}
    folded = prompt.casefold()

    def how(value: Any) -> str:
        if isinstance(value, str):
            return "exact" if value in prompt else "normalised" if value.casefold() in folded else "unfounded"
        return "typed" if value in numbers else "unfounded"

    return {slot: how(value) for slot, value in values.items()}


@functools.cache
def analyzer() -> Any:
    import tldextract
    from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
    from presidio_analyzer import predefined_recognizers as known
    from presidio_analyzer.nlp_engine import NoOpNlpEngine

    # the recogniser of e-mail addresses would ask the network for the list of public suffixes
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    recognizers: list[Any] = [known.EmailRecognizer(), known.PhoneRecognizer(), known.CreditCardRecognizer()]
    recognizers += [known.IbanRecognizer(), known.IpRecognizer(), known.UsSsnRecognizer()]
    recognizers += [
        PatternRecognizer("SECRET", patterns=[Pattern(name, regex, 0.9) for name, regex in SECRETS.items()]),
        PatternRecognizer("URL_USERINFO", patterns=[Pattern("userinfo", r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)", 0.9)]),
    ]
    return AnalyzerEngine(
        registry=RecognizerRegistry(recognizers=recognizers),
        nlp_engine=NoOpNlpEngine(models=[{"lang_code": "en", "model_name": "none"}]),
    )


def pseudonymise(texts: list[str]) -> list[str]:
    """The same value gets the same keyed pseudonym in all texts, also where a text shows it without its context."""
    made: dict[str, str] = {}
    for text in texts:
        for span in analyzer().analyze(text, "en", entities=KINDS):
            value = text[span.start : span.end]
            digest = hmac.digest(KEY, value.encode(), "sha256").hex()[:12]
            made[value] = (
                f"{digest}@example.com" if span.entity_type == "EMAIL_ADDRESS" else f"{span.entity_type}_{digest}"
            )
    for value in sorted(made, key=len, reverse=True):
        texts = [text.replace(value, made[value]) for text in texts]
    return texts


@functools.cache
def empty() -> Any:
    import xxhash
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)


def sketch(prompt: str) -> Any:
    from datasketch import LeanMinHash

    text = " ".join(prompt.lower().split())
    found = empty().copy()
    found.update_batch({text[n : n + SHINGLE].encode() for n in range(len(text) - SHINGLE + 1)})
    return LeanMinHash(found)


if __name__ == "__main__":
    raise SystemExit(main())
