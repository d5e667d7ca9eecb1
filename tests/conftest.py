"""Shared fixtures: a project folder of a test's own, and one small distilled run that many tests read."""

import signal
from pathlib import Path

import pytest

from potstill import workload
from projects import CHAIN, REPO, Distilled, make_project, run_script, thin

# a shell starts background jobs with SIGINT ignored, programs inherit that, and some tests interrupt programs
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    workload.load.cache_clear()
    return folder


@pytest.fixture(scope="session")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    folder = make_project(tmp_path_factory.mktemp("distilled") / "project")
    samples = folder / "data/samples"
    samples.unlink()
    thin(REPO / "data/samples/batfit", samples / "batfit")
    for step in CHAIN:
        run_script(folder, *step)
    return Distilled(folder, "small")
