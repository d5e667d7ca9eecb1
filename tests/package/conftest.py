"""Fixtures of the package stage: a tiny Gemma 3, and a run of it that is exported once."""

import shutil
from pathlib import Path

import pytest
import tiny_gemma

from potstill import workload
from scripts.package import export

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny_gemma.write_tokenizer(folder, 420)
    return tiny_gemma.write_model(folder)


@pytest.fixture(scope="session")
def exported(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with one packaged run, read by many tests; copy what you change."""
    folder = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(REPO / "configs", folder / "configs")
    # a random model never ends its answer
    path = folder / "configs/workloads/batfit.yaml"
    path.write_text(path.read_text().replace("max_new_tokens: 224", "max_new_tokens: 24"))
    run = tiny_gemma.make_run(folder, tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        workload.load.cache_clear()
        export.main(["-w", "batfit", "-r", run])
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the exported project that a test may break, as the current folder."""
    folder = tmp_path / "project"
    shutil.copytree(exported, folder, symlinks=True)
    monkeypatch.chdir(folder)
    workload.load.cache_clear()
    return folder
