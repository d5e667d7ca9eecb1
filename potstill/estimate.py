"""What training a run will take: memory from shapes, time from operations, before anything is started.

Memory is weights + gradients + optimizer + activations + logits + what the program itself takes. Weights, gradients and
optimizer states are counted: they are known to the byte. Activations are what the backward pass needs of every layer,
counted from transformers' modeling_gemma3.py as Korthikanti et al. (2022), "Reducing activation recomputation in large
transformer models", count GPT's. Time is the operations of Kaplan et al. (2020), "Scaling laws for neural language
models": 2 per weight and token forward, twice that backward, of which an adapter needs half; over what this machine's
matrix multiplication was measured to do, times a share that a training step reaches of it.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from potstill import batches
from potstill.runs import Lora, TrainConfig

# bytes: Python with torch, transformers, trl, unsloth and mlflow imported, measured on a CPU
PROGRAM_BYTES = 1.1e9
# the share of matrix multiplication's speed that a training step reaches, measured (benchmarks/train.py): with
# transformers' layers, and with those of potstill/lean
REACHED, LEAN_REACHED = 0.25, 0.3
# tokens. On a CPU, the fused attention's backward pass takes twice as long as the plain one's, which takes memory by
# the square of the length: up to here the plain one is used
PLAIN_ATTENTION_UP_TO = 1024
# what training an adapter on a CPU keeps for the backward pass; what would be more is made again
KEPT_BYTES = 64e6
# logits in memory at once: of TRL on a GPU, so many of each token; of Unsloth on a CPU, so many in all
GPU_LOGITS, CPU_LOGITS = 32768, 2**24
FLOAT = 4
GB = 1e9


class Shape(NamedTuple):
    """Of a Gemma 3 text model, from its config.json."""

    vocabulary: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    window: int

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's weights."""
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.inner),
            "up_proj": (self.hidden, self.inner),
            "down_proj": (self.inner, self.hidden),
        }

    @property
    def layer_weights(self) -> int:
        """All layers' matrices; norms are a few thousand, and left out."""
        return self.layers * sum(a * b for a, b in self.matrices.values())


class Memory(NamedTuple):
    """Bytes at the peak of a step."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    program: float

    @property
    def total(self) -> float:
        return sum(self)


def shape_of(folder: str | Path) -> Shape:
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    keys = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"
    return Shape(*(config[key] for key in [*keys.split(), "sliding_window"]))


def adapter_weights(shape: Shape, lora: Lora) -> int:
    """Rank times inputs and outputs of every adapted matrix."""
    return shape.layers * sum(lora.r * sum(shape.matrices[name]) for name in lora.target_modules)


def memory(settings: TrainConfig, shape: Shape, longest: int, answer: float, processes: int = 1) -> Memory:
    """One process' peak with the longest row; `answer` is the share of tokens that the loss is on."""
    sft, lora = settings.sft, settings.lora
    size = FLOAT if settings.dtype == "float32" else 2
    whole = shape.embedding + shape.layer_weights
    trained = whole if lora is None else adapter_weights(shape, lora)
    base = shape.embedding * size + shape.layer_weights * (0.55 if settings.mode == "qlora" else size)
    # Unsloth keeps adapters in float32
    own = size if lora is None else FLOAT
    # autocast keeps the matrices it has cast until the step ends
    cast = 2 * shape.layer_weights if sft.bf16 and size == FLOAT else 0
    # Muon: one state of the matrices, AdamW's two of the embedding
    states = shape.layer_weights + 2 * shape.embedding if sft.optim == "muon" else 2 * trained
    tokens = sft.per_device_train_batch_size * batches.padded(longest)
    in_pieces = lean(settings) and processes == 1
    if in_pieces:
        tokens = min(tokens, max(batches.PIECE, batches.padded(longest)))
    saved = layer_activations(settings, shape, batches.padded(longest)) * tokens
    # recomputed layer by layer: every layer's input, and all of one layer
    kept = saved / shape.layers + shape.layers * shape.hidden * tokens * size
    if in_pieces and not sft.gradient_checkpointing:
        saved = min(saved, KEPT_BYTES + kept)
    foretold = tokens * answer
    return Memory(
        weights=base + cast + (0 if lora is None else trained * FLOAT),
        gradients=trained * own,
        optimizer=states * own,
        activations=kept if sft.gradient_checkpointing else saved,
        logits=logits_bytes(foretold, shape.vocabulary),
        program=PROGRAM_BYTES,
    )


def logits_bytes(tokens: float, vocabulary: int) -> float:
    """Of so many tokens' logits, probabilities and their gradients: the loss computes them in tiles."""
    import torch

    if torch.cuda.is_available():
        return 2 * tokens * min(vocabulary, GPU_LOGITS) * FLOAT
    return 3 * min(tokens * vocabulary, CPU_LOGITS) * FLOAT


def reached(settings: TrainConfig) -> float:
    """The share of matrix multiplication's speed that a step is expected to reach."""
    return LEAN_REACHED if lean(settings) else REACHED


def lean(settings: TrainConfig) -> bool:
    """Whether training uses potstill/lean: for a plain adapter, on a CPU."""
    import torch

    plain = settings.lora is not None and settings.lora.lora_dropout == 0
    return plain and settings.mode == "lora" and not torch.cuda.is_available()


def computed_bytes(settings: TrainConfig) -> int:
    """Of one value that a layer computes."""
    return 2 if settings.sft.bf16 or settings.dtype == "bfloat16" else FLOAT


def kept_values(hidden: int, inner: int, heads: int, kv_heads: int, head: int) -> tuple[int, int]:
    """What a layer of potstill/lean keeps beside its input, per token: of Costly; of Qkv and GateUp."""
    return 2 * hidden + heads * head, (heads + 2 * kv_heads) * head + 2 * inner


def layer_activations(settings: TrainConfig, shape: Shape, width: int) -> float:
    """Bytes that the backward pass needs of all layers, per token.

    Four norms work in float32 and keep two values each of the hidden size; so do the queries' and keys' norms. The
    rest is in the dtype of the computation. Attention's probabilities are kept twice where it is computed plainly.
    """
    size = computed_bytes(settings)
    if lean(settings):
        values = sum(kept_values(shape.hidden, shape.inner, shape.heads, shape.kv_heads, shape.head))
        return float(shape.layers * size * (shape.hidden + values))
    queries, keys = shape.heads * shape.head, shape.kv_heads * shape.head
    norms = (4 * 2 * shape.hidden + 2 * (queries + keys)) * FLOAT
    inputs = 2 * shape.hidden + queries + shape.inner
    turned = 2 * (queries + keys) + 2 * queries
    gated = 3 * shape.inner
    adapted = len(settings.lora.target_modules) * (settings.lora.r + shape.hidden) if settings.lora else 0
    plain = settings.sft.max_length <= PLAIN_ATTENTION_UP_TO
    attention = shape.heads * width * (FLOAT + size) if plain else 0
    return shape.layers * (norms + size * (inputs + turned + gated + adapted) + attention)


def operations(settings: TrainConfig, shape: Shape, tokens: float, width: float, answer: float) -> float:
    """Floating-point operations of learning from so many tokens."""
    # a window only masks: what it hides is computed all the same
    forward = 2 * shape.layer_weights + 4 * shape.layers * shape.heads * shape.head * width
    # backward: as much for the inputs, and again for the weights that are trained
    times = 3 if settings.lora is None else 2
    if settings.sft.gradient_checkpointing:
        times += 1
    return tokens * (times * forward + 3 * 2 * answer * shape.embedding)


def machine_speed(shape: Shape, tokens: int, dtype: Any, seconds: float = 0.5) -> float:
    """Operations per second of this machine's matrix multiplication, measured on a matrix of the model's own."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    one = torch.randn(tokens, shape.hidden, device=device).to(dtype)
    other = torch.randn(shape.hidden, shape.inner, device=device).to(dtype)
    one @ other
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        product = one @ other
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    del product
    # the middle one: what else runs here slows training down as well
    return 2 * tokens * shape.hidden * shape.inner / statistics.median(times)


def memory_line(settings: TrainConfig, base: str, longest: int | None = None, processes: int = 1) -> str:
    """What a step of one process is estimated to need, in words."""
    found = memory(settings, shape_of(base), longest or settings.sft.max_length, 0.5, processes)
    parts = ", ".join(f"{name} {value / GB:.2f}" for name, value in found._asdict().items())
    rows = settings.sft.per_device_train_batch_size
    tokens = longest or settings.sft.max_length
    return f"a step of {rows} rows of {tokens} tokens is estimated at {found.total / GB:.2f} GB ({parts})."


def advice(settings: TrainConfig, base: str, processes: int = 1) -> str:
    """What to change, the least costly first, each with the memory it is estimated to leave."""
    shape, sft = shape_of(base), settings.sft
    half = sft.per_device_train_batch_size // 2
    steps: list[tuple[str, TrainConfig]] = []
    twice = 2 * sft.gradient_accumulation_steps
    if half:
        update = {
            "per_device_train_batch_size": half,
            "gradient_accumulation_steps": twice,
        }
        told = f"fab train.run --auto-batch, or train.resume -o sft.per_device_train_batch_size={half}"
        told += f" -o sft.gradient_accumulation_steps={twice}: the same rows to a step"
        steps.append((told, _with(settings, update)))
    if not sft.gradient_checkpointing:
        told = "train.resume -o sft.gradient_checkpointing=true: a third slower, same losses"
        steps.append((told, _with(settings, {"gradient_checkpointing": True})))
    if settings.dtype == "float32":
        told = "prepare anew with -o dtype=bfloat16: half the weights"
        steps.append((told, settings.model_copy(update={"dtype": "bfloat16"})))
    shorter = sft.max_length // 2
    told = f"prepare anew with -o sft.max_length={shorter}: longer rows are refused, and named"
    steps.append((told, _with(settings, {"max_length": shorter})))
    lines = ["Less memory, the least costly first:"]
    for number, (told, changed) in enumerate(steps, 1):
        total = memory(changed, shape, changed.sft.max_length, 0.5, processes).total
        lines.append(f"  {number}. {told} (about {total / GB:.2f} GB)")
    if settings.lora is None:
        lines.append(f"  {len(steps) + 1}. prepare anew with a LoRA config: no optimizer state for the base's weights")
    return "\n".join(lines)


def _with(settings: TrainConfig, update: dict[str, Any]) -> TrainConfig:
    return settings.model_copy(update={"sft": settings.sft.model_copy(update=update)})
