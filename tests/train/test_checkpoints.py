from pathlib import Path

from scripts.train.run import newest_checkpoint


def checkpoint(folder: Path, step: int, state: str | None) -> Path:
    path = folder / f"checkpoints/checkpoint-{step}"
    path.mkdir(parents=True)
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_the_newest_whole_checkpoint_is_picked(tmp_path: Path):
    assert newest_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 90, "{}")
    newest = checkpoint(tmp_path, 100, '{"global_step": 100}')
    # killed while the weights, and while the state itself was written
    checkpoint(tmp_path, 200, None)
    checkpoint(tmp_path, 300, '{"global_st')
    assert newest_checkpoint(tmp_path) == newest
