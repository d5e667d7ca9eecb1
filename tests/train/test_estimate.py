"""What a run will take, and what happens where memory does not suffice."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from potstill import config, estimate, launching, runs
from potstill.runs import TrainConfig
from potstill.stop import UNAVAILABLE
from projects import REPO
from train_runs import prepare, run_step, small_project, steps_of

BATCH = {"sft.per_device_train_batch_size": 16, "sft.max_steps": 1, "sft.bf16": "false", "dtype": "float32"}
# bytes: enough for the program and a batch of 2, not for one of 16
MORE = str(900 * 1024**2)


def settings(name: str, *overrides: str) -> TrainConfig:
    return config.load(REPO / f"configs/train/{name}.yaml", TrainConfig, overrides)


def test_weights_are_counted_to_the_byte():
    shape = estimate.shape_of(REPO / "models/nano")
    model = AutoModelForCausalLM.from_pretrained(REPO / "models/nano")
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    assert shape.embedding + shape.layer_weights == matrices
    full = estimate.memory(settings("nano"), shape, 320, 0.4)
    assert full.gradients == 4 * matrices
    assert full.optimizer == 4 * (shape.layer_weights + 2 * shape.embedding)


def test_an_adapter_has_peft_s_number_of_weights():
    from peft import LoraConfig, get_peft_model

    lora = settings("nano-lora").lora
    assert lora is not None
    model = AutoModelForCausalLM.from_pretrained(REPO / "models/nano")
    adapted = get_peft_model(model, LoraConfig(**lora.model_dump()))
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert estimate.adapter_weights(estimate.shape_of(REPO / "models/nano"), lora) == trained


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (["sft.per_device_train_batch_size=4"], []),
        (["sft.gradient_checkpointing=true"], []),
        (["sft.max_length=320"], []),
        (["dtype=bfloat16"], ["dtype=float32"]),
    ],
)
def test_what_is_advised_needs_less(less, more):
    shape = estimate.shape_of(REPO / "models/nano")
    need = [
        estimate.memory(s, shape, s.sft.max_length, 0.4).total
        for s in (settings("nano", *less), settings("nano", *more))
    ]
    assert need[0] < need[1]


def test_an_adapter_s_batch_is_read_in_pieces_by_one_process_only():
    shape = estimate.shape_of(REPO / "models/nano")
    found = {
        (batch, processes): estimate.memory(
            settings("nano-lora", f"sft.per_device_train_batch_size={batch}"), shape, 512, 0.4, processes
        ).activations
        for batch in (4, 16)
        for processes in (1, 2)
    }
    assert found[4, 1] == found[16, 1] < found[4, 2]
    assert found[16, 2] == 4 * found[4, 2]


def test_advice_is_in_order_and_has_numbers():
    lines = estimate.advice(settings("nano"), str(REPO / "models/nano")).splitlines()
    assert [line.split(".")[0].strip() for line in lines[1:]] == [str(n) for n in range(1, len(lines))]
    assert "--auto-batch" in lines[1]
    assert "sft.gradient_accumulation_steps=2" in lines[1]
    assert all("GB" in line for line in lines[1:-1])


def test_prepare_writes_lengths_and_estimate_reads_them(project_folder: Path):
    folder = small_project(project_folder / "own")
    shown = prepare(folder, "r", **{"sft.max_steps": 7})
    lengths = json.loads((folder / "models/r/lengths.json").read_text())
    assert sum(rows for _, rows in lengths["train"]["histogram"]) == lengths["train"]["rows"] == 64
    assert f"padding in batches of 8: {lengths['train']['padding']:.1%}" in shown
    told = run_step(folder, "train.estimate", "-r", "r", "--measure", "--price-per-hour", "2")
    found = json.loads(told.splitlines()[-1])
    assert found["steps"] == found["measured_steps"] == 7
    assert "at 2 an hour" in told
    # on a busy machine time says little; memory is within a factor of two
    assert 0.5 < found["memory_bytes"] / found["measured_memory_bytes"] < 2
    # nothing is saved of it
    assert {path.name for path in (folder / "models/r").iterdir()} <= {
        *("run.json", "config.yaml", "refused.jsonl", "lengths.json"),
    }


def test_without_auto_batch_memory_that_does_not_suffice_ends_with_numbers_and_advice(project_folder: Path):
    folder = small_project(project_folder / "own", words=280, count=16)
    prepare(folder, "r", **BATCH)
    shown = run_step(folder, "train.run", "-r", "r", check=UNAVAILABLE, MORE_MEMORY=MORE)
    assert "r ran out of memory: a step of 16 rows of 640 tokens is estimated at" in shown
    assert "1. fab train.run --auto-batch" in shown
    assert not (folder / "models/r/config_changes.jsonl").exists()


def test_auto_batch_halves_the_batch_and_keeps_the_rows_of_a_step(project_folder: Path):
    folder = small_project(project_folder / "own", words=280, count=16)
    prepare(folder, "r", **BATCH)
    shown = run_step(folder, "train.run", "-r", "r", "--auto-batch", MORE_MEMORY=MORE, PYTHONPATH=str(REPO))
    assert "train: again with batches of 8, 16 rows to a step as before" in shown
    changes = [json.loads(line) for line in (folder / "models/r/config_changes.jsonl").read_text().splitlines()]
    batches = [c["new"] for c in changes if c["key"] == "sft.per_device_train_batch_size"]
    assert batches == [8, 4, 2, 1][: len(batches)]
    sft = config.load(folder / "models/r/config.yaml", TrainConfig).sft
    assert sft.per_device_train_batch_size == batches[-1]
    assert sft.per_device_train_batch_size * sft.gradient_accumulation_steps == 16
    (step,) = steps_of(folder, "r")
    assert len(step["lines"]) == 16


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_which_errors_say_that_memory_did_not_suffice(error, memory):
    assert launching.is_out_of_memory(error) is memory


def test_changes_are_named_key_by_key():
    old, new = settings("nano"), settings("nano", "sft.learning_rate=1.0e-3", "sft.save_steps=5")
    assert launching.changed_keys(old, new) == {"sft.learning_rate": (4e-3, 1e-3), "sft.save_steps": (100, 5)}
    assert launching.changed_keys(old, runs.TrainConfig.model_validate(old.model_dump())) == {}
