"""What MLflow is told of a run, on this machine and nowhere else."""

import json
import socket
from pathlib import Path

import pytest

from potstill import project, tracking
from potstill.stop import UNAVAILABLE
from train_runs import prepare, run_step, small_project, steps_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_project(tmp_path_factory.mktemp("tracking") / "project")
    options = {"sft.max_steps": 4, "sft.logging_steps": 1, "val_generate": "{rows: 1, every: 2}"}
    prepare(folder, "r", **options)
    # a program that reaches for the network ends at once
    run_step(folder, "train.run", "-r", "r", NO_NETWORK="1")
    return folder


def test_mlflow_has_the_numbers_the_config_and_where_things_are(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    project.go_offline()
    from mlflow.tracking import MlflowClient

    # MLflow keeps a store open by its URI, and a relative one can be another test's
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id], "tags.run = 'r'")
    assert run.info.status == "FINISHED"
    metrics = json.loads((folder / "models/r/metrics.json").read_text())
    steps = steps_of(folder, "r")
    logged = client.get_metric_history(run.info.run_id, "loss")
    assert [entry.value for entry in logged] == [row["loss"] for row in steps]
    rates = client.get_metric_history(run.info.run_id, "learning_rate")
    assert [entry.step for entry in rates] == [1, 2, 3, 4]
    for entry, told in zip(logged, client.get_metric_history(run.info.run_id, "perplexity"), strict=True):
        assert told.value == pytest.approx(tracking.perplexity(entry.value))
    assert [e.step for e in client.get_metric_history(run.info.run_id, "val_slot_accuracy")][:2] == [2, 4]
    for name in ("tokens_per_s", "memory_bytes", "val_json_validity", "eval_loss", "peak_memory_bytes"):
        assert name in run.data.metrics, name
    assert run.data.metrics["eval_loss"] == metrics["eval_loss"]
    assert run.data.params["sft.learning_rate"] == "0.004"
    assert run.data.params["val_generate.every"] == "2"
    assert run.data.tags["folder"] == "models/r"
    assert run.data.tags["train_file"] == "data/processed/batfit/train.v1.jsonl"
    # by reference: the store has no copy of anything
    assert client.list_artifacts(run.info.run_id) == []


def test_the_step_log_counts_tokens_without_padding(folder: Path):
    steps = steps_of(folder, "r")
    assert all(len(row["lines"]) == 8 for row in steps)
    assert all(0 < row["tokens"] < 8 * 96 for row in steps)


def test_a_program_that_may_not_reach_the_network_cannot(folder: Path):
    """The guard of the fixture above is one: without it the test would say nothing."""
    from train_runs import forbid_network

    kept = socket.socket.connect
    try:
        forbid_network()
        with socket.socket() as one, pytest.raises(OSError, match="network"):
            one.connect(("127.0.0.1", 9))
    finally:
        socket.socket.connect = kept  # type: ignore[method-assign]


def test_wandb_that_is_not_there_is_one_clear_line(folder: Path):
    said = run_step(folder, "train.prepare", "-w", "batfit", "-o", "sft.report_to=wandb", check=UNAVAILABLE)
    assert "sft.report_to is wandb, and wandb is not installed here" in said


def test_qlora_without_a_gpu_is_one_clear_line(folder: Path):
    options = ["-c", "nano-lora", "-o", "mode=qlora"]
    said = run_step(folder, "train.prepare", "-w", "batfit", *options, check=UNAVAILABLE)
    assert "mode qlora trains on a base in 4 bits and needs a GPU" in said
    assert "or take mode lora" in said
