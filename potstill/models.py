"""Loads a run's model as it is graded and packaged, and generates with it greedily."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from potstill import runs
from potstill.project import run_folder
from potstill.records import Example
from potstill.stop import DATA, Stop

PAD_TO = 8
# copied byte for byte from base to trained model to package: saving a tokenizer anew drops tokenizer.model
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)


@dataclass(frozen=True)
class Generated:
    """Token ids without the stop token. `latency_ms` is the time of the batch the answer came in."""

    index: int
    ids: list[int]
    finish_reason: Literal["stop", "length"]
    latency_ms: float


def load_tokenizer(folder: str | Path) -> Any:
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer.from_pretrained, folder)


def load_base(record: runs.RunRecord, dtype: Any) -> tuple[Any, Any]:
    """The untuned base of a run and its tokenizer."""
    return load_folder(record.base.path, dtype)


def load_folder(folder: str | Path, dtype: Any) -> tuple[Any, Any]:
    """A model in evaluation mode and its tokenizer. Raises Stop 65 when the folder is no whole model."""
    from transformers import AutoModelForCausalLM

    return _loaded(AutoModelForCausalLM.from_pretrained, folder, dtype=dtype).eval(), load_tokenizer(folder)


def load_merged(run: str, dtype: Any) -> tuple[Any, Any]:
    """The trained model of a run and its tokenizer. An adapter is merged in float32, then cast to `dtype`.

    Raises Stop 65 when the run is not trained.
    """
    import torch

    record = runs.require_trained(run)
    if record.mode == "full":
        return load_folder(run_folder(run) / "model", dtype)
    from peft import PeftModel

    base, tokenizer = load_base(record, torch.float32)
    merged = PeftModel.from_pretrained(base, run_folder(run) / "adapter").merge_and_unload()
    return merged.to(dtype).eval(), tokenizer


def generate(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int = 32,
    schemas: list[dict[str, Any]] | None = None,
) -> Iterator[Generated]:
    """Greedy answers to prompts given as token ids; they come in order of prompt length, so mind `index`.

    `batch_size` is of each of the threads that answer at once on a CPU. `schemas` has a JSON Schema for each prompt
    that its answer has to keep to.
    """
    from potstill import constraints, decoding, gemma3

    stops = stop_ids(model, tokenizer)
    own = gemma3.supports(model)
    grammar = constraints.grammar_of(tokenizer, stops) if schemas else None
    answer = decoding.answer if own else by_transformers
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    at_once = batch_size * (decoding.workers() if own else 1)
    for start in range(0, len(order), at_once):
        batch = order[start : start + at_once]
        started = time.perf_counter()
        matchers = [grammar.matcher(schemas[i]) if grammar and schemas else None for i in batch]
        answers = answer(model, [prompts[i] for i in batch], max_new_tokens, stops, matchers)
        latency_ms = (time.perf_counter() - started) * 1000
        for i, ids in zip(batch, answers, strict=True):
            yield _cut(i, ids, stops, latency_ms)


def stream(model: Any, tokenizer: Any, prompt: list[int], max_new_tokens: int) -> Iterator[str]:
    """One greedy answer in pieces of text, as it is made where the decoder is our own, else in one piece."""
    from potstill import decoding, gemma3

    stops, shown = stop_ids(model, tokenizer), ""
    growing = (
        decoding.stream(model, prompt, max_new_tokens, stops)
        if gemma3.supports(model)
        else iter(by_transformers(model, [prompt], max_new_tokens, stops, [None]))
    )
    for ids in growing:
        text = tokenizer.decode(_cut(0, ids, stops, 0.0).ids, skip_special_tokens=True)
        # a character of several byte tokens is shown when it is whole
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    yield text[len(shown) :]


def by_transformers(
    model: Any, prompts: list[list[int]], max_new_tokens: int, stops: set[int], matchers: list[Any]
) -> list[list[int]]:
    """One batch by transformers' own generate."""
    import torch

    from potstill import constraints

    width = -(-max(map(len, prompts)) // PAD_TO) * PAD_TO
    pad = model.config.pad_token_id or 0
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros((len(prompts), width), dtype=torch.long)
    for row, prompt in enumerate(prompts):  # left padding: every answer starts at the same position
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            top_k=None,
            top_p=None,
            eos_token_id=sorted(stops),
            pad_token_id=pad,
            logits_processor=[constraints.processor(matchers, width, stops)] if any(matchers) else None,
        )
    answers: list[list[int]] = output[:, width:].tolist()
    return answers


def stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """<eos>, the end of a turn, and whatever the model's generation config names."""
    named = getattr(model.generation_config, "eos_token_id", None)
    listed = named if isinstance(named, list) else [named]
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>"), *listed]
    return {i for i in ends if i is not None}


def always_null(example: Example) -> Any:
    """The answer that says nothing: every leaf null, every list empty. What guessing is measured against."""
    import json

    return _emptied(json.loads(example.response))


def _emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _emptied(item) for key, item in value.items()}
    return [] if isinstance(value, list) else None


def _cut(index: int, ids: list[int], stops: set[int], latency_ms: float) -> Generated:
    for position, token in enumerate(ids):
        if token in stops:
            return Generated(index, ids[:position], "stop", latency_ms)
    return Generated(index, ids, "length", latency_ms)


def _loaded(load: Any, folder: str | Path, **options: Any) -> Any:
    # a folder that is not there would be looked up on the hub
    if not Path(folder).is_dir():
        raise Stop(f"{folder} is not there; want a model folder. Run fab train.prepare again.", DATA)
    try:
        return load(str(folder), **options)
    except OSError as error:
        raise Stop(f"{folder} is no whole model folder: {str(error).splitlines()[0]}", DATA) from None
