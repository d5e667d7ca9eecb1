"""The model and the trainer of a run: Unsloth's and TRL's, made so that a run can be killed at any time."""

import functools
import os
from pathlib import Path
from typing import Any

import torch

from potstill import batches, checkpoints, estimate, launching, loss_weights, project
from potstill.batches import RowOrder
from potstill.checkpoints import Checkpoint, StepLog
from potstill.lean import layers as lean_layers
from potstill.runs import RunRecord, TrainConfig

# matrix products that oneDNN remembers: those of a step. At 270M, the time to make them anew is not seen in a step's
KERNELS = 64
# what a parameter group has of the config
OWN = {"initial_lr", "weight_decay", "betas"}


def load(record: RunRecord, settings: TrainConfig) -> tuple[Any, Any]:
    """The model of a prepared run, ready to be trained, and its tokenizer."""
    # unsloth must be imported before trl and transformers, which it patches, and writes its cache into the folder
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(project.MODELS / ".unsloth_cache"))
    # the same seed should give the same weights: no library may choose its threads anew by load
    os.environ.update(MKL_DYNAMIC="FALSE", OMP_DYNAMIC="FALSE")
    if settings.lora is not None:
        # oneDNN keeps 20 MB of kernels for every width a 270M model has met, for good: 1,024 kernels by default
        for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
            os.environ.setdefault(name, str(KERNELS))
    from unsloth import FastLanguageModel  # isort: skip
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
        load_in_4bit=settings.mode == "qlora",
        full_finetuning=settings.mode == "full",
        use_gradient_checkpointing=checkpointing,
    )
    if model.device.type == "cpu" and settings.sft.max_length <= estimate.PLAIN_ATTENTION_UP_TO:
        model.set_attn_implementation("eager")
    if settings.lora is not None:
        model = FastLanguageModel.get_peft_model(
            model,
            **settings.lora.model_dump(),
            use_gradient_checkpointing=checkpointing,
            random_state=settings.sft.seed,
        )
        if lean(model, settings):
            lean_layers.install(model)
    # the tokenizer as every other stage reads it; Unsloth may change padding and template of its own
    return model, load_tokenizer(record.base.path)


def lean(model: Any, settings: TrainConfig) -> bool:
    """Whether potstill/lean can compute this model's layers."""
    config = model.config
    if config.model_type != "gemma3_text" or config.attention_bias or config.use_bidirectional_attention:
        return False
    return estimate.lean(settings) and model.device.type == "cpu" and config.attn_logit_softcapping is None


def exact(trainer_class: Any, folder: Path, settings: TrainConfig, taken_up: Checkpoint | None, used: str) -> Any:
    """The trainer class of a run in `folder`: killed at any time, it goes on as if it had not been.

    Its order of rows follows from seed and epoch, its checkpoints are whole or not there, and every step leaves a row
    in steps.jsonl.
    """

    class Exact(trainer_class):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            sft, world = settings.sft, self.args.world_size
            per_step = sft.per_device_train_batch_size * sft.gradient_accumulation_steps * world
            sizes = [len(ids) for ids in self.train_dataset["input_ids"]]
            self.row_order = RowOrder(sizes, per_step, sft.seed)
            self.step_log: StepLog | None = None
            if self.args.process_index == 0:
                self.step_log = StepLog(folder / "steps.jsonl", taken_up.step if taken_up else 0)
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
                    "device": used,
                    "settings": settings.model_dump(),
                }
                checkpoints.seal(kept / checkpoints.PARTIAL / name, kept / name, facts)
                checkpoints.prune(kept)
            self.accelerator.wait_for_everyone()

        def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
            # a checkpoint brings its learning rate, weight decay and betas along, and they would win without a word
            own = [{key: group[key] for key in OWN & group.keys()} for group in self.optimizer.param_groups]
            super()._load_optimizer_and_scheduler(checkpoint)
            if taken_up is not None and taken_up.settings != settings.model_dump():
                take_over(own, self.optimizer, self.lr_scheduler)

    return Exact


def take_over(own: list[dict[str, Any]], optimizer: Any, scheduler: Any) -> None:
    """Gives an optimizer and a scheduler that were loaded from a checkpoint the `own` values of a changed config."""
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)
    scheduler.base_lrs = [values["initial_lr"] for values in own]
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    scheduler._last_lr = [base * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]
    for group, rate in zip(optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate


def make_trainer(
    model: Any,
    tokenizer: Any,
    settings: TrainConfig,
    folder: Path,
    datasets: dict[str, Any],
    watch: Any,
    taken_up: Checkpoint | None = None,
) -> Any:
    """A trainer over rows as run.dataset makes them; `watch` is told of every step."""
    from transformers import PrinterCallback
    from trl import SFTConfig

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
        eval_strategy="no",
        disable_tqdm=True,
        logging_nan_inf_filter=False,
    )
    trainer = trainer_class(model, settings, folder, taken_up)(
        model=model,
        args=arguments,
        train_dataset=datasets["train"],
        eval_dataset=datasets["val"],
        data_collator=batches.collator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[watch],
        optimizers=(optimizer, None),
    )
    # Watch shows the progress
    trainer.remove_callback(PrinterCallback)
    return trainer


def trainer_class(model: Any, settings: TrainConfig, folder: Path, taken_up: Checkpoint | None) -> Any:
    """TRL's trainer with what the config and the machine ask for."""
    from trl import SFTTrainer

    found: Any = SFTTrainer
    used = launching.device()
    if settings.loss_weights is not None:
        found = loss_weights.weighting(found)
    threads = torch.get_num_threads()
    # two halves would draw their dropout from one random generator, in an order that chance decides
    dropout = settings.lora is not None and settings.lora.lora_dropout > 0
    alone = model.device.type == "cpu" and launching.processes() == 1
    if alone and lean(model, settings):
        kept = 0.0 if settings.sft.gradient_checkpointing else estimate.KEPT_BYTES
        keep = functools.partial(lean_layers.keep, model, kept, estimate.computed_bytes(settings))
        found = batches.in_pieces(found, keep)
    elif alone and threads > 1 and not dropout and not settings.sft.gradient_checkpointing:
        torch.set_num_threads(threads // 2)
        found = batches.in_halves(found)
    return exact(found, folder, settings, taken_up, used)
