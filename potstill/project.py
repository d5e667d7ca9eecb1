"""Where things are: the folders of DESIGN's layout, relative to the folder a command is run in."""

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from potstill import config
from potstill.config import Config
from potstill.files import sha256_file
from potstill.stop import DATA, USAGE, Stop

CONFIGS = Path("configs")
MODELS = Path("models")
REPORTS = Path("reports")
SAMPLES = Path("data/samples")
PROCESSED = Path("data/processed")
REGISTRY = CONFIGS / "datasets.yaml"
LOCK = Path("requirements.lock")
# made on first use; pseudonyms of one project agree with each other and with nobody else's
PII_KEY = Path("data/.pii_key")
# a run's name becomes a folder here and on hosts
RUN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class Signing(Config):
    """Which keys sign and vouch for packages. Paths may begin with ~; a passphrase itself is in no config."""

    # fab package.export signs when the file is on this machine
    private_key: str | None = None
    passphrase_file: str | None = None
    passphrase_env: str | None = None
    # fab package.verify demands its signature
    public_key: str | None = None


class Project(Config):
    """configs/project.yaml"""

    workload: str
    database: str
    daily_token_budget: Annotated[int, Field(gt=0)]
    tracking_uri: str
    engine: Literal["local", "ray"]
    # worker processes of dataset.clean; 0 takes every core, or every CPU of the Ray cluster
    workers: Annotated[int, Field(ge=0)]
    signing: Signing = Field(default_factory=Signing)


def load_project() -> Project:
    return config.load(CONFIGS / "project.yaml", Project)


def database() -> Path:
    return Path(load_project().database)


def previous_database() -> Path:
    """What dataset.pull replaced last, which it keeps beside the database."""
    path = database()
    return path.with_suffix(f".previous{path.suffix}")


def processed(workload: str) -> Path:
    return PROCESSED / workload


def run_folder(run: str) -> Path:
    """The folder of a run; refuses names that could leave `models/`."""
    if not RUN_NAME.match(run):
        raise Stop(f"{run!r} is no run name: want letters, digits, '.', '_' and '-'", USAGE)
    return MODELS / run


def new_run_name(workload: str, train_config: str) -> str:
    return f"{workload}-{train_config}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def find_run(workload: str, run: str | None) -> str:
    """`run` when it exists, else the newest run of the workload. Raises Stop 65 when there is none."""
    if run is not None:
        if not (run_folder(run) / "run.json").is_file():
            known = sorted(p.parent.name for p in MODELS.glob("*/run.json"))
            raise Stop(
                f"models/{run}/run.json is not there.{config.nearest(run, known)} Run fab train.prepare -w {workload}.",
                DATA,
            )
        return run
    # run.json is written once, when the run is prepared
    candidates = [p for p in MODELS.glob("*/run.json") if f'"workload": "{workload}"' in p.read_text(encoding="utf-8")]
    if not candidates:
        raise Stop(f"workload {workload} has no run yet. Run fab train.prepare -w {workload}.", DATA)
    return max(candidates, key=lambda p: (p.stat().st_mtime_ns, p.parent.name)).parent.name


def reports(name: str) -> Path:
    return REPORTS / name


def git_commit() -> tuple[str | None, bool]:
    """The commit the code is at and whether tracked files differ from it; (None, False) outside a checkout."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=30)
        if head.returncode:
            return None, False
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=30)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None, False
    return head.stdout.strip(), bool(status.stdout.strip())


def lock_sha256() -> str | None:
    return sha256_file(LOCK) if LOCK.is_file() else None


def go_offline() -> None:
    """Keeps libraries from phoning home, and the hub from being asked unless the user set HF_HUB_OFFLINE=0."""
    settings = {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "UNSLOTH_DISABLE_STATISTICS": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    os.environ.update(settings)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
