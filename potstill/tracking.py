"""MLflow on a local sqlite store: runs, metrics, configuration. Nothing leaves the machine."""

import time
from typing import Any

from potstill import project
from potstill.files import stage_lock
from potstill.runs import RunRecord, TrainConfig

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


def start(record: RunRecord, settings: TrainConfig) -> tuple[Any, str]:
    """Opens the MLflow run of a training run, or goes on with the one an interrupted start left; client and run id."""
    tracking, experiment = client()
    found = tracking.search_runs([experiment], f"tags.run = '{record.run}'")
    if found:
        tracking.update_run(found[0].info.run_id, status="RUNNING")
        return tracking, found[0].info.run_id
    tags = {
        "run": record.run,
        "workload": record.workload,
        "base": record.base.name,
        "snapshot": record.snapshot,
        "git_commit": record.git_commit or "none",
        "git_dirty": str(record.git_dirty).lower(),
        "lock_sha256": record.lock_sha256 or "none",
    }
    opened = tracking.create_run(experiment, run_name=record.run, tags=tags).info.run_id
    for section, values in settings.model_dump(exclude_none=True).items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            tracking.log_param(opened, f"{section}.{key}".rstrip("."), value)
    return tracking, opened


def log(tracking: Any, run_id: str, metrics: dict[str, float], step: int) -> None:
    """Logs metrics in one write."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    tracking.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in metrics.items()])
