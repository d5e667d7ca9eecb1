"""Shared fixtures: a project folder of a test's own, and one small distilled run that many tests read."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from potstill import workload
from projects import CHAIN, REPO, Distilled, make_project, run_script, thin

# the same examples in every run, however busy the machine is
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")
COSTLY = ["distilled"]
if "PYTEST_XDIST_WORKER" in os.environ:
    # several processes whose torch threads wait for each other take ten times as long
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell starts background jobs with SIGINT ignored, programs inherit that, and some tests interrupt programs
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With -n, the tests of one costly fixture run in one process, so that it is made once; they start first."""
    for item in items:
        names = getattr(item, "fixturenames", [])
        if costly := next((name for name in COSTLY if name in names), None):
            item.add_marker(pytest.mark.xdist_group(costly))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


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
