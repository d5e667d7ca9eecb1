"""Environment variables that hold for every workload, and the paths that options give instead of them."""

from pathlib import Path

import pytest

from potstill import workload
from potstill.stop import DATA, USAGE, Stop


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name in ("env.txt", "given.txt"):
        (tmp_path / name).write_text(f" {name} \n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_an_option_comes_before_the_variable_and_neither_is_none(files, monkeypatch):
    assert workload.override("batfit", "manifest") is None
    monkeypatch.setenv("BATFIT_MANIFEST", "")
    assert workload.override("batfit", "manifest") is None
    monkeypatch.setenv("BATFIT_MANIFEST", "~/env.txt")
    assert workload.override("batfit", "manifest") == files / "env.txt"
    assert workload.override("batfit", "manifest", Path("given.txt")) == Path("given.txt")
    assert workload.override("sibyl", "manifest") is None


@pytest.mark.parametrize(
    ("value", "folder", "named"),
    [
        ("gone.txt", False, r"BATFIT_X names gone\.txt, where no file is\. Correct it or leave it out"),
        (".", False, r"BATFIT_X names \., where no file is"),
        ("env.txt", True, r"BATFIT_X names env\.txt, where no folder is"),
    ],
)
def test_an_override_that_is_not_there_is_one_clear_line(files, monkeypatch, value, folder, named):
    monkeypatch.setenv("BATFIT_X", value)
    with pytest.raises(Stop, match=named) as caught:
        workload.override("batfit", "x", folder=folder)
    assert caught.value.code == USAGE
    with pytest.raises(Stop, match=r"--x names nowhere, where"):
        workload.override("batfit", "x", Path("nowhere"), folder=folder)


def test_a_workloads_system_text_can_be_another_files(project_folder, monkeypatch):
    (project_folder / "mine.txt").write_text("Mine.\n", encoding="utf-8")
    assert workload.load("cricket").system_prompt != "Mine."
    workload.load.cache_clear()
    monkeypatch.setenv("CRICKET_SYSTEM_PROMPT", "mine.txt")
    assert workload.load("cricket").system_prompt == "Mine."
    assert workload.load("sibyl").system_prompt != "Mine."
    workload.load.cache_clear()
    (project_folder / "mine.txt").write_bytes(b"Mine \xff")
    with pytest.raises(Stop, match=r"mine\.txt: byte 5 is not UTF-8") as caught:
        _ = workload.load("cricket").system_prompt
    assert caught.value.code == DATA
    workload.load.cache_clear()


def test_a_demo_task_that_is_none_of_the_tasks_is_refused(project_folder):
    path = project_folder / "configs/workloads/blazed_deals.yaml"
    assert workload.load("blazed_deals").settings.demo_task == "productpage"
    workload.load.cache_clear()
    path.write_text(path.read_text(encoding="utf-8").replace("demo_task: productpage", "demo_task: page"))
    with pytest.raises(Stop, match="demo_task 'page' is none of its tasks"):
        workload.load("blazed_deals")
    workload.load.cache_clear()
