"""Shared fixtures: a project folder of a test's own, and one small distilled run that many tests read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from potstill import workload

REPO = Path(__file__).resolve().parent.parent


def make_project(folder: Path) -> Path:
    """A project folder with the repository's configs, samples and nano base; outputs land in it."""
    shutil.copytree(REPO / "configs", folder / "configs")
    (folder / "configs/datasets.yaml").unlink(missing_ok=True)
    (folder / "data").mkdir()
    (folder / "data/samples").symlink_to(REPO / "data/samples")
    (folder / "models").mkdir()
    (folder / "models/nano").symlink_to(REPO / "models/nano")
    shutil.copy(REPO / "requirements.lock", folder)
    return folder


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    workload.load.cache_clear()
    return folder


def run_script(folder: Path, name: str, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Runs python -m scripts.<name> in `folder` as a user would; `check` is the exit code wanted."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", f"scripts.{name}", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    if check is not None and done.returncode != check:
        raise AssertionError(f"{name} exited {done.returncode}, want {check}\n{done.stdout}\n{done.stderr}")
    return done
