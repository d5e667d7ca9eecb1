"""MLflow on a local sqlite store: runs, metrics, configuration. Nothing leaves the machine."""

import importlib.util
import math
import time
from typing import Any

from potstill import memory, project
from potstill.checkpoints import Change
from potstill.files import stage_lock
from potstill.records import read_jsonl
from potstill.runs import RunRecord, TrainConfig
from potstill.stop import UNAVAILABLE, Stop

EXPERIMENT = "potstill"


def client() -> tuple[Any, str]:
    """An MLflow client and the experiment's id; the store is made when it is not there."""
    from mlflow.tracking import MlflowClient

    uri = project.load_project().tracking_uri
    # several processes making a new sqlite store at once crash each other
    with stage_lock(project.MODELS, "mlflow", wait=True):
        tracking = MlflowClient(tracking_uri=uri)
        experiment = tracking.get_experiment_by_name(EXPERIMENT)
        return tracking, experiment.experiment_id if experiment else tracking.create_experiment(EXPERIMENT)


def require(settings: TrainConfig) -> None:
    """Raises Stop 69 when the numbers are also to go where they cannot: `report_to: wandb` without wandb."""
    if settings.sft.report_to == "wandb" and importlib.util.find_spec("wandb") is None:
        raise Stop(
            "sft.report_to is wandb, and wandb is not installed here; it is not in requirements.lock, because it sends "
            "the numbers away. Install it, or leave report_to out: MLflow on this machine has them all the same.",
            UNAVAILABLE,
        )


def start(record: RunRecord, settings: TrainConfig) -> tuple[Any, str]:
    """Opens the MLflow run of a training run, or goes on with the one an interrupted start left; client and run id."""
    tracking, experiment = client()
    found = tracking.search_runs([experiment], f"tags.run = '{record.run}'")
    if found:
        run_id = found[0].info.run_id
        tracking.update_run(run_id, status="RUNNING")
        # parameters of a run never change: what did on the way is in tags
        changes = project.run_folder(record.run) / "config_changes.jsonl"
        for change in read_jsonl(changes, Change) if changes.is_file() else ():
            tracking.set_tag(run_id, f"changed.{change.key}", f"{change.new} from step {change.step}")
        return tracking, run_id
    tags = {
        "run": record.run,
        "workload": record.workload,
        "base": record.base.name,
        "snapshot": record.snapshot,
        "git_commit": record.git_commit or "none",
        "git_dirty": str(record.git_dirty).lower(),
        "lock_sha256": record.lock_sha256 or "none",
        # by reference: what a run makes stays where it is
        "folder": project.run_folder(record.run).as_posix(),
        "reports": project.reports(record.run).as_posix(),
        **{f"{split}_file": snapshot.file for split, snapshot in record.snapshots.items()},
        **{f"{split}_sha256": snapshot.sha256 for split, snapshot in record.snapshots.items()},
    }
    opened = tracking.create_run(experiment, run_name=record.run, tags=tags).info.run_id
    for section, values in settings.model_dump(exclude_none=True).items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            tracking.log_param(opened, f"{section}.{key}".rstrip("."), value)
    return tracking, opened


def perplexity(loss: float) -> float:
    """exp(loss), which a float still holds."""
    return math.exp(min(loss, 50.0))


def peak_memory_bytes() -> int:
    """The most memory this process has had: the GPU's where one is used, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return memory.peak_bytes()


def log(tracking: Any, run_id: str, metrics: dict[str, float], step: int) -> None:
    """Logs metrics in one write."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    tracking.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()])
