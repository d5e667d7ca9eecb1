"""Times the whole `dataset.clean` beside a BeautifulSoup + presidio + datasketch pipeline that does the same work.

Run: .venv/bin/python -m benchmarks.dataset_clean [--rows 100000] [--peer-rows 200] [--ray]
Pages of about 10 KB come from a seeded generator. Prints rows/s, the peak memory of all processes, the exponent of time
over rows, and whether a Ray cluster of two workers writes the same bytes; writes reports/benchmark_dataset_clean.json.
Exits 100 when a limit of the project's own is missed. The peer needs beautifulsoup4, and is left out without it.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.demo import watch
from potstill import database
from potstill.files import sha256_file, write_json
from potstill.records import Exemplar

REPO = Path(__file__).resolve().parent.parent
SIZES = (0.1, 0.3, 1.0)  # of --rows: the exponent is a slope over these
LIMITS = {"peer_ratio": 10.0, "peak_gib": 2.0, "exponent": 1.1}
MODULE = """
from pydantic import BaseModel, ConfigDict


class Product(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    price: float
    sku: str


SCHEMAS = {"product": Product}
"""
SETTINGS = """
schema_version: "1"
system_prompt: system.txt
demo_message: ""
tasks:
  product:
    max_new_tokens: 64
    calls_per_day: 1
    slots:
      name: {level: exact}
      price: {level: numeric_tol, tolerance: 0.01}
      sku: {level: exact}
split: {group: domain, stratify: [task], val: 0.1, test: 0.1, seed: 1}
html: {}
pii: {}
grounding: {}
near_duplicates: {}
"""
WORDS = sorted(set(re.findall("[a-z]{3,}", (REPO / "models/nano/words.yaml").read_text(encoding="utf-8"))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--peer-rows", type=int, default=200)
    parser.add_argument("--ray", action="store_true", help="also on a Ray cluster of two workers, a tenth of the rows")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"rows": arguments.rows}
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure(make_project(Path(folder) / str(n), n)) for n in (int(s * arguments.rows) for s in SIZES)]
        for run in runs:
            print(
                f"{run['rows']:7} rows {run['wall_s']:7.1f} s {run['rows_per_s']:6.0f} rows/s {run['peak_gib']:.2f} GiB"
            )
        small = Path(folder) / str(runs[0]["rows"])
        if arguments.ray:
            found["ray_same_bytes"] = on_ray(small) == runs[0]["sums"]
            print(f"Ray with 2 workers writes the same bytes: {found['ray_same_bytes']}")
    found["exponent"] = exponent(runs)
    found["peak_gib"] = max(run["peak_gib"] for run in runs)
    found["rows_per_s"] = runs[-1]["rows_per_s"]
    print(f"time grows with rows ^ {found['exponent']:.3f}")
    peer_s = peer(arguments.peer_rows)
    if peer_s is not None:
        # as if the peer's rows were spread over the cores at no cost
        peer_rate = len(os.sched_getaffinity(0)) / peer_s
        found |= {"peer_rows_per_s": peer_rate, "peer_ratio": found["rows_per_s"] / peer_rate}
        print(
            f"peer: {peer_rate:.1f} rows/s on as many cores; dataset.clean is {found['peer_ratio']:.1f} times as fast"
        )
    missed = [key for key, limit in LIMITS.items() if key in found and (found[key] < limit) == (key == "peer_ratio")]
    missed += ["ray_same_bytes"] if found.get("ray_same_bytes") is False else []
    write_json(Path("reports/benchmark_dataset_clean.json"), {"limits": LIMITS, "found": found, "missed": missed})
    print("wrote reports/benchmark_dataset_clean.json;", f"missed: {', '.join(missed)}" if missed else "limits are met")
    return 100 if missed else 0


def exemplars(count: int) -> Iterator[Exemplar]:
    for number in range(count):
        rng = random.Random(number)
        answer = {
            "name": " ".join(rng.choices(WORDS, k=3)).title(),
            "price": round(rng.uniform(1, 900), 2),
            "sku": f"{rng.choice('ABCDEF')}{rng.choice('KLMN')}-{rng.randrange(10**6):06}",
        }
        domain = f"shop{number % 500}.example"
        yield Exemplar(
            id=f"{number:08}",
            task="product",
            prompt_text=page(answer, domain, rng),
            response_strong=json.dumps(answer),
            metadata={"domain": domain},
        )


def page(answer: dict[str, Any], domain: str, rng: random.Random) -> str:
    """About 10 KB: scripts, menus, a product, other products with other prices, reviews with addresses, a footer."""

    def words(count: int) -> str:
        return " ".join(rng.choices(WORDS, k=count))

    menu = "".join(f'<li class="menu-item m{i}"><a href="/c/{words(1)}">{words(1)}</a></li>' for i in range(25))
    others = "".join(
        f'<div class="card"><a href="/p/{i}"><img src="/i/{i}.jpg" alt="{words(2)}"></a><span class="price">'
        f"${rng.uniform(1, 900):.2f}</span></div>"
        for i in range(8)
    )
    reviews = "".join(
        f'<div class="review"><b>{words(1)}</b><p>{words(60)} {words(1)}{rng.randrange(99)}@mail.{domain} or call '
        f"+1 212 555 {rng.randrange(10**4):04}</p></div>"
        for _ in range(6)
    )
    script = "window.track=window.track||[];" + "".join(f"track.push(['{words(2)}',{i}]);" for i in range(90))
    return (
        f"<!doctype html><html><head><title>{answer['name']} | {domain}</title><script>{script}</script>"
        f"<style>.card{{color:#{rng.randrange(16**6):06x}}}</style></head><body><header><nav>{menu}</nav></header>"
        f"<main><h1>{answer['name']}</h1><p class='price'>${answer['price']:.2f}</p><p>SKU: {answer['sku']}</p>"
        f"<div class='description'><p>{words(80)}</p></div></main><section class='related'><h2>More</h2>"
        f"{others}</section><section class='reviews'>{reviews}</section><footer>{words(60)}</footer></body></html>"
    )


def make_project(folder: Path, count: int) -> Path:
    for name, text in {
        "potstill/workloads/bench.py": MODULE,
        "configs/workloads/bench.yaml": SETTINGS,
        "configs/project.yaml": (REPO / "configs/project.yaml").read_text(encoding="utf-8"),
        "data/samples/bench/system.txt": "Extract the product as JSON.",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    database.write(folder / "data/raw/dataset.duckdb", exemplars(count))
    return folder


def clean(folder: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "scripts.dataset.clean", "-w", "bench"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def measure(folder: Path) -> dict[str, Any]:
    peak = [0]
    started = time.monotonic()
    process = clean(folder)
    watcher = threading.Thread(target=watch, args=(process, peak))
    watcher.start()
    if process.wait():
        sys.exit("dataset.clean failed")
    wall_s = time.monotonic() - started
    watcher.join()
    rows = int(folder.name)
    return {
        "rows": rows,
        "wall_s": wall_s,
        "rows_per_s": rows / wall_s,
        "peak_gib": peak[0] / 2**30,
        "sums": sums(folder),
    }


def sums(folder: Path) -> list[str]:
    return [sha256_file(folder / "data/processed/bench" / name) for name in ("clean.jsonl", "rejected.jsonl")]


def on_ray(folder: Path) -> list[str]:
    project = folder / "configs/project.yaml"
    text = project.read_text(encoding="utf-8").replace("engine: local", "engine: ray")
    project.write_text(text.replace("workers: 0", "workers: 2"), encoding="utf-8")
    if clean(folder).wait():
        sys.exit("dataset.clean failed on Ray")
    return sums(folder)


def exponent(runs: list[dict[str, Any]]) -> float:
    """The slope of log time over log rows, by least squares."""
    points = [(math.log(run["rows"]), math.log(run["wall_s"])) for run in runs]
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def peer(count: int) -> float | None:
    """CPU seconds a row takes the peer; None without BeautifulSoup."""
    try:
        from bs4 import BeautifulSoup
    except ImportError:
        print("peer: left out, beautifulsoup4 is not installed")
        return None
    import tldextract
    from datasketch import MinHash, MinHashLSH
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from pydantic import TypeAdapter

    # the recogniser of e-mail addresses would ask the network for the list of public suffixes
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    registry = RecognizerRegistry(supported_languages=["en"])
    engine = NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}])
    registry.load_predefined_recognizers(languages=["en"], nlp_engine=engine)
    registry.remove_recognizer("SpacyRecognizer")
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])
    index, schema = MinHashLSH(threshold=0.85, num_perm=128), TypeAdapter(dict[str, str | float])
    rows = list(exemplars(count))
    started = time.process_time()
    for row in rows:
        soup = BeautifulSoup(row.prompt_text, "html.parser")
        for tag in soup(["script", "style", "nav", "footer"]):
            tag.decompose()
        text = soup.get_text(" ", strip=True)
        for span in sorted(analyzer.analyze(text, "en"), key=lambda span: -span.start):
            text = f"{text[: span.start]}<{span.entity_type}>{text[span.end :]}"
        answer = schema.validate_json(row.response_strong)
        sketch = MinHash(num_perm=128)
        tokens = text.split()
        sketch.update_batch([" ".join(tokens[i : i + 3]).encode() for i in range(len(tokens) - 2)])
        if not index.query(sketch):
            index.insert(row.id, sketch)
        json.dumps({"id": row.id, "prompt": text, "response": answer})
    return (time.process_time() - started) / count


if __name__ == "__main__":
    raise SystemExit(main())
