"""dataset.clean and dataset.split, killed at random moments: running them again gives the bytes of an untouched run.

POTSTILL_KILLS=50 kills more often than the suite does.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from projects import REPO, run_script
from shop import make_shop, rows

KILLS = int(os.environ.get("POTSTILL_KILLS", "4"))
STEPS = ("dataset.clean", "dataset.split")


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data/processed/shop").glob("[!.]*"))}


def test_a_killed_clean_or_split_leaves_whole_files_and_runs_again_to_the_same_bytes(project_folder: Path):
    make_shop(project_folder, rows(150))
    started = time.monotonic()
    for step in STEPS:
        run_script(project_folder, step, "-w", "shop")
    took = time.monotonic() - started
    wanted = outputs(project_folder)
    assert {"clean.jsonl", "rejected.jsonl", "train.v1.jsonl", "val.v1.jsonl", "test.v1.jsonl"} <= set(wanted)
    rng = random.Random(5)
    for _ in range(KILLS):
        for path in (project_folder / "data/processed/shop").iterdir():
            path.unlink()
        (project_folder / "configs/datasets.yaml").unlink(missing_ok=True)
        kill_after(project_folder, rng.uniform(0, took))
        # what is there under its own name is whole
        found = outputs(project_folder)
        assert {name: wanted[name] for name in found} == found
        for step in STEPS:
            run_script(project_folder, step, "-w", "shop")
        assert outputs(project_folder) == wanted


def kill_after(folder: Path, seconds: float) -> None:
    """Runs both steps and kills everything they started when the time is up."""
    deadline = time.monotonic() + seconds
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    for step in STEPS:
        process = subprocess.Popen(
            [sys.executable, "-m", f"scripts.{step}", "-w", "shop"],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_step_leaves_no_process_behind(project_folder: Path, step: str):
    make_shop(project_folder, rows(150))
    run_script(project_folder, "dataset.clean", "-w", "shop")
    process = subprocess.Popen(
        [sys.executable, "-m", f"scripts.{step}", "-w", "shop"],
        cwd=project_folder,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.8)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while workers_in(project_folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers_in(project_folder) == []


def workers_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve() == folder and b"potstill.worker" in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found
