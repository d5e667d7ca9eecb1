"""The contenders of benchmarks/train.py throughput, one to a program: python -m benchmarks.train_peers <name> <steps>

Every contender reads the same rows twice. Tokens per second count what is read without padding, the second time: the
first touches memory and chooses kernels. `reference` is a plain loop of transformers, PEFT and AdamW over the rows that
ours read.
"""

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.train_peers import BATCH, LENGTH
from potstill import memory, models, project, prompt, runs, snapshots
from potstill.records import Example, read_jsonl

RANK = 16
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def run(name: str, steps: int) -> dict[str, Any]:
    project.go_offline()
    match name:
        case "unsloth":
            return documented(steps)
        case "trl":
            return packed()
        case "reference":
            return reference("exact")
    return ours(name)


class Clock:
    """Notes when a step ended; a transformers callback once mixed into its class."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(time.perf_counter())


def result(times: list[float], tokens: list[int], losses: list[float]) -> dict[str, Any]:
    """Timed is the second half of the steps: the second epoch."""
    half = len(times) // 2
    return {
        "tokens_per_s": sum(tokens[half:]) / (times[-1] - times[half - 1]),
        "tokens": tokens,
        "peak_bytes": memory.peak_bytes(),
        "losses": losses,
    }


def ours(run: str) -> dict[str, Any]:
    """A prepared run by the trainer of train.run, without what stands around it."""
    from potstill.training import load, make_trainer
    from scripts.train.run import dataset

    record, settings, folder = runs.read(run), runs.resolved_config(run), Path("models") / run
    model, tokenizer = load(record, settings)
    from transformers import TrainerCallback

    if settings.dtype == "float32":
        # what the reference begins with
        model.save_pretrained(folder / "first")
    snapshot = list(snapshots.read(record.snapshots["train"]))
    found = dataset(snapshot, snapshot, tokenizer, settings, record)
    clock = type("OurClock", (Clock, TrainerCallback), {})()
    make_trainer(model, tokenizer, settings, folder, {"train": found, "val": found}, clock).train()
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return result(clock.times, [row["tokens"] for row in steps], [row["loss"] for row in steps])


def reference(run: str) -> dict[str, Any]:
    """The same rows from the same first adapter, row by row, by a loop that any textbook has."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    record, folder = runs.read(run), Path("models") / run
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    base = AutoModelForCausalLM.from_pretrained(record.base.path, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "first", is_trainable=True)
    tokenizer = models.load_tokenizer(record.base.path)
    examples = list(read_jsonl(Path(record.snapshots["train"].file), Example))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
    losses, times, tokens = [], [], []
    for row in steps:
        rendered = [prompt.render(examples[line - 1], tokenizer) for line in row["lines"]]
        count, total = sum(len(one.completion_ids) for one in rendered), 0.0
        for one in rendered:
            ids = torch.tensor([[*one.prompt_ids, *one.completion_ids]])
            hidden = model.base_model.model.model(input_ids=ids).last_hidden_state
            logits = base.lm_head(hidden[0, len(one.prompt_ids) - 1 : -1])
            wanted = torch.tensor(one.completion_ids)
            loss = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum") / count
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.param_groups[0]["lr"] = row["learning_rate"]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        times.append(time.perf_counter())
        tokens.append(row["tokens"])
    return result(times, tokens, losses)


def chats(tokenizer: Any) -> list[dict[str, str]]:
    """The rows as the peers' documentation has them: texts with the template applied."""
    return [
        {
            "prompt": tokenizer.apply_chat_template(
                prompt.messages(row.system, row.prompt), add_generation_prompt=True, tokenize=False
            ),
            "completion": row.response + prompt.END_OF_TURN,
        }
        for row in read_jsonl(Path("data/processed/batfit/train.v1.jsonl"), Example)
    ]


def documented(steps: int) -> dict[str, Any]:
    """Unsloth as its notebooks have it: texts, padded batches in random order, its checkpointing, answers only."""
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", "models/.unsloth_cache")
    from unsloth import FastLanguageModel  # isort: skip
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from unsloth.chat_templates import train_on_responses_only

    model, tokenizer = FastLanguageModel.from_pretrained("base", max_seq_length=LENGTH, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(
        model,
        r=RANK,
        lora_alpha=2 * RANK,
        lora_dropout=0,
        bias="none",
        random_state=3407,
        use_gradient_checkpointing="unsloth",
        target_modules=MODULES,
    )
    texts = Dataset.from_list([{"text": row["prompt"] + row["completion"]} for row in chats(tokenizer)])
    arguments = SFTConfig(
        dataset_text_field="text",
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=1,
        warmup_steps=0,
        max_steps=2 * steps,
        learning_rate=2e-4,
        logging_steps=1,
        optim="adamw_8bit",
        weight_decay=0.001,
        lr_scheduler_type="linear",
        seed=3407,
        report_to="none",
        output_dir="unsloth",
        save_strategy="no",
    )
    trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=texts, args=arguments)
    trainer = train_on_responses_only(
        trainer, instruction_part="<start_of_turn>user\n", response_part="<start_of_turn>model\n"
    )
    return by_trl(trainer, TrainerCallback)


def packed() -> dict[str, Any]:
    """TRL by itself, rows packed into full batches. On a CPU its fused loss needs Triton's interpreter."""
    os.environ["TRITON_INTERPRET"] = "1"
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        packing=True,
        max_length=LENGTH,
        per_device_train_batch_size=1,
        # minutes to a step
        max_steps=4,
        learning_rate=2e-4,
        logging_steps=1,
        warmup_steps=0,
        report_to="none",
        output_dir="trl",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
    )
    tokenizer = models.load_tokenizer("base")
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained("base", dtype=torch.bfloat16),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(chats(tokenizer)),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=MODULES, task_type="CAUSAL_LM"),
    )
    return by_trl(trainer, TrainerCallback)


def by_trl(trainer: Any, callback: Any) -> dict[str, Any]:
    clock = type("PeerClock", (Clock, callback), {})()
    trainer.add_callback(clock)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    totals = [0, *(int(entry["num_tokens"]) for entry in logged)]
    tokens = [after - before for before, after in itertools.pairwise(totals)]
    return result(clock.times, tokens, [entry["loss"] for entry in logged])
