"""The importance matrix of a model: how much each column of a weight matrix is used on the job's own prompts.

    importance = imatrix.collect(Path("models/run/float32"), prompts)
    write_gguf(folder, path, "Q4_0", importance=importance, calibration=("train.v3", len(imatrix.chosen(prompts))))

The error of a row of weights w, rounded to q, shows in the output as sum_j (w_j - q_j) x_j. Its square is on average
about sum_j (w_j - q_j)^2 mean(x_j^2), so mean(x_j^2) is what a column's error is weighted by. As llama-imatrix does it
(tools/imatrix in ggml-org/llama.cpp): matrices of the layers only, not the embedding and the head.
"""

from pathlib import Path
from typing import Any

from potstill.stop import DATA, Stop

LIMIT = 64
# tokens of these together: 270M parameters read some 250 a second on one core
TOKENS = 4096


def chosen(prompts: list[list[int]], limit: int = LIMIT, tokens: int = TOKENS) -> list[list[int]]:
    """At most `limit` of the prompts with at most `tokens` tokens, but one at least.

    They are evenly spread, so that rows sorted by task are all heard.
    """
    for count in range(min(limit, len(prompts)), 0, -1):
        rows = [prompts[i * len(prompts) // count] for i in range(count)]
        if count == 1 or sum(map(len, rows)) <= tokens:
            return rows
    return []


def collect(model_dir: Path, prompts: list[list[int]], limit: int = LIMIT) -> dict[str, Any]:
    """Mean square of every input column of every matrix in the layers, float32 (columns,), by GGUF tensor name.

    `prompts` are token ids, prompt and answer together; those of `chosen` are read, in float32. Raises Stop 65
    without prompts, for a token id that the model does not have, and when the model's activations are not finite.
    """
    import gguf
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM

    rows = chosen(prompts, limit)
    if not any(rows):
        raise Stop("an importance matrix needs prompts; the train snapshot gave none. Run fab dataset.split.", DATA)
    if not Path(model_dir).is_dir():
        raise Stop(f"{model_dir} is not there; want a whole Hugging Face model folder", DATA)
    model = AutoModelForCausalLM.from_pretrained(str(model_dir), dtype=torch.float32, local_files_only=True).eval()
    highest = max(max(row, default=0) for row in rows)
    if highest >= model.config.vocab_size:
        raise Stop(f"{model_dir} has {model.config.vocab_size} tokens, a prompt has token id {highest}", DATA)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, model.config.num_hidden_layers)
    sums: dict[str, Any] = {}
    for path, module in model.named_modules():
        target = names.get_name(f"{path}.weight", try_suffixes=(".weight",)) or ""
        if isinstance(module, torch.nn.Linear) and target.startswith("blk."):
            sums[target] = torch.zeros(module.in_features, dtype=torch.float64)
            module.register_forward_pre_hook(_adder(sums[target]))
    with torch.inference_mode():
        for row in rows:
            if row:
                model.model(input_ids=torch.tensor([row]), use_cache=False)  # without the head, which is not measured
    tokens = sum(map(len, rows))
    found = {name: (total / tokens).float().numpy() for name, total in sums.items()}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise Stop(f"{model_dir}: the input of {name} is not finite on the train prompts", DATA)
    return found


def _adder(total: Any) -> Any:
    def add(module: Any, inputs: tuple[Any, ...]) -> None:
        total.add_(inputs[0].double().square().sum(dim=(0, 1)))

    return add
