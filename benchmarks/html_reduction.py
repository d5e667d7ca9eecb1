"""Measures the HTML reduction on real pages beside its peers: tokens, the share of the gold kept, and pages a second.

Run: .venv/bin/python -m benchmarks.html_reduction --data DATA [--budget 1200] [--misses]
Reads shop_pages.jsonl.gz, recipe_pages.jsonl.gz (html and gold) and listing_pages.jsonl.gz (html) from DATA, prints a
table and writes reports/benchmark_html_reduction.json. A gold value counts when the page's visible body text has it,
with white space, case and entities made alike; a value of at most 12 characters must stand as words of its own, a
longer one is compared by its letters and digits, and one of more than 100 also counts as kept when 95% of its runs of
12 letters are. Exits 100 when a limit is missed on the shop pages. Peers that are not installed are left out.
"""

import argparse
import gzip
import html
import importlib.util
import json
import os
import re
import statistics
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from potstill.files import write_json
from potstill.html import estimate_tokens, reduce_html
from potstill.progress import track

SETS = ("shop_pages", "recipe_pages", "listing_pages")
LIMITS = {"tokens_median": 1200, "tokens_p90": 3000, "kept": 0.99, "pages_per_s": 60}
PAGE_CHARS = 440_000
WORDS_UP_TO, LONG_FROM, RUN = 12, 100, 12
TARGET = re.compile(r"\]\([^)\s]*\)")
LENGTHS = ((20, "<=20"), (100, "<=100"), (400, "<=400"), (10**9, ">400"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with the development data")
    parser.add_argument("--budget", type=int, default=1200, help="budget_tokens (default: %(default)s)")
    parser.add_argument("--misses", action="store_true", help="prints each gold value that the reduction lost")
    arguments = parser.parse_args()
    count, counter = token_counter()
    methods = {
        f"potstill {arguments.budget}": lambda page: reduce_html(page, arguments.budget),
        "potstill": reduce_html,
    }
    methods |= {"visible text": visible_text} | peers()
    results: dict[str, dict[str, Any]] = {}
    for name in SETS:
        rows = load(arguments.data / f"{name}.jsonl.gz")
        results[name] = {method: measure(rows, run, count, f"{name}: {method}") for method, run in methods.items()}
        show(name, len(rows), results[name])
        if arguments.misses:
            show_misses(rows, results[name][f"potstill {arguments.budget}"])
    for by_method in results.values():
        for found in by_method.values():
            del found["lost"]
    mine = results["shop_pages"][f"potstill {arguments.budget}"]
    missed = [
        key for key, limit in LIMITS.items() if (mine[key] > limit) == key.startswith("tokens") and mine[key] != limit
    ]
    path = Path("reports/benchmark_html_reduction.json")
    write_json(path, {"tokens_by": counter, "limits": LIMITS, "missed": missed, "results": results})
    print(f"wrote {path};", f"missed: {', '.join(missed)}" if missed else "every limit is met")
    return 100 if missed else 0


def load(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def token_counter() -> tuple[Callable[[str], int], str]:
    """Counts tokens with the cl100k vocabulary that litellm brings, or with our estimate where it cannot be loaded."""
    # importing litellm itself takes seconds
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None or importlib.util.find_spec("tiktoken") is None:
        print("no cl100k vocabulary: tokens are estimated")
        return estimate_tokens, "estimate_tokens"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(spec.origin).parent / "litellm_core_utils/tokenizers")
    import tiktoken

    encoding = tiktoken.get_encoding("cl100k_base")
    return lambda text: len(encoding.encode(text, disallowed_special=())), "cl100k"


def peers() -> dict[str, Callable[[str], str]]:
    found: dict[str, Callable[[str], str]] = {}
    try:
        import trafilatura

        found["trafilatura"] = lambda page: trafilatura.extract(page) or ""
    except ImportError as error:
        print(f"trafilatura left out: {str(error).splitlines()[0]}")
    try:
        import markdownify

        found["markdownify"] = lambda page: markdownify.markdownify(page)
    except ImportError as error:
        print(f"markdownify left out: {str(error).splitlines()[0]}")
    return found


def visible_text(page: str) -> str:
    from selectolax.lexbor import LexborHTMLParser

    from potstill.reduction.parts import HIDDEN_STYLE

    tree = LexborHTMLParser(page)
    tree.strip_tags(["script", "style", "noscript", "template"], recursive=True)
    # what a page keeps from the screen is no value that a reduction could lose
    for node in tree.css("[style]"):
        if HIDDEN_STYLE.search(node.attributes.get("style") or ""):
            node.decompose()
    return " ".join(tree.body.text(separator=" ").split()) if tree.body else ""


def measure(
    rows: list[dict[str, Any]], run: Callable[[str], str], count: Callable[[str], int], what: str
) -> dict[str, Any]:
    """Tokens, CPU time, and the gold values kept, by slot and by length; `lost` has (row, slot, value)."""
    tokens, chars, seconds = [], 0, 0.0
    kept: dict[str, Counter[str]] = {"all": Counter(), "slot": Counter(), "length": Counter()}
    seen: dict[str, Counter[str]] = {"all": Counter(), "slot": Counter(), "length": Counter()}
    lost = []
    for number, row in enumerate(track(rows, what)):
        started = time.process_time()
        text = run(row["html"])
        seconds += time.process_time() - started
        chars += len(row["html"])
        tokens.append(count(text))
        raw, reduced = Text(visible_text(row["html"])), Text(re.sub(r"[\[\]]|~~", "", TARGET.sub("]", text)))
        for slot, value in sorted(set(leaves(row.get("gold") or {}))):
            if not raw.has(value):
                continue
            found = reduced.has(value)
            for key, name in (("all", ""), ("slot", slot), ("length", length(value))):
                seen[key][name] += 1
                kept[key][name] += found
            if not found:
                lost.append((number, slot, value))
    shares = {key: {n: kept[key][n] / total for n, total in seen[key].items()} for key in seen}
    return {
        "tokens_median": statistics.median(tokens),
        "tokens_p90": sorted(tokens)[int(0.9 * len(tokens))],
        "kept": shares["all"].get("", 1.0),
        "values": seen["all"][""],
        "pages_per_s": chars / PAGE_CHARS / seconds,
        "kept_by_slot": shares["slot"],
        "kept_by_length": {name: shares["length"][name] for _, name in LENGTHS if name in shares["length"]},
        "lost": lost,
    }


def length(value: str) -> str:
    return next(name for limit, name in LENGTHS if len(value) <= limit)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The strings and numbers of a gold answer that have a letter or digit, with their dotted paths."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from leaves(child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child, path)
    elif value is not None and not isinstance(value, bool) and any(map(str.isalnum, str(value))):
        yield path, str(value)


class Text:
    """A text made ready for looking values up in it."""

    def __init__(self, text: str):
        self.plain = alike(text)
        self.letters = letters(self.plain)
        self.runs = set(runs(self.letters))

    def has(self, value: str) -> bool:
        wanted = alike(value)
        if len(wanted) <= WORDS_UP_TO:
            return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", self.plain) is not None
        if letters(wanted) in self.letters:
            return True
        wanted_runs = runs(letters(wanted))
        return len(wanted) > LONG_FROM and sum(run in self.runs for run in wanted_runs) >= 0.95 * len(wanted_runs)


def runs(text: str) -> list[str]:
    return [text[start : start + RUN] for start in range(len(text) - RUN + 1)]


def alike(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", html.unescape(text)).lower().split())


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def show(name: str, rows: int, results: dict[str, dict[str, Any]]) -> None:
    values = next(iter(results.values()))["values"]
    print(f"\n{name}: {rows} pages, {values} visible gold values (pages/s: one core, per {PAGE_CHARS // 1000} KB)")
    print(f"{'':16}{'median':>8}{'p90':>8}{'kept':>8}{'pages/s':>9}  kept by length of the value")
    for method, found in results.items():
        lengths = "  ".join(f"{name} {share:.1%}" for name, share in found["kept_by_length"].items())
        print(
            f"{method:16}{found['tokens_median']:8.0f}{found['tokens_p90']:8.0f}{found['kept']:8.1%}"
            f"{found['pages_per_s']:9.1f}  {lengths}"
        )


def show_misses(rows: list[dict[str, Any]], found: dict[str, Any]) -> None:
    for number, slot, value in found["lost"]:
        page = rows[number].get("url") or rows[number].get("domain") or number
        print(f"lost: {str(page)[:60]} {slot}: {value[:80]!r} ({len(value)} characters)")


if __name__ == "__main__":
    sys.exit(main())
