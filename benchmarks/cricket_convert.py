"""Times the conversion of Cricsheet matches to exemplars, beside what merely parsing the same files costs.

Run: .venv/bin/python -m benchmarks.cricket_convert [--matches 400] [--data FOLDER]
The matches come from the seeded simulator, or from FOLDER with match files of one's own. Prints deliveries a minute of
CPU time, read and as exemplars with true lines, from JSON and from YAML, and how long reading takes beside json.loads
and yaml.safe_load; writes reports/benchmark_cricket_convert.json. Exits 100 when converting JSON misses the project's
own limit.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from potstill.files import canonical_json, write_json, write_text
from potstill.workloads import cricket, cricket_match, cricket_simulator
from potstill.workloads.cricket_yaml import as_yaml

REPO = Path(__file__).resolve().parent.parent
SAMPLES = REPO / "data/samples/cricket"
LIMIT_PER_MINUTE = 200_000
# YAML takes the peer seconds a match
YAML_SHARE = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matches", type=int, default=400)
    parser.add_argument("--data", type=Path, help="a folder of match files, *.json and *.yaml")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = arguments.data or simulate(Path(folder), arguments.matches)
        found = {kind: measure(sorted(given.glob(f"*.{kind}"))) for kind in ("json", "yaml")}
    for kind, row in found.items():
        rates = f"reads {row['read_per_minute']:,}, converts {row['converted_per_minute']:,} a minute of CPU"
        print(f"{kind}: {row['deliveries']:,} deliveries; {rates} ({row['exemplars']:,} exemplars); ", end="")
        print(f"reading takes {row['reading_ratio']:.2f} x the bare parser's time")
    write_json(REPO / "reports/benchmark_cricket_convert.json", {"limit": LIMIT_PER_MINUTE, **found})
    return 0 if found["json"]["converted_per_minute"] >= LIMIT_PER_MINUTE else 100


def simulate(folder: Path, count: int) -> Path:
    taken: set[str] = set()
    for number in range(count):
        plan = cricket_simulator.PLANS[number % len(cricket_simulator.PLANS)]
        match = cricket_simulator.play(random.Random(f"benchmark {number}"), plan, taken)
        write_text(folder / f"{number:06}.json", canonical_json(match))
        if number % YAML_SHARE == 0:
            write_text(folder / f"{number:06}.yaml", as_yaml(match))
    return folder


def measure(paths: list[Path]) -> dict[str, Any]:
    deliveries, reading_s = timed(lambda: (ball for path in paths for ball in cricket_match.deliveries(path)))
    _, bare_s = timed(lambda: (parse(path) for path in paths))
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            os.symlink(path.resolve(), Path(folder) / path.name)
        os.environ["CRICKET_DATA_DIR"] = folder
        exemplars, converting_s = timed(lambda: cricket.convert(SAMPLES)) if paths else (0, 0.0)
        del os.environ["CRICKET_DATA_DIR"]
    return {
        "matches": len(paths),
        "deliveries": deliveries,
        "exemplars": exemplars,
        "read_per_minute": round(deliveries / max(reading_s, 1e-9) * 60),
        "converted_per_minute": round(deliveries / max(converting_s, 1e-9) * 60),
        "reading_ratio": reading_s / max(bare_s, 1e-9),
    }


def parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def timed(make: Callable[[], Iterable[Any]]) -> tuple[int, float]:
    """(how many items, CPU seconds)"""
    started = time.process_time()
    count = sum(1 for _ in make())
    return count, time.process_time() - started


if __name__ == "__main__":
    raise SystemExit(main())
