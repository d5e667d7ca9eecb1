"""The promoted run of a workload: the alias `promoted` of the registered model <workload> in MLflow's sqlite store.

Nothing leaves the machine. The alias is moved by one transaction, last: whoever reads it finds the old run or the new
one. A promotion that was killed before it is repeated by running the same command again.
"""

from typing import Any

from potstill import project, runs, tracking
from potstill.files import sha256_file, stage_lock
from potstill.metrics import Report
from potstill.stop import INCONCLUSIVE, REJECT, Stop

ALIAS = "promoted"


def promoted(workload: str) -> str | None:
    """The name of the promoted run, or None while there is none."""
    version = _version_of(_client(), workload)
    return None if version is None else str(version.tags["run"])


def refuse(report: Report) -> None:
    """Raises Stop 100 or 101 unless the gate says promote."""
    if report.gate.verdict != "promote":
        code = REJECT if report.gate.verdict == "reject" else INCONCLUSIVE
        raise Stop(f"{report.run} is not promoted: the gate says {report.gate.verdict}. See report.md.", code)


def promote(report: Report) -> str | None:
    """Moves the alias to the report's run, and returns the run that had it before.

    Raises Stop 100 or 101 unless the report's gate says promote, and Stop 65 when the run is not trained.
    """
    refuse(report)
    runs.require_trained(report.run)
    client = _client()
    # two promotions at once would each register the model
    with stage_lock(project.MODELS, "promotion", wait=True):
        before = _version_of(client, report.workload)
        if not client.search_registered_models(f"name = '{report.workload}'"):
            client.create_registered_model(report.workload)
        version = _registered(client, report)
        client.set_registered_model_alias(report.workload, ALIAS, version.version)
    return str(before.tags["run"]) if before is not None else None


def _registered(client: Any, report: Report) -> Any:
    """The version of the report's run, made when it is not there, with tags that say what was promoted."""
    found = client.search_model_versions(f"name = '{report.workload}' and tags.run = '{report.run}'")
    tags = {
        "run": report.run,
        "snapshot": report.snapshot,
        "slot_accuracy": str(report.slot_accuracy),
        "report_sha256": sha256_file(project.reports(report.run) / "report.json"),
    }
    if found:
        for key, value in tags.items():
            client.set_model_version_tag(report.workload, found[0].version, key, value)
        return found[0]
    source = project.run_folder(report.run).as_posix()
    return client.create_model_version(report.workload, source, run_id=_tracked(client, report.run), tags=tags)


def _tracked(client: Any, run: str) -> str | None:
    """The MLflow run of the training; None for one that was trained on another machine."""
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    found = client.search_runs([experiment.experiment_id], f"tags.run = '{run}'")
    return str(found[0].info.run_id) if found else None


def _version_of(client: Any, workload: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(workload, ALIAS)
    except MlflowException as error:
        # no such model, or a model without the alias
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _client() -> Any:
    """A client whose registry is the tracking store, whatever the environment says."""
    tracking.client()
    from mlflow.tracking import MlflowClient

    uri = project.load_project().tracking_uri
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
