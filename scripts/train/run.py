"""Fine-tunes a prepared run with Unsloth and TRL: LoRA, QLoRA or full, on a GPU or a CPU.

Run: python -m scripts.train.run -r <run> [--processes 2] [--auto-batch]        (or: fab train.run -r <run>)
Interrupted with Ctrl-C it saves a checkpoint; killed or interrupted, the same command goes on from the newest whole one
as if nothing had been. train.resume goes on with a changed config. See docs/training.md.
"""

import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from potstill import checkpoints, cli, launching, project, rows, runs, snapshots, tracking
from potstill.checkpoints import Checkpoint
from potstill.files import stage_lock, write_json
from potstill.models import TOKENIZER_FILES
from potstill.records import Example
from potstill.runs import RunRecord, TrainConfig
from potstill.stop import BUSY, DATA, OK, Stop


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument("--processes", type=int, default=1, help="on several GPUs of this machine, one process each")
    parser.add_argument("--auto-batch", action="store_true", help="out of memory: halve the batch, keep a step's rows")
    arguments = parser.parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    if runs.is_trained(run):
        print(f"{run} is trained already; prepare a new run to train again")
        return OK
    if arguments.processes > 1 and launching.processes() == 1:
        return launching.launch(run, arguments.processes)
    record, settings, folder = runs.read(run), runs.resolved_config(run), project.run_folder(run)
    with stage_lock(folder, "train") if launching.rank() == 0 else nullcontext():
        try:
            metrics = train(record, settings, folder)
        except (MemoryError, RuntimeError) as error:
            if not launching.is_out_of_memory(error):
                raise
            launching.after_out_of_memory(run, settings, arguments.auto_batch)
    if metrics is None:
        if launching.rank() == 0:
            print(f"stopped; a checkpoint is in {folder / 'checkpoints'}. Run fab train.run -r {run} to go on.")
        return BUSY
    if launching.rank() == 0:
        show(metrics, [folder / weights_name(settings), folder / "metrics.json"], run)
    return OK


def show(metrics: dict[str, Any], wrote: list[Path | str], run: str) -> None:
    best = f", val slots {metrics['val_slot_accuracy']:.1%}" if "val_slot_accuracy" in metrics else ""
    told = f"loss {metrics['train_loss']:.4f}, val loss {metrics['eval_loss']:.4f}{best}"
    print(f"{told}, {metrics['tokens_per_s']:.0f} tokens/s")
    cli.done(wrote, f"fab eval.generate -r {run}")


def train(record: RunRecord, settings: TrainConfig, folder: Path) -> dict[str, Any] | None:
    """Trains to the end and saves; None when it was interrupted."""
    tracking.require(settings)
    found = checkpoints.newest(folder / "checkpoints")
    where, taken_up = found if found else (None, None)
    launching.check_taken_up(record.run, settings, taken_up)
    if launching.rank() == 0:
        print("train: loading Unsloth", flush=True)
    from potstill.training import load, make_trainer

    model, tokenizer = load(record, settings)
    # after unsloth, which patches what it builds on
    from potstill.callbacks import Watch

    snapshot, val_rows = (list(snapshots.read(record.snapshots[split])) for split in ("train", "val"))
    train_rows = rows.weighted(snapshot, settings.sft.seed)
    datasets = {
        "train": dataset(train_rows, snapshot, tokenizer, settings, record),
        # evaluation is not weighted, so that the losses of runs can be compared
        "val": dataset(val_rows, val_rows, tokenizer, settings.model_copy(update={"loss_weights": None}), record),
    }
    first = launching.rank() == 0
    if first:
        launching.note_device(record, taken_up)
    watch = Watch(record, settings, first)
    trainer = make_trainer(model, tokenizer, settings, folder, datasets, watch, taken_up)
    keeper = keep_best(settings, folder, tokenizer, val_rows, record, watch, taken_up)
    if keeper is not None:
        trainer.add_callback(keeper)
    if first:
        print(f"going on from {where}" if where else f"train: training on {len(train_rows)} rows", flush=True)
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=str(where) if where else None)
    if watch.interrupted:
        watch.close("KILLED")
        return None
    elapsed_s = time.monotonic() - started
    chosen = put_back_best(trainer, keeper)
    metrics = {**summary(trainer, elapsed_s), **chosen}
    if first:
        finish(model, record, settings, folder, metrics, watch, trainer.state.global_step)
    return metrics


def finish(
    model: Any, record: RunRecord, settings: TrainConfig, folder: Path, metrics: dict[str, Any], watch: Any, step: int
) -> None:
    """Saves the weights, and last of all the metrics that say the run is complete."""
    save(model, Path(record.base.path), folder / weights_name(settings))
    watch.log(metrics, step)
    watch.close("FINISHED")
    write_json(folder / "metrics.json", metrics)
    # the optimizer's state is of no use to a finished run
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def dataset(
    examples: list[Example], snapshot: list[Example], tokenizer: Any, settings: TrainConfig, record: RunRecord
) -> Any:
    """Rows as token ids, each with its line in the snapshot's file: a row that counts twice is there twice."""
    from datasets import Dataset

    lines = {example.id: number for number, example in enumerate(snapshot, 1)}
    kept = []
    for example in examples:
        found, _ = rows.training_rows([example], tokenizer, settings.sft.max_length, settings.loss_weights)
        kept += [{**row, "line": lines[example.id]} for row in found]
    if not kept:
        raise Stop(f"run {record.run}: no row fits into max_length {settings.sft.max_length}.", DATA)
    return Dataset.from_list(kept)


def keep_best(
    settings: TrainConfig,
    folder: Path,
    tokenizer: Any,
    examples: list[Example],
    record: RunRecord,
    watch: Any,
    taken_up: Checkpoint | None,
) -> Any:
    """The callback that answers val rows in the midst of training; None where the config has no val_generate."""
    if settings.val_generate is None:
        return None
    from potstill import val_generation
    from potstill.callbacks import KeepBest

    asked = val_generation.sample(examples, settings.val_generate.rows, settings.sft.seed)
    val = val_generation.ValGeneration(settings.val_generate, folder, tokenizer, asked, record.workload)
    if launching.rank() == 0:
        val.take_up(taken_up.step if taken_up else 0)
    base = Path(record.base.path)
    return KeepBest(settings.val_generate.every, val, lambda model, target: save(model, base, target), watch.log)


def put_back_best(trainer: Any, keeper: Any) -> dict[str, Any]:
    """Makes the best weights the model's, and returns what metrics.json says of them."""
    if keeper is None:
        return {}
    # the first process asked, all have the same weights in the end
    keeper.val.reload()
    row = keeper.val.best()
    if row["step"] != trainer.state.global_step:
        from potstill.val_generation import put_back

        put_back(trainer.model, keeper.val.best_weights())
    scores = {f"val_{name}": value for name, value in row.items() if name != "step"}
    return {"best_step": row["step"], **scores, "stopped_early": trainer.state.global_step < trainer.state.max_steps}


def summary(trainer: Any, elapsed_s: float) -> dict[str, Any]:
    """What metrics.json says. Time and tokens per second are of this start, not of those that were interrupted."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    eval_loss = trainer.evaluate()["eval_loss"]
    return {
        "train_loss": losses[-1] if losses else float("nan"),
        "eval_loss": eval_loss,
        "eval_perplexity": tracking.perplexity(eval_loss),
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "train_s": elapsed_s,
        "tokens_per_s": (trainer.step_log.tokens if trainer.step_log else 0) / elapsed_s,
        "peak_memory_bytes": tracking.peak_memory_bytes(),
    }


def weights_name(settings: TrainConfig) -> str:
    return "model" if settings.mode == "full" else "adapter"


def save(model: Any, base: Path, target: Path) -> None:
    """Saves beside and renames, so that what has the name is whole. A full model gets the base's tokenizer."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    if (partial / "config.json").is_file():
        # the generation config too: training aligns the stop tokens to the tokenizer's own
        for file in (base / name for name in (*TOKENIZER_FILES, "generation_config.json")):
            if file.is_file():
                shutil.copyfile(file, partial / file.name)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


if __name__ == "__main__":
    cli.run(main)
