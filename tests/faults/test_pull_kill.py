"""SIGKILL of dataset.pull at moments all over its course: the database is the former or the new one, and whole."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from potstill import database
from potstill.files import sha256_file
from potstill.records import Exemplar
from projects import REPO

KILLS = 8
TARGET = Path("data/raw/dataset.duckdb")
PREVIOUS = Path("data/raw/dataset.previous.duckdb")


def start(source: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "scripts.dataset.pull", "--source", str(source)]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def test_a_kill_at_any_moment_leaves_a_whole_database(project_folder: Path) -> None:
    chance = random.Random(12)
    sources = []
    for name in ("first", "second"):
        sources.append(project_folder / f"{name}.duckdb")
        rows = (
            Exemplar(id=str(number), task=name, prompt_text=chance.randbytes(2000).hex(), response_strong="{}")
            for number in range(2000)
        )
        database.write(sources[-1], rows)
    known = {sha256_file(source) for source in sources}
    began = time.monotonic()
    assert start(sources[0]).wait(300) == 0
    duration = time.monotonic() - began

    now, killed = sha256_file(TARGET), 0
    for number in range(KILLS):
        # towards the source that is not here, so that every pull has something to replace
        wanted = sources[0] if now == sha256_file(sources[1]) else sources[1]
        puller = start(wanted)
        # spread over the course, denser towards its end, where the files change places
        time.sleep(duration * (1.1 if number == 0 else chance.uniform(0.2, 1.3)))
        puller.send_signal(signal.SIGKILL)
        killed += puller.wait() == -signal.SIGKILL
        assert sha256_file(TARGET) in known
        now = sha256_file(TARGET)
        if PREVIOUS.exists():
            assert sha256_file(PREVIOUS) in known
    assert killed >= KILLS // 3, "the kills came too late to test anything"
    wanted = sources[0] if now == sha256_file(sources[1]) else sources[1]
    assert start(wanted).wait(300) == 0
    assert sha256_file(TARGET) == sha256_file(wanted)
    assert sha256_file(PREVIOUS) == now
    assert database.task_counts(TARGET) == {wanted.stem: 2000}
    assert not (TARGET.parent / ".incoming").exists()
