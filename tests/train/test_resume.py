"""train.resume: a changed config takes effect, is recorded, and may not change what learns from which rows."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from potstill import launching, runs
from potstill.checkpoints import newest
from potstill.runs import TrainConfig
from potstill.stop import DATA, USAGE, Stop
from train_runs import kill, prepare, run_step, small_project, start, steps_of

CONSTANT = {"sft.max_steps": 8, "sft.save_steps": 2, "sft.lr_scheduler_type": "constant", "sft.warmup_steps": 0}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the run `r`, a LoRA with dropout, killed after its checkpoint of step 4; `whole` ran on."""
    folder = small_project(tmp_path_factory.mktemp("resume") / "project")
    options = {**CONSTANT, "lora.lora_dropout": 0.2, "sft.bf16": "false", "sft.weight_decay": 0.1}
    for run in ("whole", "r"):
        prepare(folder, run, "nano-lora", **options, **{"sft.per_device_train_batch_size": 4})
    run_step(folder, "train.run", "-r", "whole")
    process = start(folder, "train.run", "-r", "r")
    while process.is_alive() and not (folder / "models/r/checkpoints/checkpoint-4").is_dir():
        process.join(0.002)
    kill(process)
    assert newest(folder / "models/r/checkpoints")[1].step == 4  # type: ignore[index]
    return folder


@pytest.fixture
def folder(interrupted: Path, tmp_path: Path) -> Path:
    # another place, as on another machine: nothing may depend on where the project was
    return shutil.copytree(interrupted, tmp_path / "elsewhere", symlinks=True)


def changes(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "models/r/config_changes.jsonl").read_text().splitlines()]


def test_a_run_taken_up_elsewhere_draws_the_same_dropout(folder: Path):
    run_step(folder, "train.run", "-r", "r")
    for row, other in zip(steps_of(folder, "r"), steps_of(folder, "whole"), strict=True):
        assert row["lines"] == other["lines"]
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
    assert not (folder / "models/r/config_changes.jsonl").exists()
    assert not (folder / "models/r/checkpoints").exists()


def test_a_changed_learning_rate_takes_effect_and_is_recorded(folder: Path):
    shown = run_step(folder, "train.resume", "-r", "r", "-o", "sft.learning_rate=1.0e-4")
    assert "from step 4 on, sft.learning_rate is 0.0001, was 0.004" in shown
    rates = [row["learning_rate"] for row in steps_of(folder, "r")]
    assert rates == pytest.approx([4e-3] * 4 + [1e-4] * 4)
    kept = [(row["step"], row["key"], row["old"], row["new"]) for row in changes(folder)]
    assert kept == [(4, "sft.learning_rate", 0.004, 0.0001)]
    assert yaml.safe_load((folder / "models/r/config.yaml").read_text())["sft"]["learning_rate"] == 1e-4
    # the first step after the change is still that of the weights before it
    steps, whole = steps_of(folder, "r"), steps_of(folder, "whole")
    assert [row["lines"] for row in steps] == [row["lines"] for row in whole]
    assert steps[4]["loss"] == pytest.approx(whole[4]["loss"], abs=1e-5)
    assert abs(steps[7]["loss"] - whole[7]["loss"]) > 1e-3


def test_the_same_rows_in_smaller_batches_go_on(folder: Path):
    halves = ["-o", "sft.per_device_train_batch_size=2", "-o", "sft.gradient_accumulation_steps=2"]
    shown = run_step(folder, "train.resume", "-r", "r", *halves)
    assert "sft.per_device_train_batch_size is 2, was 4" in shown
    assert [r["lines"] for r in steps_of(folder, "r")] == [r["lines"] for r in steps_of(folder, "whole")]


def test_another_device_is_noted(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    found = newest(Path("models/r/checkpoints"))
    assert found is not None
    launching.note_device(runs.read("r"), found[1].model_copy(update={"device": launching.device()}))
    assert not Path("models/r/config_changes.jsonl").exists()
    launching.note_device(runs.read("r"), found[1].model_copy(update={"device": "a large GPU"}))
    (change,) = changes(folder)
    assert (change["step"], change["key"], change["old"], change["new"]) == (
        4,
        "device",
        "a large GPU",
        launching.device(),
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sft.seed=3", "sft.seed cannot change on the way"),
        ("lora.r=8", "lora.r cannot change on the way"),
        ("base=models/other", "base cannot change on the way"),
        ("sft.per_device_train_batch_size=8", "4 rows make a step, and the change would make it 8"),
        ("sft.learning_rat=1", "Did you mean 'learning_rate'?"),
    ],
)
def test_what_decides_who_learns_from_which_rows_stays(interrupted: Path, override: str, said: str):
    before = (interrupted / "models/r/config.yaml").read_bytes()
    assert said in run_step(interrupted, "train.resume", "-r", "r", "-o", override, check=USAGE)
    assert (interrupted / "models/r/config.yaml").read_bytes() == before
    assert not (interrupted / "models/r/config_changes.jsonl").exists()


def test_there_has_to_be_something_to_go_on_from(interrupted: Path):
    assert "is trained to its end already" in run_step(interrupted, "train.resume", "-r", "whole", check=USAGE)
    prepare(interrupted, "new")
    assert "has no whole checkpoint" in run_step(interrupted, "train.resume", "-r", "new", check=DATA)


def test_more_processes_than_the_checkpoint_had_are_refused(interrupted: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(interrupted)
    found = newest(Path("models/r/checkpoints"))
    assert found is not None
    settings = TrainConfig.model_validate(found[1].settings)
    launching.check_taken_up("r", settings, found[1])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Stop, match="made with 4 rows to a step by 1 processes, and this would be 8"):
        launching.check_taken_up("r", settings, found[1])
