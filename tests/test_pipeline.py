"""The whole chain, each step as a user runs it, on a fifth of BatFit's samples and a few training steps."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from potstill import models, prompt, rows, runs
from potstill.records import Example, Prediction, Reject, Verdict, read_jsonl
from potstill.stop import BUSY, DATA, USAGE
from projects import REPO, Distilled, run_script

pytestmark = pytest.mark.usefixtures("distilled")


def test_rows_in_are_rows_kept_and_rejected(distilled: Distilled):
    import duckdb

    with duckdb.connect(str(distilled.folder / "data/raw/dataset.duckdb"), read_only=True) as connection:
        (count,) = connection.execute("SELECT count(*) FROM examples").fetchone()
    processed = distilled.folder / "data/processed/batfit"
    kept = list(read_jsonl(processed / "clean.jsonl", Example))
    rejected = list(read_jsonl(processed / "rejected.jsonl", Reject))
    assert len(kept) + len(rejected) == count > 300
    assert "| t1_parse |" in (distilled.folder / "reports/batfit/dataset_validation.md").read_text()


def test_no_group_is_in_two_splits(distilled: Distilled):
    groups = {split: {e.metadata["group"] for e in distilled.examples(split)} for split in ("train", "val", "test")}
    assert all(groups.values())
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["val"]
    assert not groups["val"] & groups["test"]
    sliced = [e for e in distilled.examples("test") if "slice" in e.metadata]
    assert {e.metadata["slice"] for e in sliced} == {"unseen_synonyms"}


def test_splitting_again_gives_the_same_snapshot(distilled: Distilled):
    registry = distilled.folder / "configs/datasets.yaml"
    before = registry.read_bytes()
    assert "the same rows as v1: kept" in run_script(distilled.folder, "dataset.split").stdout
    assert registry.read_bytes() == before


def test_statistics_count_the_tokens_that_training_sees(distilled: Distilled):
    stats = json.loads((distilled.folder / "reports/batfit/dataset_stats.json").read_text())
    tokenizer = models.load_tokenizer(REPO / "models/nano")
    rendered = [prompt.render(e, tokenizer) for e in distilled.examples("val")]
    total = sum(len(r.prompt_ids) + len(r.completion_ids) for r in rendered)
    assert stats["splits"]["val"]["tokens_total"] == total
    assert 0.3 < stats["splits"]["train"]["slot_coverage"]["context.pitch_type"] < 0.8


def test_the_run_knows_what_it_was_made_from(distilled: Distilled):
    record = runs.RunRecord.model_validate_json((distilled.run / "run.json").read_text())
    registered = yaml.safe_load((distilled.folder / "configs/datasets.yaml").read_text())["batfit"]["v1"]
    assert {k: s.sha256 for k, s in record.snapshots.items()} == {
        split: registered[split]["sha256"] for split in ("train", "val", "test")
    }
    assert record.lock_sha256
    assert record.base.name == "nano"


def test_training_lowered_the_loss_and_mlflow_has_it(distilled: Distilled):
    from mlflow.tracking import MlflowClient

    metrics = json.loads((distilled.run / "metrics.json").read_text())
    client = MlflowClient(tracking_uri=f"sqlite:///{distilled.folder}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "potstill"]
    (found,) = [r for r in client.search_runs([experiment.experiment_id]) if r.data.tags["run"] == distilled.name]
    assert found.info.status == "FINISHED"
    assert found.data.metrics["eval_perplexity"] == pytest.approx(metrics["eval_perplexity"])
    losses = [m.value for m in client.get_metric_history(found.info.run_id, "loss")]
    assert losses[-1] < losses[0] / 2
    assert found.data.params["sft.learning_rate"]
    assert found.data.tags["lock_sha256"]


def test_a_trained_model_keeps_the_bases_tokenizer_byte_for_byte(distilled: Distilled):
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        assert (distilled.run / "model" / name).read_bytes() == (REPO / "models/nano" / name).read_bytes()


def test_predictions_are_one_for_every_row_in_its_order(distilled: Distilled):
    ids = [e.id for e in distilled.examples("test")]
    for name in ("predictions", "predictions.base", "predictions.null"):
        predictions = list(read_jsonl(distilled.reports / f"{name}.jsonl", Prediction))
        assert [p.id for p in predictions] == ids


def test_batches_change_no_answer(distilled: Distilled, monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.chdir(distilled.folder)
    model, tokenizer = models.load_merged(distilled.name, torch.float32)
    examples = distilled.examples("test")[:6]
    prompts = [prompt.prompt_ids(e.system, e.prompt, tokenizer) for e in examples]
    together = {g.index: g.ids for g in models.generate(model, tokenizer, prompts, 48)}
    alone = {i: next(iter(models.generate(model, tokenizer, [p], 48))).ids for i, p in enumerate(prompts)}
    assert together == alone


def test_the_report_adds_up(distilled: Distilled):
    report = json.loads((distilled.reports / "report.json").read_text())
    # graded before the export and after parity: the newest counts
    tuned = max(p for p in distilled.reports.glob("judge_run_*.jsonl") if p.name.count(".") == 1)
    sliced = {e.id for e in distilled.examples("test") if "slice" in e.metadata}
    verdicts = [v for v in read_jsonl(tuned, Verdict) if v.id not in sliced]
    scored = [v for v in verdicts if v.status == "scored"]
    assert report["slot_accuracy"] == pytest.approx(sum(bool(v.passed) for v in scored) / len(scored), abs=1e-4)
    assert report["n"] == len(distilled.examples("test")) - len(sliced)
    assert set(report["baselines"]) == {"untuned_base", "always_null"}
    assert 0.3 < report["baselines"]["always_null"]["slot_accuracy"] < 0.55
    assert "unseen_synonyms" in report["slices"]
    assert "not an LLM" in report["judge"]["label"]
    assert report["artifacts"]["gguf-q8_0"]["parity"]["same_json"] >= 0.8
    assert report["artifacts"]["gguf-f16"]["parity"]["same_json"] >= 0.98


def test_a_second_report_of_the_same_run_is_the_same(distilled: Distilled):
    before = (distilled.reports / "report.json").read_bytes()
    run_script(distilled.folder, "eval.report", "-r", distilled.name)
    assert (distilled.reports / "report.json").read_bytes() == before


def test_the_package_is_whole_and_answers(distilled: Distilled):
    run_script(distilled.folder, "package.verify", "-r", distilled.name)
    message = distilled.examples("test")[0].prompt
    options = ("-r", distilled.name, "--message", message)
    packaged = run_script(distilled.folder, "eval.chat", *options, "--artifact", "gguf-f16", check=None)
    in_process = run_script(distilled.folder, "eval.chat", *options, check=None)
    assert packaged.stdout.splitlines()[0] == in_process.stdout.splitlines()[0]
    assert packaged.returncode == in_process.returncode


def test_a_row_is_shown_slot_by_slot_beside_its_reference_as_the_judge_decided(distilled: Distilled):
    example = distilled.examples("test")[0]
    options = ("-r", distilled.name, "--example", example.id, "--compare")
    tuned, base = run_script(distilled.folder, "eval.chat", *options, check=None).stdout.split("-- base\n")
    judged = max(p for p in distilled.reports.glob("judge_run_*.jsonl") if p.name.count(".") == 1)
    wanted = {v.slot: v.passed for v in read_jsonl(judged, Verdict) if v.id == example.id and v.status == "scored"}
    # a mark of up to 13 characters, and the slot
    shown, of_base = (
        [(line[:14].strip(), line[14:].split(": want ")[0].strip()) for line in text.splitlines() if ": want " in line]
        for text in (tuned, base)
    )
    assert tuned.startswith("-- tuned\n")
    assert {slot: mark == "ok" for mark, slot in shown if mark in ("ok", "WRONG")} == wanted
    assert {slot for _, slot in shown} <= {slot for _, slot in of_base}


def test_an_interrupted_training_goes_on(distilled: Distilled):
    name = "interrupted"
    run_script(distilled.folder, "train.prepare", "-r", name, "-o", "sft.max_steps=6")
    command = [sys.executable, "-m", "scripts.train.run", "-r", name]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
    started = subprocess.Popen(command, cwd=distilled.folder, env=environment, stdout=subprocess.PIPE, text=True)
    for line in started.stdout:
        if line.startswith("train: training"):
            started.send_signal(signal.SIGINT)
            break
    output = started.stdout.read()
    assert started.wait(120) == BUSY
    assert "Run fab train.run -r interrupted to go on" in output
    assert not (distilled.folder / "models" / name / "metrics.json").exists()
    assert "going on from" in run_script(distilled.folder, "train.run", "-r", name).stdout
    metrics = json.loads((distilled.folder / "models" / name / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert not (distilled.folder / "models" / name / "checkpoints").exists()
    shutil.rmtree(distilled.folder / "models" / name)


def test_a_killed_generation_goes_on_and_loses_nothing(distilled: Distilled):
    out, ledger = distilled.reports / "predictions.train.jsonl", distilled.reports / ".predictions.train.ledger"
    options = ["-r", distilled.name, "--split", "train", "--filter", "task=t2_repair"]
    command = [sys.executable, "-m", "scripts.eval.generate", *options]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    started = subprocess.Popen(command, cwd=distilled.folder, env=environment, stderr=subprocess.DEVNULL)
    while not done(ledger) and started.poll() is None:
        time.sleep(0.05)
    started.kill()
    started.wait()
    before = done(ledger)
    wanted = [e.id for e in distilled.examples("train") if e.task == "t2_repair"]
    assert 0 < before < len(wanted)
    assert not out.exists()
    run_script(distilled.folder, "eval.generate", *options)
    assert [p.id for p in read_jsonl(out, Prediction)] == wanted
    assert not list(distilled.reports.glob(".predictions.train.ledger*"))
    out.unlink()


def done(ledger: Path) -> int:
    import sqlite3

    if not ledger.exists():
        return 0
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
        try:
            return connection.execute("SELECT count(*) FROM items WHERE state = 'done'").fetchone()[0]
        except sqlite3.OperationalError:
            return 0


def test_lora_trains_merges_and_packages_alike(distilled: Distilled):
    name = "lora"
    run_script(distilled.folder, "train.prepare", "-r", name, "-c", "nano-lora", "-o", "sft.max_steps=4")
    run_script(distilled.folder, "train.run", "-r", name)
    assert (distilled.folder / "models" / name / "adapter/adapter_model.safetensors").is_file()
    run_script(distilled.folder, "eval.generate", "-r", name, "--limit", "4")
    run_script(distilled.folder, "package.export", "-r", name)
    run_script(distilled.folder, "package.verify", "-r", name)
    shutil.rmtree(distilled.folder / "models" / name)


def test_a_changed_snapshot_is_refused_by_name(distilled: Distilled):
    path = distilled.folder / "data/processed/batfit/test.v1.jsonl"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"a", b"b", 1))
    try:
        refused = run_script(distilled.folder, "eval.generate", "-r", distilled.name, check=DATA)
        assert "test.v1.jsonl was changed after the split" in refused.stderr
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("dataset.clean", "-w", "batfitt"), USAGE, "Did you mean 'batfit'"),
        (("train.prepare", "-o", "sft.learning_rat=1"), USAGE, "Did you mean 'learning_rate'"),
        (("train.prepare", "-o", "sft.max_length=16"), DATA, "no row fits into max_length 16"),
        (("train.prepare", "-o", "base=google/gemma-3-270m-it"), 69, "the network is off"),
        (("train.prepare", "-o", "base=no/such/base"), USAGE, "neither nano, nor a folder"),
        (("train.prepare", "-r", "../outside"), USAGE, "is no run name"),
        (("eval.generate", "-r", "none"), DATA, "models/none/run.json is not there"),
        (("eval.generate", "--filter", "task=other"), DATA, "no row of the snapshot has task=other"),
        (("eval.chat", "--task", "t3"), USAGE, "has no task 't3'"),
        (("eval.chat", "--artifact", "awq"), DATA, "artifacts that do: gguf-f16, gguf-q8_0"),
        (("eval.chat", "--example", "nobody"), DATA, "no row 'nobody' in the snapshots of"),
    ],
)
def test_a_users_mistake_is_one_clear_line(distilled: Distilled, arguments, code: int, message: str):
    before = {p for p in distilled.folder.rglob("*") if ".lock" not in p.name}
    refused = run_script(distilled.folder, *arguments, check=code)
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert {p for p in distilled.folder.rglob("*") if ".lock" not in p.name} == before


def test_a_row_of_no_loss_is_never_trained_on(distilled: Distilled):
    tokenizer = models.load_tokenizer(REPO / "models/nano")
    kept, _ = rows.training_rows(distilled.examples("train"), tokenizer, 512)
    assert all(any(label != rows.IGNORED for label in row["labels"]) for row in kept)


CHECKPOINTING = """
from potstill import runs
from potstill.training import load

record, settings = runs.read("small"), runs.resolved_config("small")
for wanted in (False, True):
    sft = settings.sft.model_copy(update={"gradient_checkpointing": wanted})
    model, _ = load(record, settings.model_copy(update={"sft": sft}))
    print("checkpointing", wanted, model.is_gradient_checkpointing)
"""


def test_activations_are_computed_twice_only_where_the_config_says_so(distilled: Distilled):
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", CHECKPOINTING]
    done = subprocess.run(command, cwd=distilled.folder, env=environment, capture_output=True, text=True, check=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("checkpointing")]
    assert told == ["checkpointing False False", "checkpointing True True"]


def test_both_sides_of_a_comparison_can_be_timed(distilled: Distilled):
    told = run_script(distilled.folder, "eval.compare", "-a", f"{distilled.name}:gguf-q8_0", "--samples", "2").stdout
    assert "over 2 prompts one by one" in told
    found = json.loads(
        (distilled.reports / f"compare_{distilled.name}@gguf-q8_0_{distilled.name}@base.json").read_text()
    )
    assert {side: own["samples"] for side, own in found["speed"].items()} == {"a": 2, "b": 2}
    assert found["speed"]["a"]["bytes"] < found["speed"]["b"]["bytes"]
    assert all(
        own["tokens_per_s"] > 0 and own["latency_ms"]["p95"] >= own["latency_ms"]["p50"] > 0
        for own in found["speed"].values()
    )
    wrong = run_script(distilled.folder, "eval.compare", "-a", f"{distilled.name}:null", "--samples", "2", check=USAGE)
    assert "null cannot be timed here" in wrong.stderr
