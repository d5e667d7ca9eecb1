"""Near-duplicates: potstill (rensa's sketches, an index of its own) against datasketch, on the same texts in one run.

Run: .venv/bin/python -m benchmarks.near_duplicates [--rows 2000] [--scale 100000] [--data FOLDER]
Both see each text once, ask for the rows near it, then add it. CPU time, not wall time. The truth is the exact Jaccard
similarity of 5-character shingles. --data names a folder with shop_pages.jsonl.gz, whose pages' texts are compared too.
Prints a table and writes reports/benchmark_near_duplicates.json. Exits 100 when a limit is missed.
"""

import argparse
import gzip
import itertools
import json
import math
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from potstill import lsh, minhash, near
from potstill.files import write_json
from potstill.records import Example

THRESHOLD = 0.85
# a pair right at the threshold is found or not by chance, so recall is that of pairs a standard error above it
MARGIN = 0.03
LIMITS = {
    "recall": 0.97,
    "recall_over_datasketch": 0.0,
    "speedup_on_pages": 8.0,
    "speedup": 1.2,
    "exponent": 1.15,
    "gib_per_million_rows": 2.0,
}
Pairs = set[tuple[int, int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="texts compared with datasketch (default: %(default)s)")
    parser.add_argument("--scale", type=int, default=100_000, help="rows of the memory test (default: %(default)s)")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    corpora = {"made-up pages": made_up(arguments.rows, 400), "made-up sentences": made_up(arguments.rows, 25)}
    if arguments.data:
        corpora["shop pages"] = shop_pages(arguments.data)
    found: dict[str, Any] = {name: compare(name, texts) for name, texts in corpora.items()}
    scaled = scale(arguments.scale)
    print(
        f"{scaled['rows']} rows through Deduplicator.check: {scaled['cpu_us_per_row']:.0f} us of CPU a row, CPU ~ rows^"
        f"{scaled['exponent']:.2f}, {scaled['bytes_per_row']:.0f} bytes a row"
    )
    worst = {
        "recall": min(corpus["potstill"]["recall"] for corpus in found.values()),
        "recall_over_datasketch": min(c["potstill"]["recall"] - c["datasketch"]["recall"] for c in found.values()),
        "speedup_on_pages": min(corpus["speedup"] for name, corpus in found.items() if "pages" in name),
        "speedup": min(corpus["speedup"] for corpus in found.values()),
        "exponent": scaled["exponent"],
        "gib_per_million_rows": scaled["bytes_per_row"] * 1e6 / 2**30,
    }
    at_most = ("exponent", "gib_per_million_rows")
    missed = [k for k, limit in LIMITS.items() if (worst[k] > limit if k in at_most else worst[k] < limit)]
    path = Path("reports/benchmark_near_duplicates.json")
    write_json(path, {"limits": LIMITS, "found": worst, "missed": missed, "corpora": found, "scale": scaled})
    print(f"wrote {path};", f"missed: {', '.join(missed)}" if missed else "every limit is met")
    return 100 if missed else 0


def made_up(rows: int, words: int) -> list[str]:
    """Texts of which every other one is an edited copy of the one before, at similarities around the threshold."""
    rng = random.Random(words)
    vocabulary = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(4000)]
    texts: list[str] = []
    while len(texts) < rows:
        text = rng.choices(vocabulary, k=words)
        copy = list(text)
        for at in rng.sample(range(words), rng.randint(0, max(1, words // 8))):
            copy[at] = rng.choice(vocabulary)
        texts += [" ".join(text), " ".join(copy)]
    return texts[:rows]


def shop_pages(folder: Path) -> list[str]:
    """The visible text of each page."""
    from selectolax.lexbor import LexborHTMLParser

    texts = []
    with gzip.open(folder / "shop_pages.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            page = LexborHTMLParser(json.loads(line)["html"])
            page.strip_tags(["script", "style", "noscript", "template"])
            texts.append(page.body.text(separator=" ", strip=True) if page.body else "")
    return texts


def compare(name: str, texts: list[str]) -> dict[str, Any]:
    texts = [minhash.normalise(text) for text in texts]
    similarities = exact(texts)
    truth = {pair for pair, similarity in similarities.items() if similarity >= THRESHOLD}
    clear = {pair for pair in truth if similarities[pair] >= THRESHOLD + MARGIN}
    found: dict[str, Any] = {"texts": len(texts), "pairs": len(truth), "clear_pairs": len(clear)}
    print(
        f"{name}: {len(texts)} texts, {sum(map(len, texts)) // len(texts)} characters, {len(truth)} near pairs, "
        f"{len(clear)} of them at {THRESHOLD + MARGIN} or above"
    )
    for peer, program in (("potstill", ours), ("datasketch", theirs)):
        started = time.process_time()
        pairs = program(texts)
        seconds = time.process_time() - started
        found[peer] = {
            "cpu_us_per_text": seconds / len(texts) * 1e6,
            "recall": len(clear & pairs) / max(1, len(clear)),
            "recall_of_all": len(truth & pairs) / max(1, len(truth)),
            "precision": len(truth & pairs) / max(1, len(pairs)),
        }
        numbers = found[peer]
        print(
            f"  {peer:10} {numbers['cpu_us_per_text']:8.0f} us of CPU a text, recall {numbers['recall']:.3f} "
            f"(of all pairs {numbers['recall_of_all']:.3f}), precision {numbers['precision']:.3f}"
        )
    found["speedup"] = found["datasketch"]["cpu_us_per_text"] / found["potstill"]["cpu_us_per_text"]
    print(f"  {found['speedup']:.1f} times as fast")
    return found


def exact(texts: list[str]) -> dict[tuple[int, int], float]:
    """The similarity of every pair of texts that share a word-long piece."""
    sets = [{text[i : i + minhash.SHINGLE] for i in range(len(text) - minhash.SHINGLE + 1)} for text in texts]
    found = {}
    for a, b in itertools.combinations(range(len(sets)), 2):
        small, large = sorted((len(sets[a]), len(sets[b])))
        # the similarity is at most the quotient of the sizes
        if small >= 0.7 * large:
            shared = len(sets[a] & sets[b])
            found[a, b] = shared / max(1, small + large - shared)
    return found


def ours(texts: list[str]) -> Pairs:
    index = lsh.Index(THRESHOLD)
    pairs: Pairs = set()
    for number, text in enumerate(texts):
        signature = minhash.signature(text)
        pairs |= {(match.row, number) for match in index.near(signature) if match.jaccard >= THRESHOLD}
        index.add(signature)
    return pairs


def theirs(texts: list[str]) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=minhash.PERMUTATIONS)
    sketches: list[Any] = []
    pairs: Pairs = set()
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=minhash.PERMUTATIONS)
        sketch.update_batch([text[i : i + minhash.SHINGLE].encode() for i in range(len(text) - minhash.SHINGLE + 1)])
        pairs |= {(row, number) for row in index.query(sketch) if sketches[row].jaccard(sketch) >= THRESHOLD}
        index.insert(number, sketch)
        sketches.append(sketch)
    return pairs


def scale(rows: int) -> dict[str, Any]:
    """CPU time and memory of a stream of rows through what dataset.clean keeps in its parent process."""
    first = rows // 10
    small, _ = timed(lambda: stream(first))
    large, grown = timed(lambda: stream(rows))
    return {
        "rows": rows,
        "cpu_us_per_row": large / rows * 1e6,
        "exponent": math.log(large / small) / math.log(rows / first),
        "bytes_per_row": grown / rows,
    }


def stream(rows: int) -> near.Deduplicator:
    """Rows of one template in each hundred: near in wording, with answers of their own."""
    import numpy as np

    seen = near.Deduplicator(THRESHOLD)
    numbers = np.random.default_rng(1)
    for row in range(rows):
        if row % 100 == 0:
            template = numbers.integers(0, 2**16, minhash.PERMUTATIONS, dtype=np.uint16)
        sketch = np.where(numbers.random(minhash.PERMUTATIONS) < 0.2, row % 2**16, template).astype("<u2")
        response = f'{{"name":"product {row}","brand":"b{row // 100}","price":{row},"stock":true,"sku":"{row:08}"}}'
        seen.check(example(row, response), sketch.tobytes())
    return seen


def example(row: int, response: str) -> Example:
    return Example.model_construct(id=f"productpage-{row:012}", task="t", system="", prompt=str(row), response=response)


def timed(program: Callable[[], object]) -> tuple[float, int]:
    """CPU seconds, and by how many bytes the process grew while the result was alive."""
    before = resident()
    started = time.process_time()
    result = program()
    seconds = time.process_time() - started
    grown = resident() - before
    del result
    return seconds, grown


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    raise SystemExit(main())
