"""The trainer's companions: progress, MLflow, the best weights, a clean stop on a signal. Imported after unsloth."""

import signal
import sys
import time
from typing import Any

import torch
from transformers import TrainerCallback

from potstill import tracking
from potstill.runs import RunRecord, TrainConfig

LINE_INTERVAL_S = 5.0


class KeepBest(TrainerCallback):
    """Lets the val sample be answered every so many steps, and after the last; keeps the best weights, stops early.

    The first process asks, all hear whether to stop.
    """

    def __init__(self, every: int, val: Any, save: Any, log: Any):
        self.every, self.val, self.save, self.log = every, val, save, log

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        stop = torch.tensor(0, device=args.device)
        if args.process_index == 0:
            scores = self.val.ask(model, state.global_step)
            self.log({f"val_{name}": value for name, value in scores._asdict().items()}, state.global_step)
            if self.val.best()["step"] == state.global_step:
                self.save(model, self.val.best_weights())
            stop += int(self.val.exhausted())
        if args.world_size > 1:
            torch.distributed.broadcast(stop, 0)
        if stop:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.process_index == 0:
            self.val.prune()


class Watch(TrainerCallback):
    """Shows progress, logs to MLflow, and turns the first SIGINT or SIGTERM into a saved checkpoint.

    With several processes, the first one shows and logs; all stop together.
    """

    def __init__(self, record: RunRecord, settings: TrainConfig, first: bool = True):
        self.tracking: Any = None
        self.run_id = ""
        if first:
            self.tracking, self.run_id = tracking.start(record, settings)
        self.interrupted = False
        self.tokens = 0
        self._shown = self._started = self._logged = 0.0
        self._first_step = 0
        self._logged_tokens: int | None = None
        self._loss: float | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def log(self, metrics: dict[str, float], step: int) -> None:
        if self.tracking is not None:
            tracking.log(self.tracking, self.run_id, metrics, step)

    def close(self, status: str) -> None:
        if self.tracking is not None:
            self.tracking.set_terminated(self.run_id, status)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = self._shown = self._logged = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:
            flag = torch.tensor(int(self.interrupted), device=args.device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
            self.interrupted = bool(flag)
        if self.interrupted:
            control.should_save = control.should_training_stop = True
        now = time.monotonic()
        if args.process_index == 0 and (now - self._shown >= LINE_INTERVAL_S or state.global_step == state.max_steps):
            self._shown = now
            rate = (state.global_step - self._first_step) / (now - self._started)
            left = (state.max_steps - state.global_step) / rate
            loss = "" if self._loss is None else f"loss {self._loss:.3f}, "
            line = f"train: step {state.global_step} of {state.max_steps}, {loss}{left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self._loss = (logs or {}).get("loss", self._loss)
        numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, int | float)}
        if "loss" in numbers:
            numbers |= {"perplexity": tracking.perplexity(numbers["loss"]), **self._rates(numbers)}
        self.log(numbers, state.global_step)

    def _rates(self, numbers: dict[str, float]) -> dict[str, float]:
        """Tokens per second since the last log, and memory."""
        now, before, self.tokens = time.monotonic(), self._logged_tokens, int(numbers.get("num_tokens", 0))
        seconds, self._logged, self._logged_tokens = now - self._logged, now, self.tokens
        rates = {"memory_bytes": float(tracking.peak_memory_bytes())}
        # a run that was taken up counts on from what it had: its first log has no rate
        if before is not None and seconds > 0:
            rates["tokens_per_s"] = (self.tokens - before) / seconds
        return rates

    def _stop(self, number: int, frame: Any) -> None:
        if self.interrupted:  # a second Ctrl-C does not wait for the step
            raise KeyboardInterrupt
        self.interrupted = True
        print("stopping after this step", file=sys.stderr, flush=True)
