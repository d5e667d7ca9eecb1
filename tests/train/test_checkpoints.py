import json
from pathlib import Path

import pytest

from potstill import checkpoints
from potstill.checkpoints import StepLog

FACTS = {"processes": 1, "device": "cpu", "settings": {"sft": {"seed": 1}}}


def saved(folder: Path, step: int) -> Path:
    written = checkpoints.partial(folder) / f"checkpoint-{step}"
    (written / "deep").mkdir(parents=True)
    (written / "model.safetensors").write_bytes(b"weights" * step)
    (written / "deep/optimizer.pt").write_bytes(b"state")
    (written / "training_args.bin").write_bytes(b"a pickle")
    checkpoints.seal(written, folder / f"checkpoint-{step}", {"step": step, **FACTS})
    return folder / f"checkpoint-{step}"


def test_the_newest_whole_checkpoint_is_picked(tmp_path: Path):
    assert checkpoints.newest(tmp_path) is None
    saved(tmp_path, 90)
    newest = saved(tmp_path, 100)
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found[0] == newest
    assert found[1].step == 100
    assert found[1].files.keys() == {"model.safetensors", "deep/optimizer.pt"}
    # nothing reads the trainer's pickle
    assert not (newest / "training_args.bin").exists()


@pytest.mark.parametrize("damage", ["cut", "missing", "changed", "no list", "torn list"])
def test_one_that_a_broken_copy_left_is_passed_over(tmp_path: Path, damage: str):
    older, newer = saved(tmp_path, 9), saved(tmp_path, 10)
    weights, listed = newer / "model.safetensors", newer / checkpoints.LIST
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1])
        case "missing":
            (newer / "deep/optimizer.pt").unlink()
        case "changed":
            weights.write_bytes(b"W" + weights.read_bytes()[1:])
        case "no list":
            listed.unlink()
        case "torn list":
            listed.write_text(listed.read_text()[:-20])
    assert checkpoints.read(newer) is None
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert found[0] == older


def test_what_a_kill_left_half_written_has_no_checkpoints_name(tmp_path: Path):
    (checkpoints.partial(tmp_path) / "checkpoint-5").mkdir()
    assert checkpoints.by_step(tmp_path) == []
    assert list(checkpoints.partial(tmp_path).iterdir()) == []


def test_two_checkpoints_are_kept_by_step_and_not_by_age(tmp_path: Path):
    for step in (30, 9, 100, 20):
        saved(tmp_path, step)
    checkpoints.prune(tmp_path)
    assert [path.name for path in checkpoints.by_step(tmp_path)] == ["checkpoint-30", "checkpoint-100"]


def test_the_log_forgets_the_steps_after_the_checkpoint_and_a_torn_line(tmp_path: Path):
    path = tmp_path / "steps.jsonl"
    log = StepLog(path, 0)
    for step in range(1, 6):
        log.add(step, 1.0 / step, 0.1, 7, [step])
    log.sync()
    assert log.tokens == 35
    with open(path, "a") as file:
        file.write('{"step": 3, "lo')
    again = StepLog(path, 3)
    again.add(4, 0.25, 0.1, 7, [4])
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
