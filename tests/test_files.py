import multiprocessing
import os
from pathlib import Path

import pytest

from potstill.files import atomic_open, canonical_json, sha256_file, sha256_text, stage_lock, write_text
from potstill.stop import BUSY, Stop


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_open(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path):
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_checksums_agree(tmp_path: Path):
    write_text(tmp_path / "a", "fünf")
    assert sha256_file(tmp_path / "a") == sha256_text("fünf")


def test_canonical_json_is_compact_and_refuses_what_is_no_json():
    assert canonical_json({"b": [1, None], "a": "é"}) == '{"b":[1,null],"a":"é"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def _hold(folder: Path, held, release) -> None:
    with stage_lock(folder, "clean"):
        held.set()
        release.wait(30)


def test_a_second_starter_is_told_who_holds_the_stage(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held, release))
    holder.start()
    assert held.wait(30)
    with pytest.raises(Stop, match=f"process {holder.pid}") as stop, stage_lock(tmp_path, "clean"):
        pass
    assert stop.value.code == BUSY
    # a dead holder holds nothing
    os.kill(holder.pid, 9)
    holder.join()
    with stage_lock(tmp_path, "clean"):
        pass
