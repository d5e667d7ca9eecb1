from pathlib import Path

import byhand as run_by_hand
import pytest


@pytest.fixture
def byhand(project_folder: Path) -> Path:
    """The working folder is a project with the run of byhand.py; the value is its report folder."""
    return run_by_hand.make_run()
