"""Times potstill.capture in several processes at once, beside what a program would write itself: one INSERT a call.

Run: .venv/bin/python -m benchmarks.capture [--processes 8] [--calls 500] [--peer-calls 20] [--pause-ms 10]
Every process captures calls of about 1 kB with a pause between them; the peer opens the database for each call, and
tries again while another process has it. Prints the milliseconds a call keeps its program waiting, and whether every
call is in the table once; writes reports/benchmark_capture.json. Exits 100 when a call is lost, doubled or refused, or
when capturing is not faster than the peer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from potstill import capture, database
from potstill.files import canonical_json, write_json
from potstill.records import Exemplar

REPO = Path(__file__).resolve().parent.parent
INSERT = "INSERT INTO examples (id, task, prompt_text, response_strong, metadata) VALUES (?, ?, ?, ?, ?)"
TEXT = "The lid of my kettle does not close. " * 27


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--calls", type=int, default=500, help="calls of each process (default: %(default)s)")
    parser.add_argument("--peer-calls", type=int, default=20, help="of each process of the peer (default: %(default)s)")
    parser.add_argument("--pause-ms", type=float, default=10.0, help="between two calls (default: %(default)s)")
    parser.add_argument("--writer", help=argparse.SUPPRESS)
    parser.add_argument("--database", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.writer:
        print(json.dumps(WRITERS[arguments.writer](arguments.database, arguments.calls, arguments.pause_ms / 1000)))
        return 0
    found = {
        "capture": measure("capture", arguments, arguments.calls),
        "insert": measure("insert", arguments, arguments.peer_calls),
    }
    for name, row in found.items():
        spread = f"median {row['ms_median']:.2f} ms, p99 {row['ms_p99']:.1f} ms, most {row['ms_max']:.0f} ms a call"
        print(f"{name:8} {row['calls']} calls in {row['wall_s']:.1f} s: {spread}; lost {row['lost']}, ", end="")
        print(f"doubled {row['doubled']}, moved into the table in {row['flush_s']:.2f} s")
    ratio = found["insert"]["ms_p99"] / found["capture"]["ms_p99"]
    print(f"p99 of the peer over ours: {ratio:.0f}")
    write_json(REPO / "reports/benchmark_capture.json", {**found, "p99_ratio": ratio})
    ours = found["capture"]
    return 100 if ours["lost"] or ours["doubled"] or ratio <= 1 else 0


def measure(name: str, arguments: argparse.Namespace, calls: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calls.duckdb"
        prepare(path)
        command = [sys.executable, "-m", "benchmarks.capture", "--writer", name, "--database", str(path)]
        command += ["--calls", str(calls), "--pause-ms", str(arguments.pause_ms)]
        started = time.perf_counter()
        running = [
            subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) for _ in range(arguments.processes)
        ]
        outputs = [process.communicate()[0] for process in running]
        wall_s = time.perf_counter() - started
        if any(process.returncode for process in running):
            raise SystemExit(f"a program that writes by {name} failed")
        started = time.perf_counter()
        capture.flush(path)
        flush_s = time.perf_counter() - started
        rows = Counter(row.prompt_text for row in database.read(path, ["t"]) if isinstance(row, Exemplar))
    waits = sorted(wait for output in outputs for wait in json.loads(output))
    return {
        "calls": len(waits),
        "wall_s": wall_s,
        "ms_median": statistics.median(waits),
        "ms_p99": waits[int(len(waits) * 0.99)],
        "ms_max": waits[-1],
        "lost": len(waits) - len(rows),
        "doubled": rows.total() - len(rows),
        "flush_s": flush_s,
    }


def prepare(path: Path) -> None:
    """The table, with a first row, so that both writers find it."""
    capture.record("first", "p", "r", database=path)
    capture.flush(path)


def captured(path: Path, calls: int, pause_s: float) -> list[float]:
    """Milliseconds of each call. What a program waits for at its end, the last merge, is not among them."""
    return timed(lambda prompt: capture.record("t", prompt, '{"kind": "lid"}', database=path), calls, pause_s)


def inserted(path: Path, calls: int, pause_s: float) -> list[float]:
    """The same rows by a connection of its own for each call: DuckDB lets one process write at a time."""

    def insert(prompt: str) -> None:
        while True:
            try:
                with duckdb.connect(str(path)) as connection:
                    values = [prompt[:24], "t", prompt, '{"kind": "lid"}', canonical_json({})]
                    connection.execute(INSERT, values)
                return
            except duckdb.IOException:
                time.sleep(0.005)

    return timed(insert, calls, pause_s)


def timed(write: Callable[[str], object], calls: int, pause_s: float) -> list[float]:
    waits = []
    for number in range(calls):
        began = time.perf_counter()
        write(f"{os.getpid():>10}/{number:>10} {TEXT}")
        waits.append((time.perf_counter() - began) * 1000)
        time.sleep(pause_s)
    return waits


WRITERS = {"capture": captured, "insert": inserted}


if __name__ == "__main__":
    sys.exit(main())
