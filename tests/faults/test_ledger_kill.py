"""SIGKILL at random instants: every item is done, and its result recorded exactly once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from potstill.ledger import Ledger

ROOT = Path(__file__).parents[2]
ITEMS = 600
KILLS = 20

# Every piece of work leaves a mark in an append-only journal before its result is recorded: the journal says how often
# an item was worked on, the ledger how often it counted.
WORKER = """
import os, sys, time
from potstill.ledger import Ledger

path, journal, items = sys.argv[1], sys.argv[2], int(sys.argv[3])
journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
with Ledger(path, "kill test", alone=True) as ledger:
    print("started", flush=True)
    ledger.add((f"k{i}", {"i": i}) for i in range(items))
    while claimed := ledger.claim(4, lease_s=3600):
        for item in claimed:
            time.sleep(0.0005)
            os.write(journal, f"{item.key}\\n".encode())
            assert ledger.finish(item.key, {"square": item.payload["i"] ** 2})
"""


def start(path, journal):
    command = [sys.executable, "-c", WORKER, str(path), str(journal), str(ITEMS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    worker = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline() == "started\n"
    return worker


def test_twenty_kills_lose_nothing_and_count_nothing_twice(tmp_path):
    path, journal = tmp_path / "l.sqlite", tmp_path / "journal"
    moments = random.Random(20)
    killed = 0
    for _ in range(KILLS):
        worker = start(path, journal)
        time.sleep(moments.uniform(0, 0.03))
        worker.send_signal(signal.SIGKILL)
        killed += worker.wait() == -signal.SIGKILL
        worker.stdout.close()
    last = start(path, journal)
    assert last.wait(120) == 0
    last.stdout.close()

    with Ledger(path, "kill test") as ledger:
        assert ledger.counts() == {"todo": 0, "done": ITEMS, "failed": 0}
        assert list(ledger.results()) == [(f"k{i}", {"square": i * i}) for i in range(ITEMS)]
    worked = Counter(journal.read_text().split())
    assert killed >= KILLS // 2, "the kills came too late to test anything"
    assert set(worked) == {f"k{i}" for i in range(ITEMS)}
    # an item is worked on again only when a kill fell between its work and its result
    assert sum(worked.values()) <= ITEMS + killed
