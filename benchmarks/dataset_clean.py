"""Times the whole `dataset.clean` beside a BeautifulSoup + presidio + datasketch pipeline that does the same work.

Run: .venv/bin/python -m benchmarks.dataset_clean [--rows 100000] [--peer-rows 1000] [--ray]
Pages of about 10 KB come from a seeded generator. Prints rows/s, the peak memory of all processes, the exponent of time
over rows, and whether a Ray cluster of two workers writes the same bytes; writes reports/benchmark_dataset_clean.json.
Exits 100 when a limit of the project's own is missed. The peer (benchmarks/clean_peer.py) runs in turns with
dataset.clean on the same rows and cores; it needs beautifulsoup4 and lxml, and is left out without them.
"""

import argparse
import importlib.util
import json
import math
import os
import random
import re
import resource
import statistics
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
ROUNDS, FEW_ROWS = 3, 100  # with the peer
CLEAN = ["scripts.dataset.clean", "-w", "bench"]
PEER = ["benchmarks.clean_peer"]
LIMITS = {"peer_wall_ratio": 10.0, "peer_cpu_ratio": 10.0, "peak_gib": 2.0, "exponent": 1.1}
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
    parser.add_argument("--peer-rows", type=int, default=1000, help="more than 100")
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
        found |= compare([make_project(Path(folder) / f"peer/{n}", n) for n in (FEW_ROWS, arguments.peer_rows)])
    found["exponent"] = exponent(runs)
    found["peak_gib"] = max(run["peak_gib"] for run in runs)
    found["rows_per_s"] = runs[-1]["rows_per_s"]
    print(f"time grows with rows ^ {found['exponent']:.3f}")
    missed = [key for key, limit in LIMITS.items() if key in found and (found[key] < limit) == key.startswith("peer")]
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


def start(folder: Path, module: list[str]) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", *module]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)


def measure(folder: Path) -> dict[str, Any]:
    peak = [0]
    started = time.monotonic()
    process = start(folder, CLEAN)
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
    if start(folder, CLEAN).wait():
        sys.exit("dataset.clean failed on Ray")
    return sums(folder)


def exponent(runs: list[dict[str, Any]]) -> float:
    """The slope of log time over log rows, by least squares."""
    points = [(math.log(run["rows"]), math.log(run["wall_s"])) for run in runs]
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def compare(projects: list[Path]) -> dict[str, float]:
    """Wall and CPU milliseconds a row takes each pipeline beyond its start, and the ratios; {} without the peer.

    Each round runs both on few and on many rows of the same database, in turns; the median of the rounds counts.
    """
    if importlib.util.find_spec("bs4") is None or importlib.util.find_spec("lxml") is None:
        print("peer: left out, beautifulsoup4 or lxml is not installed")
        return {}
    rounds = []
    for _ in range(ROUNDS):
        few, many = ([timed(folder, module) for module in (CLEAN, PEER)] for folder in projects)
        rows = int(projects[1].name) - int(projects[0].name)
        rounds.append(
            [[1000 * (b - a) / rows for a, b in zip(*one, strict=True)] for one in zip(few, many, strict=True)]
        )
        (wall_ms, cpu_ms), (peer_wall_ms, peer_cpu_ms) = rounds[-1]
        print(f"ms a row: {wall_ms:.2f} wall, {cpu_ms:.2f} CPU; peer {peer_wall_ms:.2f} wall, {peer_cpu_ms:.2f} CPU")
    found = {}
    for place, clock in enumerate(("wall", "cpu")):
        own, peer = ([one[pipeline][place] for one in rounds] for pipeline in (0, 1))
        found |= {f"{clock}_ms": statistics.median(own), f"peer_{clock}_ms": statistics.median(peer)}
        found[f"peer_{clock}_ratio"] = statistics.median(b / a for a, b in zip(own, peer, strict=True))
    print(
        f"as fast as the peer: {found['peer_wall_ratio']:.1f} times by wall time, {found['peer_cpu_ratio']:.1f} by CPU"
    )
    return found


def timed(folder: Path, module: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a run and all the processes it waited for."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    if start(folder, module).wait():
        sys.exit(f"{' '.join(module)} failed")
    wall_s, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
