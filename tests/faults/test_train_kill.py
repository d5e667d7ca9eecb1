"""train.run, killed at random moments: run again, it goes on as if nothing had been.

POTSTILL_KILLS=20 kills more often than the suite does; python -m benchmarks.train kill is the long form of it.
"""

import json
import os
import random
import time
from pathlib import Path

import pytest

from potstill import checkpoints
from train_runs import kill, prepare, run_step, small_project, start, steps_of

KILLS = int(os.environ.get("POTSTILL_KILLS", "2"))
STEPS, SAVE = 12, 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project")


def test_a_killed_run_goes_on_with_the_same_rows_and_losses(folder: Path):
    # two epochs, Muon, float32: the order of the second epoch and Muon's state have to come back as well
    options = {"sft.max_steps": STEPS, "sft.save_steps": SAVE, "sft.bf16": "false", "sft.num_train_epochs": 2}
    for run in ("whole", "killed"):
        prepare(folder, run, **options)
    run_step(folder, "train.run", "-r", "whole")
    wanted = steps_of(folder, "whole")
    assert [row["step"] for row in wanted] == list(range(1, STEPS + 1))
    log, rng = folder / "models/killed/steps.jsonl", random.Random(4)
    seen: dict[int, dict] = {}
    for number in range(KILLS):
        process, step = start(folder, "train.run", "-r", "killed"), rng.randint(SAVE + 1, STEPS - 1)
        while process.is_alive() and not (log.is_file() and len(log.read_bytes().splitlines()) >= step):
            time.sleep(0.002)
        kill(process)
        # what was learnt and then lost was the same, too
        seen |= {row["step"]: row for row in steps_of(folder, "killed", whole=False)}
        assert checkpoints.newest(folder / "models/killed/checkpoints") is not None, number
    shown = run_step(folder, "train.run", "-r", "killed")
    assert "going on from models/killed/checkpoints/checkpoint-" in shown
    found = steps_of(folder, "killed")
    assert len(found) == STEPS
    for row, other in [*zip(found, wanted, strict=True), *((seen[s], wanted[s - 1]) for s in seen)]:
        assert row["lines"] == other["lines"]
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    one, two = (json.loads((folder / f"models/{run}/metrics.json").read_text()) for run in ("whole", "killed"))
    assert one["eval_loss"] == pytest.approx(two["eval_loss"], abs=1e-5)


def test_a_kill_in_the_midst_of_saving_leaves_no_checkpoint_of_that_name(folder: Path):
    prepare(folder, "killed", **{"sft.max_steps": 5, "sft.save_steps": 2})
    process, saved = start(folder, "train.run", "-r", "killed"), folder / "models/killed/checkpoints"
    while process.is_alive() and not (
        (saved / "checkpoint-2").is_dir() and list(saved.glob(f"{checkpoints.PARTIAL}/checkpoint-4/*"))
    ):
        time.sleep(0.0005)
    kill(process)
    assert [path.name for path in checkpoints.by_step(saved)] == ["checkpoint-2"]
    found = checkpoints.newest(saved)
    assert found is not None
    assert found[1].step == 2
    shown = run_step(folder, "train.run", "-r", "killed")
    assert "going on from models/killed/checkpoints/checkpoint-2" in shown
    assert [row["step"] for row in steps_of(folder, "killed")] == [1, 2, 3, 4, 5]
