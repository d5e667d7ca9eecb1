"""Two processes that learn together learn what one does from twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from projects import REPO
from train_runs import prepare, run_step, small_project, steps_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project")


@pytest.mark.parametrize(
    ("config", "batch", "changed"),
    [("nano", 8, {}), ("nano-lora", 16, {}), ("nano-lora", 16, {"sft.gradient_checkpointing": "true"})],
)
def test_two_processes_have_the_losses_of_one_with_twice_the_batch(
    folder: Path, config: str, batch: int, changed: dict[str, str]
):
    options = {"sft.max_steps": 4, "sft.save_steps": 2, "sft.bf16": "false", "sft.max_length": 640, **changed}
    prepare(folder, "one", config, **options)
    prepare(folder, "two", config, **options, **{"sft.per_device_train_batch_size": batch // 2})
    run_step(folder, "train.run", "-r", "one")
    # not forked: the launcher starts programs of its own
    done = subprocess.run(
        [sys.executable, "-m", "scripts.train.run", "-r", "two", "--processes", "2"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = steps_of(folder, "one"), steps_of(folder, "two")
    assert len(two) == 4
    for row, other in zip(two, one, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert row["lines"] == other["lines"]
        assert row["tokens"] == other["tokens"]
    # one process shows and logs
    assert done.stdout.count("wrote models/two/metrics.json") == 1
    metrics = [json.loads((folder / f"models/{run}/metrics.json").read_text()) for run in ("one", "two")]
    assert metrics[1]["eval_loss"] == pytest.approx(metrics[0]["eval_loss"], abs=1e-3)
