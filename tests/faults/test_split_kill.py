"""SIGKILL at random instants of dataset.split: running it again gives the files of a run that nobody killed."""

import os
import subprocess
import sys
from pathlib import Path

from potstill.files import canonical_json
from potstill.records import Example, write_jsonl
from projects import REPO, make_project

KILLS = 10
ROWS = 400
WORDS = [a + b for a in ("ker", "mon", "tal", "bri") for b in ("dim", "pot", "lune", "gar")]

# Children are forked once everything is imported, so that a kill falls into the split itself. The first child shows how
# long a split takes; the others are killed at a moment within that time, the last kill in the last third of it.
DRIVER = """
import os, random, signal, sys, time
import sklearn.model_selection
from scripts.dataset import split

def start():
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        split.main(["-w", "batfit"])
        os._exit(0)
    return child

moments = random.Random(7)
os.chdir("measured")
started = time.monotonic()
assert os.waitpid(start(), 0)[1] == 0
duration = time.monotonic() - started
os.chdir("../killed")
killed = 0
tries = 0
# on a busy machine the first split may have been the slow one, and then some kills come too late
while killed < int(sys.argv[1]) and tries < 6 * int(sys.argv[1]):
    child = start()
    time.sleep(duration * moments.uniform(0.66 if tries % 2 else 0, 1))
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    tries += 1
assert os.waitpid(start(), 0)[1] == 0
print(killed)
"""


def row(n: int) -> Example:
    prompt = " ".join(f"{WORDS[(n * 7 + i * (n % 5 + 1)) % 16]}{n % 150}" for i in range(30)) + f" at {n} EUR"
    return Example(
        id=f"r{n}", task=["t1_parse", "t2_repair"][n % 2], system="", prompt=prompt, slots={}, schema_version="1",
        response=canonical_json({"name": n % 150, "kind": "page", "price": n}), metadata={"group": f"g{n % 60}"},
        source_sha256="",
    )  # fmt: skip


def make(folder: Path) -> Path:
    make_project(folder)
    processed = folder / "data/processed/batfit"
    write_jsonl(processed / "clean.jsonl", map(row, range(ROWS)))
    variants = [row(n).model_copy(update={"id": f"v{n}", "metadata": {"parent": f"r{n}"}}) for n in range(0, ROWS, 9)]
    write_jsonl(processed / "augmented.jsonl", variants)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the locks, which name the process that had them."""
    places = [folder / "data/processed", folder / "reports", folder / "configs"]
    paths = [path for place in places for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_split_killed_at_any_moment_leaves_what_an_undisturbed_one_writes(tmp_path):
    measured, killed = make(tmp_path / "measured"), make(tmp_path / "killed")
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(KILLS)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == KILLS, "the kills came too late to test anything"
    want = tree(measured)
    assert {
        "data/processed/batfit/train.v1.jsonl",
        "configs/datasets.yaml",
        "reports/batfit/leakage.json",
    } <= want.keys()
    assert tree(killed) == want
