"""The trainer's companions: batches, progress, MLflow, and a clean stop on a signal. Imported after unsloth."""

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import TrainerCallback

from potstill import tracking
from potstill.rows import IGNORED
from potstill.runs import RunRecord, TrainConfig

LINE_INTERVAL_S = 5.0
# a new width costs a CPU's matrix library a new kernel: few widths are worth a little padding
WIDTH = 32


def collator(tokenizer: Any) -> Any:
    """Pads rows on the right. Padding is neither attended to nor trained on."""

    def collate(features: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = -(-max(len(f["input_ids"]) for f in features) // WIDTH) * WIDTH
        ids = torch.full((len(features), width), tokenizer.pad_token_id)
        labels = torch.full((len(features), width), IGNORED)
        mask = torch.zeros((len(features), width), dtype=torch.long)
        for row, feature in enumerate(features):
            n = len(feature["input_ids"])
            ids[row, :n] = torch.tensor(feature["input_ids"])
            labels[row, :n] = torch.tensor(feature["labels"])
            mask[row, :n] = 1
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    return collate


def in_halves(trainer_class: Any) -> Any:
    """The trainer class for a CPU: it learns from the two halves of a batch at once, each with half of torch's threads.

    Small operations gain little from many threads, and wait for all of them: next to another busy program a step takes
    ten times as long. The gradient is that of the whole batch, and the same in every run: of two summands the order
    does not matter.
    """

    class InHalves(trainer_class):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            step, rows = super().training_step, len(inputs["labels"])
            if rows < 2 or num_items_in_batch is None:
                return step(model, inputs, num_items_in_batch)
            halves = [
                {name: value[cut] for name, value in inputs.items()}
                for cut in (slice(rows // 2), slice(rows // 2, None))
            ]
            with ThreadPoolExecutor(2) as pool:
                # each loss is divided by the tokens of the whole batch
                return sum(pool.map(lambda half: step(model, half, num_items_in_batch), halves))

    return InHalves


class Watch(TrainerCallback):
    """Shows progress, logs to MLflow, counts tokens, and turns the first SIGINT or SIGTERM into a saved checkpoint."""

    def __init__(self, record: RunRecord, settings: TrainConfig):
        self.tracking, self.run_id = tracking.start(record, settings)
        self.interrupted = False
        self.tokens = 0
        self._shown = self._started = 0.0
        self._first_step = 0
        self._loss: float | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def log(self, metrics: dict[str, float], step: int) -> None:
        tracking.log(self.tracking, self.run_id, metrics, step)

    def close(self, status: str) -> None:
        self.tracking.set_terminated(self.run_id, status)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = self._shown = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.interrupted:
            control.should_save = control.should_training_stop = True
        now = time.monotonic()
        if now - self._shown >= LINE_INTERVAL_S or state.global_step == state.max_steps:
            self._shown = now
            rate = (state.global_step - self._first_step) / (now - self._started)
            left = (state.max_steps - state.global_step) / rate
            loss = "" if self._loss is None else f"loss {self._loss:.3f}, "
            line = f"train: step {state.global_step} of {state.max_steps}, {loss}{left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self._loss = (logs or {}).get("loss", self._loss)
        self.tokens = int((logs or {}).get("num_tokens", self.tokens))
        numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, int | float)}
        self.log(numbers, state.global_step)

    def _stop(self, number: int, frame: Any) -> None:
        if self.interrupted:  # a second Ctrl-C does not wait for the step
            raise KeyboardInterrupt
        self.interrupted = True
        print("stopping after this step", file=sys.stderr, flush=True)
