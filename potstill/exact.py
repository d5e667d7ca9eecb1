"""A trainer that can be killed at any time and goes on as if it had not been.

Its order of rows follows from seed and epoch, its checkpoints are whole or not there, and every step leaves a row in
steps.jsonl.
"""

from pathlib import Path
from typing import Any

from potstill import checkpoints
from potstill.batches import RowOrder
from potstill.checkpoints import Checkpoint, StepLog
from potstill.runs import TrainConfig

# what a parameter group has of the config
OWN = {"initial_lr", "weight_decay", "betas"}
# what a trainer class is to the mixin below: transformers is imported late, and untyped
TRAINER: Any = object


def exact(trainer_class: Any, folder: Path, settings: TrainConfig, taken_up: Checkpoint | None, used: str) -> Any:
    """The trainer class of a run in `folder`, on the device `used`; `taken_up` is where it goes on."""
    facts = {"folder": folder, "settings": settings, "taken_up": taken_up, "used": used}
    return type("ExactTrainer", (Exact, trainer_class), facts)


class Exact(TRAINER):
    """What `exact` puts before a trainer class of transformers."""

    folder: Path
    settings: TrainConfig
    taken_up: Checkpoint | None
    used: str

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        sft, world = self.settings.sft, self.args.world_size
        per_step = sft.per_device_train_batch_size * sft.gradient_accumulation_steps * world
        sizes = [len(ids) for ids in self.train_dataset["input_ids"]]
        self.row_order = RowOrder(sizes, per_step, sft.seed)
        self.step_log: StepLog | None = None
        if self.args.process_index == 0:
            self.step_log = StepLog(self.folder / "steps.jsonl", self.taken_up.step if self.taken_up else 0)
        self._step_loss: Any = 0.0
        self._step_tokens = 0
        self._step_lines: list[int] = []

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> RowOrder:
        return self.row_order

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        self.row_order.epoch = kwargs["epoch"]
        super()._run_epoch(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        lines, mask = inputs.pop("line"), inputs["attention_mask"]
        loss = super().training_step(model, inputs, num_items_in_batch)
        tokens, shown = mask.sum(), loss.detach().clone()
        if self.args.world_size > 1:
            gather = self.accelerator.gather
            lines, tokens, shown = gather(lines), gather(tokens).sum(), gather(shown).mean()
        self._step_loss = self._step_loss + shown
        self._step_tokens += int(tokens)
        self._step_lines += lines.tolist()
        if self.accelerator.sync_gradients:
            self._note_step()
        return loss

    def _note_step(self) -> None:
        if self.step_log is not None:
            rate = self.lr_scheduler.get_last_lr()[0]
            values = float(self._step_loss), rate, self._step_tokens, self._step_lines
            self.step_log.add(self.state.global_step + 1, *values)
        self._step_loss, self._step_tokens, self._step_lines = 0.0, 0, []

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        kept, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        if self.step_log is not None:
            checkpoints.partial(kept)
            self.step_log.sync()
        self.accelerator.wait_for_everyone()
        self.args.output_dir = str(kept / checkpoints.PARTIAL)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.output_dir = str(kept)
        self.accelerator.wait_for_everyone()
        if self.args.process_index == 0:
            facts = {
                "step": self.state.global_step,
                "processes": self.args.world_size,
                "device": self.used,
                "settings": self.settings.model_dump(),
            }
            checkpoints.seal(kept / checkpoints.PARTIAL / name, kept / name, facts)
            checkpoints.prune(kept)
        self.accelerator.wait_for_everyone()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # a checkpoint brings its learning rate, weight decay and betas along, and they would win without a word
        own = [{key: group[key] for key in OWN & group.keys()} for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.taken_up is not None and self.taken_up.settings != self.settings.model_dump():
            take_over(own, self.optimizer, self.lr_scheduler)


def take_over(own: list[dict[str, Any]], optimizer: Any, scheduler: Any) -> None:
    """Gives an optimizer and a scheduler that were loaded from a checkpoint the `own` values of a changed config."""
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)
    scheduler.base_lrs = [values["initial_lr"] for values in own]
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    scheduler._last_lr = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
    for group, rate in zip(optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate
