"""How a training run starts: alone or as several processes, after a change, and again after it ran out of memory."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import yaml

from potstill import estimate, project, runs
from potstill.checkpoints import Change, Checkpoint
from potstill.files import write_text
from potstill.runs import RunRecord, TrainConfig
from potstill.stop import BUG, BUSY, OK, UNAVAILABLE, USAGE, Stop

CHANGES = "config_changes.jsonl"
OUT_OF_MEMORY = ("can't allocate memory", "bad_alloc", "out of memory", "not enough memory")
# what a run may not change on the way: it decides which model learns from which rows in which order
FIXED = (
    *("base", "revision", "vocabulary", "vocabulary_reserve", "mode", "dtype", "lora", "loss_weights", "val_generate"),
    *("sft.max_length", "sft.optim", "sft.seed"),
)


def rank() -> int:
    """Which of the processes of a run this is; 0 shows, logs and saves."""
    return int(os.environ.get("RANK", "0"))


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch(run: str, count: int) -> int:
    """Trains in `count` processes of this machine, one to a GPU, and waits for them; returns the exit code.

    On a CPU torch's own launcher starts them: accelerate's asks for MPI there.
    """
    import torch

    program = ["-m", "scripts.train.run", "-r", run]
    if torch.cuda.is_available():
        if count > torch.cuda.device_count():
            raise Stop(f"--processes {count}: this machine has {torch.cuda.device_count()} GPUs.", UNAVAILABLE)
        starter = ["accelerate.commands.launch", "--multi_gpu", f"--num_processes={count}", "--main_process_port=0"]
    else:
        starter = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    child = subprocess.Popen([sys.executable, "-m", *starter, *program])
    stopped = False

    def stop(number: int, frame: Any) -> None:
        nonlocal stopped
        stopped = True
        child.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    child.wait()
    if runs.is_trained(run):
        return OK
    return BUSY if stopped else BUG


def check_taken_up(run: str, settings: TrainConfig, taken_up: Checkpoint | None) -> None:
    """Raises Stop 2 when the newest checkpoint was made with other rows to a step: its place in the data is another."""
    if taken_up is None:
        return
    old = rows_per_step(TrainConfig.model_validate(taken_up.settings)) * taken_up.processes
    new = rows_per_step(settings) * processes()
    if old != new:
        raise Stop(
            f"{run}: the checkpoint of step {taken_up.step} was made with {old} rows to a step by {taken_up.processes} "
            f"processes, and this would be {new}. Give as many --processes, or change the batch with fab train.resume.",
            USAGE,
        )


def rows_per_step(settings: TrainConfig) -> int:
    return settings.sft.per_device_train_batch_size * settings.sft.gradient_accumulation_steps


def changed_keys(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old value, new value) of what differs."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    keys = sorted(before.keys() | after.keys())
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def allow(run: str, old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """The changes. Raises Stop 2 for one that a run may not make on the way."""
    changes = changed_keys(old, new)
    for key in changes:
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
            raise Stop(
                f"{run}: {key} cannot change on the way: it decides what learns from which rows. "
                f"Prepare a new run: fab train.prepare -o {key}=...",
                USAGE,
            )
    if rows_per_step(old) != rows_per_step(new):
        raise Stop(
            f"{run}: {rows_per_step(old)} rows make a step, and the change would make it {rows_per_step(new)}. Change "
            "per_device_train_batch_size and gradient_accumulation_steps so that their product stays.",
            USAGE,
        )
    return changes


def record(run: str, step: int, changes: dict[str, tuple[Any, Any]], settings: TrainConfig | None = None) -> None:
    """Notes changes in models/<run>/config_changes.jsonl, then makes `settings` the run's resolved config."""
    folder, now = project.run_folder(run), datetime.now(UTC).isoformat(timespec="seconds")
    with open(folder / CHANGES, "a", encoding="utf-8") as file:
        for key, (old, new) in changes.items():
            file.write(Change(at=now, step=step, key=key, old=old, new=new).model_dump_json() + "\n")
        file.flush()
        os.fsync(file.fileno())
    if settings is not None:
        write_config(folder, settings)


def write_config(folder: Path, settings: TrainConfig) -> None:
    path = folder / "config.yaml"
    # the first line says where the config came from
    head = path.read_text(encoding="utf-8").splitlines()[0]
    text = yaml.safe_dump(settings.model_dump(exclude_none=True), sort_keys=False)
    write_text(path, f"{head}\n{text}" if head.startswith("#") else text)


def device() -> str:
    """What is trained on, in words, as in run.json."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"


def note_device(run: RunRecord, taken_up: Checkpoint | None) -> None:
    """Notes that another device goes on with what one began: numbers may differ in the last digits."""
    before, step = (taken_up.device, taken_up.step) if taken_up else (run.device, 0)
    if before != device():
        record(run.run, step, {"device": (before, device())})
        print(f"train: up to step {step} on {before}, from here on {device()}", flush=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice: Python's, a GPU's, or the allocator's on a CPU."""
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or any(words in str(error) for words in OUT_OF_MEMORY)


def after_out_of_memory(run: str, settings: TrainConfig, auto_batch: bool) -> NoReturn:
    """Starts the run again with half the batch where that is wanted and possible; else raises Stop 69 with advice."""
    sft, half = settings.sft, settings.sft.per_device_train_batch_size // 2
    base = runs.read(run).base.path
    told = f"{run} ran out of memory: {estimate.memory_line(settings, base, processes=processes())}"
    if not auto_batch or processes() > 1 or sft.per_device_train_batch_size % 2:
        raise Stop(f"{told}\n{estimate.advice(settings, base, processes())}", UNAVAILABLE)
    update = {
        "per_device_train_batch_size": half,
        "gradient_accumulation_steps": 2 * sft.gradient_accumulation_steps,
        "per_device_eval_batch_size": max(1, min(sft.per_device_eval_batch_size, half)),
    }
    new = settings.model_copy(update={"sft": sft.model_copy(update=update)})
    from potstill import checkpoints

    found = checkpoints.newest(project.run_folder(run) / "checkpoints")
    record(run, found[1].step if found else 0, changed_keys(settings, new), new)
    print(f"{told}\ntrain: again with batches of {half}, {rows_per_step(new)} rows to a step as before", flush=True)
    # a new program: nothing of what filled the memory is left, and the lock is given back and taken again
    os.execv(sys.executable, [sys.executable, "-m", "scripts.train.run", "-r", run, "--auto-batch"])  # noqa: S606


def _flat(values: dict[str, Any], head: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{head}{key}.")
        elif value is not None:
            found[head + key] = value
    return found
