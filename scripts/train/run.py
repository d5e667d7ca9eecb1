"""Fine-tunes a prepared run with Unsloth and TRL: LoRA or full, on a GPU or a CPU.

Run: python -m scripts.train.run -r <run>        (or: fab train.run -r <run>)
Interrupted with Ctrl-C it saves a checkpoint; running it again goes on from the newest complete one.
"""

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from potstill import cli, project, rows, runs, snapshots
from potstill.files import stage_lock, write_json
from potstill.models import TOKENIZER_FILES
from potstill.runs import RunRecord, TrainConfig
from potstill.stop import BUSY, DATA, OK, Stop

# tokens. On a CPU, the fused attention's backward pass takes twice as long as the plain one's, which takes memory by
# the square of the length
PLAIN_ATTENTION_UP_TO = 1024


def main(argv: list[str] | None = None) -> int:
    arguments = cli.parser(__doc__, run=True).parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record, settings, folder = runs.read(run), runs.resolved_config(run), project.run_folder(run)
    if runs.is_trained(run):
        print(f"{run} is trained already; prepare a new run to train again")
        return OK
    with stage_lock(folder, "train"):
        metrics = train(record, settings, folder)
    if metrics is None:
        print(f"stopped; a checkpoint is in {folder / 'checkpoints'}. Run fab train.run -r {run} to go on.")
        return BUSY
    weights = folder / ("model" if settings.mode == "full" else "adapter")
    print(
        f"loss {metrics['train_loss']:.4f}, val loss {metrics['eval_loss']:.4f}, {metrics['tokens_per_s']:.0f} tokens/s"
    )
    cli.done([weights, folder / "metrics.json"], f"fab eval.generate -r {run}")
    return OK


def train(record: RunRecord, settings: TrainConfig, folder: Path) -> dict[str, float] | None:
    """Trains to the end and saves; None when it was interrupted."""
    print("train: loading Unsloth", flush=True)
    model, tokenizer = load(record, settings)
    from potstill.training import Watch, collator

    train_rows = rows.weighted(snapshots.read(record.snapshots["train"]), settings.sft.seed)
    datasets = {
        "train": dataset(train_rows, tokenizer, settings, record),
        "val": dataset(list(snapshots.read(record.snapshots["val"])), tokenizer, settings, record),
    }
    watch = Watch(record, settings)
    trainer = make_trainer(model, tokenizer, settings, folder, datasets, collator(tokenizer), watch)
    checkpoint = newest_checkpoint(folder)
    if checkpoint:
        print(f"going on from {checkpoint}", flush=True)
    print(f"train: training on {len(train_rows)} rows", flush=True)
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.interrupted:
        watch.close("KILLED")
        return None
    elapsed_s = time.monotonic() - started
    metrics = summary(trainer, watch, elapsed_s)
    save(model, Path(record.base.path), folder, "model" if settings.mode == "full" else "adapter")
    watch.log(metrics, trainer.state.global_step)
    watch.close("FINISHED")
    write_json(folder / "metrics.json", metrics)
    # the optimizer's state is of no use to a finished run
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return metrics


def load(record: RunRecord, settings: TrainConfig) -> tuple[Any, Any]:
    # unsloth must be imported before trl and transformers, which it patches, and writes its cache into the folder
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(project.MODELS / ".unsloth_cache"))
    # the same seed should give the same weights: no library may choose its threads anew by load
    os.environ.update(MKL_DYNAMIC="FALSE", OMP_DYNAMIC="FALSE")
    from unsloth import FastLanguageModel  # isort: skip
    import torch

    from potstill.models import load_tokenizer

    torch.manual_seed(settings.sft.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # overwrites memory before it is used: 7% of a step on a CPU
    torch.utils.deterministic.fill_uninitialized_memory = False
    # Unsloth computes activations twice unless it is told not to
    checkpointing: Any = "unsloth" if settings.sft.gradient_checkpointing else False
    model, _ = FastLanguageModel.from_pretrained(
        record.base.path,
        max_seq_length=settings.sft.max_length,
        dtype=getattr(torch, settings.dtype),
        load_in_4bit=False,
        full_finetuning=settings.mode == "full",
        use_gradient_checkpointing=checkpointing,
    )
    if model.device.type == "cpu" and settings.sft.max_length <= PLAIN_ATTENTION_UP_TO:
        model.set_attn_implementation("eager")
    if settings.lora is not None:
        model = FastLanguageModel.get_peft_model(
            model,
            **settings.lora.model_dump(),
            use_gradient_checkpointing=checkpointing,
            random_state=settings.sft.seed,
        )
    # the tokenizer as every other stage reads it; Unsloth may change padding and template of its own
    return model, load_tokenizer(record.base.path)


def dataset(examples: list[Any], tokenizer: Any, settings: TrainConfig, record: RunRecord) -> Any:
    from datasets import Dataset

    kept, _ = rows.training_rows(examples, tokenizer, settings.sft.max_length)
    if not kept:
        raise Stop(f"run {record.run}: no row fits into max_length {settings.sft.max_length}.", DATA)
    return Dataset.from_list(kept)


def make_trainer(
    model: Any, tokenizer: Any, settings: TrainConfig, folder: Path, datasets: dict[str, Any], collate: Any, watch: Any
) -> Any:
    import torch
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from potstill.training import in_halves

    sft = settings.sft.model_dump()
    optimizer = None
    if settings.sft.optim == "muon":
        from potstill.muon import MuonAdamW

        sft["optim"] = "adamw_torch"  # what the trainer would make by itself
        optimizer = MuonAdamW(model, settings.sft.learning_rate, settings.sft.weight_decay, settings.sft.adam_beta2)
    arguments = SFTConfig(
        **sft,
        output_dir=str(folder / "checkpoints"),
        # rows come as token ids from potstill/prompt.py, so that training sees what serving sends
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        save_strategy="steps",
        save_total_limit=2,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_nan_inf_filter=False,
    )
    trainer_class: Any = SFTTrainer
    threads = torch.get_num_threads()
    if model.device.type == "cpu" and threads > 1 and not settings.sft.gradient_checkpointing:
        torch.set_num_threads(threads // 2)
        trainer_class = in_halves(SFTTrainer)
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=datasets["train"],
        eval_dataset=datasets["val"],
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[watch],
        optimizers=(optimizer, None),
    )
    # Watch shows the progress
    trainer.remove_callback(PrinterCallback)
    return trainer


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: transformers writes trainer_state.json last."""
    complete = filter(is_whole, folder.glob("checkpoints/checkpoint-*/trainer_state.json"))
    return max((p.parent for p in complete), key=lambda p: int(p.name.rpartition("-")[2]), default=None)


def is_whole(state: Path) -> bool:
    """Whether a kill did not come while the file itself was written."""
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def summary(trainer: Any, watch: Any, elapsed_s: float) -> dict[str, float]:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    eval_loss = trainer.evaluate()["eval_loss"]
    return {
        "train_loss": losses[-1] if losses else math.nan,
        "eval_loss": eval_loss,
        "eval_perplexity": math.exp(min(eval_loss, 50.0)),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_s": elapsed_s,
        "tokens_per_s": watch.tokens / elapsed_s,
    }


def save(model: Any, base: Path, folder: Path, name: str) -> None:
    """Saves beside and renames, so that a folder of that name is always whole."""
    partial = folder / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    if name == "model":
        # the generation config too: training aligns the stop tokens to the tokenizer's own
        for file in (base / name for name in (*TOKENIZER_FILES, "generation_config.json")):
            if file.is_file():
                shutil.copyfile(file, partial / file.name)
    shutil.rmtree(folder / name, ignore_errors=True)
    partial.rename(folder / name)


if __name__ == "__main__":
    cli.run(main)
