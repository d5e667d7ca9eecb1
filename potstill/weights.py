"""Whether a model's values fit float16, which ends at 65504: its weights, and what flows between its modules.

Gemma 3 was trained in bfloat16, whose range is float32's. Its weights fit float16; its activations may not, which is
why vLLM refuses float16 for it. IEEE 754-2019, table 3.5: binary16 has 11 bits of precision and exponents -14 to 15.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.stop import DATA, Stop

LARGEST = 65504.0
# below it a float16 is subnormal and loses bits of its mantissa; below 2**-25 it is rounded to zero
SMALLEST_NORMAL = 2.0**-14
MEND = "Package bf16, which has float32's range, and leave fp16 out of the package config."


@dataclass(frozen=True)
class HalfRange:
    """A model's weights as float16. `largest` is a magnitude, found in `tensor`.

    `zeroed` values are not zero in the model and zero in float16; `subnormal` ones keep fewer than 11 bits.
    """

    values: int
    largest: float
    tensor: str
    zeroed: int
    subnormal: int


@dataclass(frozen=True)
class Activation:
    """The largest magnitude that went into or came out of a module, and that module's name."""

    module: str
    largest: float


def check_range(model: Any) -> HalfRange:
    """What float16 makes of the weights of a model, or of the *.safetensors in a folder, one tensor at a time.

    Raises Stop 65 naming the tensor whose value is no number, or is no longer finite once it is rounded to float16.
    """
    import torch

    values = zeroed = subnormal = 0
    largest, at = 0.0, ""
    for name, tensor in _tensors(model):
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        half = tensor.to(torch.float16).abs()
        found = float(tensor.abs().max())
        if not bool(torch.isfinite(half).all()):
            what = f"reaches {found:.6g}" if found == found else "has a value that is no number"
            raise Stop(f"tensor {name} {what}, and float16 ends at {LARGEST:g}. {MEND}", DATA)
        values += tensor.numel()
        zeroed += int(((half == 0) & (tensor != 0)).sum())
        subnormal += int(((half > 0) & (half < SMALLEST_NORMAL)).sum())
        if found >= largest:
            largest, at = found, name
    return HalfRange(values, largest, at, zeroed, subnormal)


def check_activations(model: Any, prompts: list[list[int]]) -> Activation:
    """The largest activation of a model on prompts given as token ids, one forward pass each in the model's dtype.

    Raises Stop 65 naming the module whose input or output reaches 65504 or is no number.
    """
    import torch

    most: dict[str, float] = {}

    def hook(name: str) -> Any:
        # not the keywords: a mask hides tokens with the lowest value of its dtype
        def seen(_module: Any, inputs: Any, output: Any) -> None:
            for tensor in _flat((inputs, output)):
                if tensor.is_floating_point() and tensor.numel():
                    most[name] = max(most.get(name, 0.0), _magnitude(tensor))

        return seen

    hooks = [module.register_forward_hook(hook(name or "the model")) for name, module in model.named_modules()]
    try:
        with torch.inference_mode():
            for ids in prompts:
                model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
    finally:
        for handle in hooks:
            handle.remove()
    if not most:
        raise Stop("no prompts to check activations with; want some rows of the train snapshot", DATA)
    # a module finishes before what it is part of, so the first of equals is the innermost
    module, largest = max(most.items(), key=lambda item: item[1])
    if largest >= LARGEST:
        raise Stop(f"activations of {module} reach {largest:.6g}, and float16 ends at {LARGEST:g}. {MEND}", DATA)
    return Activation(module, largest)


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(model, str | Path):
        yield from model.state_dict().items()
        return
    from safetensors import safe_open

    paths = sorted(Path(model).glob("*.safetensors"))
    if not paths:
        raise Stop(f"{model} has no *.safetensors; want a model folder", DATA)
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                yield name, file.get_tensor(name)


def _flat(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _flat(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)


def _magnitude(tensor: Any) -> float:
    """The largest magnitude; infinite where a value is no number, which compares with nothing."""
    found = float(tensor.abs().max())
    return found if found == found else float("inf")
