"""The model and the trainer of a run: Unsloth's and TRL's, made so that a run can be killed at any time."""

import functools
import os
from pathlib import Path
from typing import Any

import torch

from potstill import batches, estimate, exact, launching, loss_weights, project
from potstill.checkpoints import Checkpoint
from potstill.lean import layers as lean_layers
from potstill.runs import RunRecord, TrainConfig

# matrix products that oneDNN remembers: those of a step. At 270M, the time to make them anew is not seen in a step's
KERNELS = 64


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
    return exact.exact(found, folder, settings, taken_up, used)
