"""Compresses one model with llmcompressor: the program that potstill.compressed runs in a process of its own.

Reads a Job as one line of JSON from standard input, and ends when that input does: whoever asked has gone then.
Leaves model.safetensors and result.json in the current folder.
"""

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from potstill.files import write_text
from potstill.records import Record
from potstill.stop import BUSY

WEIGHTS, RESULT = "model.safetensors", "result.json"
# the range of a group that costs the least error, not its extremes: a fifth less divergence at 4 bits
OBSERVERS = {4: "memoryless_mse", 8: "memoryless_minmax"}
# said of every Gemma 3 on every machine without a GPU: 4 heads share one value head, so v_proj cannot scale o_proj
EXPECTED = ("No accelerator available", "mappings were skipped due to incompatible shapes")


class Job(Record):
    """`rows` are token ids to calibrate on, when `smooth` asks for AWQ. `group_size` null: one scale for each row."""

    whole: str
    bits: Literal[4, 8]
    group_size: int | None
    smooth: bool
    rows: list[list[int]]
    seed: int


class Result(Record):
    quantization_config: dict[str, Any]
    observer: str
    linear_values: int
    other_values: int
    warnings: list[str]
    llmcompressor: str
    compressed_tensors: str


def main() -> None:
    job = Job.model_validate_json(sys.stdin.readline())
    threading.Thread(target=end_with_the_asker, daemon=True).start()
    warnings: list[str] = []
    model = load(job)
    listen(warnings)
    compress(model, job)
    result = save(model, job, warnings)
    # written last, so its existence means that the weights are whole
    write_text(Path(RESULT), result.model_dump_json())


def end_with_the_asker() -> None:
    # by the descriptor: a thread that holds sys.stdin's lock keeps the interpreter from ending
    os.read(sys.stdin.fileno(), 1)
    os._exit(BUSY)


def load(job: Job) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(job.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    return AutoModelForCausalLM.from_pretrained(job.whole, dtype=torch.float32).eval()


def listen(warnings: list[str]) -> None:
    """Keeps llmcompressor's warnings, each once, in place of its log on standard output."""
    import llmcompressor  # noqa: F401  (it sets up its log when it is imported)
    from loguru import logger

    def keep(message: Any) -> None:
        text = message.record["message"]
        if text not in warnings and not any(expected in text for expected in EXPECTED):
            warnings.append(text)

    logger.remove()
    logger.add(keep, level="WARNING")


def compress(model: Any, job: Job) -> None:
    """Rounds the linear layers in place, as fake quantisation: the values that the packed form will have."""
    import torch
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from torch.utils.data import DataLoader

    from potstill.models import load_tokenizer

    # symmetric: vLLM's CPU kernel refuses zero points (vLLM 0.32, kernels/linear/mixed_precision/cpu.py)
    kind = {"strategy": "group", "group_size": job.group_size} if job.group_size else {"strategy": "channel"}
    weights = {"num_bits": job.bits, "type": "int", "symmetric": True, "observer": OBSERVERS[job.bits], **kind}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    recipe: list[Any] = [QuantizationModifier(config_groups=groups, ignore=["lm_head"])]
    data = None
    if job.smooth:
        recipe.insert(0, AWQModifier())
        rows = [{"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids)).long()} for ids in job.rows]
        # one by one: padding would be calibrated on like text
        data = DataLoader(rows, batch_size=1)
    with without_pinning():
        oneshot(model=model, recipe=recipe, dataset=data, tokenizer=load_tokenizer(job.whole))


@contextlib.contextmanager
def without_pinning() -> Iterator[None]:
    """Without an accelerator llmcompressor 0.14 still pins memory for one, which torch refuses."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if torch.accelerator.is_available():
        yield
        return
    pin = IntermediatesCache.pin_memory
    IntermediatesCache.pin_memory = lambda *_arguments, **_keywords: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = pin  # type: ignore[method-assign]


def save(model: Any, job: Job, warnings: list[str]) -> Result:
    """Packs the model and writes its weights, every floating-point tensor as bfloat16."""
    import json

    import torch
    from compressed_tensors.offload import update_offload_parameter
    from safetensors.torch import load_file, save_file

    linear = 0
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            # rounded before the weights are packed with it: packed with another scale, they would be off by its error
            update_offload_parameter(module, "weight_scale", module.weight_scale.bfloat16().float())
            linear += module.weight.numel()
    model.save_pretrained("packed", save_compressed=True)
    tensors = load_file(Path("packed") / WEIGHTS)
    floats = {name for name, tensor in tensors.items() if tensor.is_floating_point()}
    other = sum(tensors[name].numel() for name in floats if not name.endswith("weight_scale"))
    rounded = {name: t.to(torch.bfloat16) if name in floats else t for name, t in sorted(tensors.items())}
    save_file(rounded, WEIGHTS, metadata={"format": "pt"})
    config = json.loads((Path("packed") / "config.json").read_text(encoding="utf-8"))
    return Result(
        quantization_config=config["quantization_config"],
        observer=OBSERVERS[job.bits],
        linear_values=linear,
        other_values=other,
        warnings=warnings,
        llmcompressor=metadata.version("llmcompressor"),
        compressed_tensors=metadata.version("compressed-tensors"),
    )


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        traceback.print_exc()
        # the last line is what the user is told, and messages of transformers are paragraphs
        sys.exit(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
