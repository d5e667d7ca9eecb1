"""Programs that capture and merge, killed at random moments: every call they were told of is in the table, once.

POTSTILL_KILLS=50 kills more often than the suite does.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from potstill import capture, capture_spool, database
from potstill.records import Exemplar
from projects import REPO

KILLS = int(os.environ.get("POTSTILL_KILLS", "3"))
PROGRAMS = 2

# The journal holds what a call was told: its id is there only after record has returned it. Prompts of 20 kB are
# written slowly enough for a kill to fall into a write.
PROGRAM = """
import os, sys
from pathlib import Path
from potstill import capture

path, journal, name = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT), sys.argv[3]
print("started", flush=True)
n = 0
while True:
    id = capture.record("t", f"{name} {n} " + "x" * 20_000, "r", database=path, merge_every=10)
    os.write(journal, f"{id} {name} {n}\\n".encode())
    n += 1
"""


def start(path: Path, journal: Path, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, str(path), str(journal), name]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    started = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "started\n"
    return started


def test_killed_programs_lose_no_call_and_leave_none_twice(tmp_path: Path):
    path, journal = tmp_path / "calls.duckdb", tmp_path / "journal"
    moments = random.Random(8)
    for kill in range(KILLS):
        running = [start(path, journal, f"{kill}-{number}") for number in range(PROGRAMS)]
        for program in running:
            time.sleep(moments.uniform(0.02, 0.1))
            program.kill()
            program.wait()
            program.stdout.close()
    flushed = capture.flush(path)
    told = [line.split(" ", 1) for line in journal.read_text().splitlines()]
    found = [row for row in database.read(path, ["t"]) if isinstance(row, Exemplar)]
    assert len(told) > KILLS * PROGRAMS
    assert {id for id, _ in told} <= {row.id for row in found}
    prompts = Counter(row.prompt_text.rstrip("x").strip() for row in found)
    assert set(prompts.values()) == {1}
    assert {prompt for _, prompt in told} <= set(prompts)
    # a kill between a write and its answer leaves a row nobody was told of; one within a write, a line cut off
    assert len(found) + flushed.refused.get("damaged", 0) <= len(told) + KILLS * PROGRAMS
    assert set(flushed.refused) <= {"damaged"}
    left = {p.name for p in capture_spool.folder_of(path).glob("*.jsonl")}
    assert all(name.endswith(".refused.jsonl") for name in left)
