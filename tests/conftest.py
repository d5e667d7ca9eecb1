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
# the files whose tests read the one distilled run
COSTLY = tuple(
    path.relative_to(REPO).as_posix() for path in REPO.glob("tests/**/test_*.py") if "distilled" in path.read_text()
)
if "PYTEST_XDIST_WORKER" in os.environ:
    # several processes whose torch threads wait for each other take ten times as long
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell starts background jobs with SIGINT ignored, programs inherit that, and some tests interrupt programs
signal.signal(signal.SIGINT, signal.default_int_handler)


def is_costly(nodeid: str) -> bool:
    return nodeid.startswith(COSTLY)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not is_costly(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With -n, all that reads the distilled run is one process's work, begun first; any other test is anybody's."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        # xdist's own groups (3.8.0) write names that pytest 9.2 no longer reads
        def _split_scope(self, nodeid: str) -> str:
            return "distilled" if is_costly(nodeid) else nodeid

    return Grouped(config, log)


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
