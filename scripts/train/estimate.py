"""What a prepared run will take here: memory, time and cost, from its shapes, and from 20 real steps with --measure.

Run: python -m scripts.train.estimate -r <run> [--measure] [--price-per-hour 2.5]
     fab -H gpu train.estimate -r <run>       estimates on that host what it would take there
Nothing is saved: the measured steps are thrown away. See docs/training.md.
"""

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from potstill import cli, estimate, project, runs, tracking
from potstill.estimate import GB
from potstill.runs import RunRecord, TrainConfig
from potstill.stop import DATA, Stop

STEPS = 20
# the first steps choose kernels and touch memory for the first time
WARM_UP = 3


class Load(NamedTuple):
    """What a run reads: rows of an epoch, mean and longest tokens of a row, and the share that the loss is on."""

    rows: int
    mean: float
    longest: int
    answer: float
    padding: float


def main(argv: list[str] | None = None) -> None:
    parser = cli.parser(__doc__, run=True)
    parser.add_argument("--measure", action="store_true", help=f"trains {STEPS} steps and throws them away")
    parser.add_argument("--price-per-hour", type=float, help="of the machine, in whatever money")
    parser.add_argument("--processes", type=int, default=1, help="as train.run's")
    arguments = parser.parse_args(argv)
    run = project.find_run(cli.workload_name(arguments), arguments.run)
    record, settings, folder = runs.read(run), runs.resolved_config(run), project.run_folder(run)
    load = load_of(folder, run)
    predicted = predict(settings, record.base.path, load, arguments.processes)
    report(run, predicted, arguments.price_per_hour, "predicted")
    if arguments.measure:
        measured = measure(record, settings, load)
        report(run, {**predicted, **measured}, arguments.price_per_hour, f"after {STEPS} measured steps")
        predicted = {**predicted, **{f"measured_{key}": value for key, value in measured.items()}}
    print(json.dumps({key: value for key, value in predicted.items() if key != "parts"}))


def load_of(folder: Path, run: str) -> Load:
    path = folder / "lengths.json"
    if not path.is_file():
        raise Stop(f"{path} is not there: {run} was prepared before it was written. Run fab train.prepare anew.", DATA)
    found = json.loads(path.read_text(encoding="utf-8"))["train"]
    share = found["trained_tokens"] / (found["mean"] * found["rows"])
    return Load(found["effective"], found["mean"], found["longest"], share, found["padding"])


def predict(settings: TrainConfig, base: str, load: Load, processes: int) -> dict[str, Any]:
    """Memory of one process in bytes, seconds of a step and of the run; and the parts of the memory."""
    import torch

    shape, sft = estimate.shape_of(base), settings.sft
    memory = estimate.memory(settings, shape, load.longest, load.answer, processes)
    rows = sft.per_device_train_batch_size * sft.gradient_accumulation_steps
    steps = math.ceil(load.rows / (rows * processes)) * sft.num_train_epochs
    steps = math.ceil(steps if sft.max_steps < 0 else sft.max_steps)
    tokens = rows * load.mean
    computed = estimate.operations(settings, shape, tokens / (1 - load.padding), load.mean, load.answer)
    dtype = torch.bfloat16 if sft.bf16 or settings.dtype == "bfloat16" else torch.float32
    at_once = round(sft.per_device_train_batch_size * load.mean)
    step_s = computed / (estimate.machine_speed(shape, at_once, dtype) * estimate.reached(settings))
    return {
        "memory_bytes": memory.total,
        "step_s": step_s,
        "tokens_per_s": tokens / step_s,
        "steps": steps,
        "run_s": steps * step_s,
        "parts": memory._asdict(),
    }


def measure(record: RunRecord, settings: TrainConfig, load: Load) -> dict[str, Any]:
    """Trains STEPS steps of the run as it is in a folder that goes away, and says what they took."""
    from potstill import rows, snapshots
    from potstill.training import load as load_model
    from potstill.training import make_trainer
    from scripts.train.run import dataset

    model, tokenizer = load_model(record, settings)
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.times.append(time.perf_counter())
            control.should_save = False
            control.should_training_stop = state.global_step >= STEPS

    snapshot = list(snapshots.read(record.snapshots["train"]))
    chosen = rows.weighted(snapshot, settings.sft.seed)
    found = dataset(chosen, snapshot, tokenizer, settings, record)
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="potstill-estimate-") as name:
        trainer = make_trainer(model, tokenizer, settings, Path(name), {"train": found, "val": found}, clock)
        trainer.train()
        read = [json.loads(line)["tokens"] for line in (Path(name) / "steps.jsonl").read_text().splitlines()]
    warm = min(WARM_UP, len(clock.times) - 1)
    seconds = clock.times[-1] - clock.times[warm - 1] if warm else float("nan")
    rate = sum(read[warm:]) / seconds
    # rows of the first steps are longer than most: their rate counts, not their number
    step_s = settings.sft.per_device_train_batch_size * settings.sft.gradient_accumulation_steps * load.mean / rate
    steps = trainer.state.max_steps
    return {
        "memory_bytes": tracking.peak_memory_bytes(),
        "step_s": step_s,
        "tokens_per_s": rate,
        "steps": steps,
        "run_s": steps * step_s,
    }


def report(run: str, found: dict[str, Any], price: float | None, how: str) -> None:
    cost = "" if price is None else f", {price * found['run_s'] / 3600:.2f} at {price:g} an hour"
    print(
        f"{run}, {how}: {found['memory_bytes'] / GB:.2f} GB, {found['tokens_per_s']:.0f} tokens/s, "
        f"{found['steps']} steps in {found['run_s'] / 60:.1f} min{cost}"
    )
    if how == "predicted":
        print("  memory: " + ", ".join(f"{name} {value / GB:.2f} GB" for name, value in found["parts"].items()))


if __name__ == "__main__":
    cli.run(main)
