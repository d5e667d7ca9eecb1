"""Asks a Hugging Face folder of a package by transformers' own generate.

Not by the decoder of potstill/gemma3.py: that one is for float32, and rounds elsewhere in bf16 than transformers does.
"""

import time
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from potstill import models, progress
from potstill.memory import Peak
from potstill.parity_engines import TIMED, Answer, Answered, Questions

BATCH = 32


def ask(folder: Path, questions: Questions) -> Answered:
    """Answers in the dtype that the folder states."""
    prompts, limits = questions.prompts, questions.limits
    with Peak() as peak:
        started = time.perf_counter()
        model, tokenizer = models.load_folder(folder, "auto")
        load_ms = (time.perf_counter() - started) * 1000
        read = tokenizer(questions.texts, add_special_tokens=False)["input_ids"]
        stops = models.stop_ids(model, tokenizer)
        answers: dict[int, Answer] = {}
        started = time.perf_counter()
        # rows of one limit and of much the same length waste no steps on each other
        order = sorted(range(len(prompts)), key=lambda i: (limits[i], len(prompts[i])))
        batches = [
            group
            for limit in sorted(set(limits))
            for group in _batches([index for index in order if limits[index] == limit])
        ]
        for batch in progress.track(batches, f"parity {folder.name}"):
            answers |= _answer(model, tokenizer, stops, prompts, limits, batch)
        wall_s = time.perf_counter() - started
        reading, decoding, decoded = _time(model, stops, prompts[:TIMED], limits)

    def likeliest(index: int) -> Any:
        return _log_softmax(model, prompts[index], answers[index].ids or [])

    return Answered(
        version=metadata.version("transformers"),
        answers=[answers[index] for index in range(len(prompts))],
        read=read,
        load_ms=load_ms,
        peak_bytes=peak.bytes,
        prompt_tokens_per_s=sum(map(len, prompts[:TIMED])) / reading,
        decode_tokens_per_s=decoded / decoding,
        answers_per_s=len(prompts) / wall_s,
        likeliest=likeliest,
    )


def _batches(indexes: list[int]) -> list[list[int]]:
    return [indexes[start : start + BATCH] for start in range(0, len(indexes), BATCH)]


def _answer(
    model: Any, tokenizer: Any, stops: set[int], prompts: list[list[int]], limits: list[int], batch: list[int]
) -> dict[int, Answer]:
    started = time.perf_counter()
    given = [prompts[index] for index in batch]
    found = models.by_transformers(model, given, limits[batch[0]], stops, [None] * len(batch))
    latency_ms = (time.perf_counter() - started) * 1000
    answers = {}
    for index, ids in zip(batch, found, strict=True):
        end = next((place for place, token in enumerate(ids) if token in stops), None)
        own = ids[:end]
        text = tokenizer.decode(own, skip_special_tokens=True)
        reason: Literal["stop", "length"] = "length" if end is None else "stop"
        counts = len(prompts[index]), len(own) + (end is not None)
        answers[index] = Answer(text, own, reason, *counts, latency_ms)
    return answers


def _time(model: Any, stops: set[int], prompts: list[list[int]], limits: list[int]) -> tuple[float, float, int]:
    """Seconds for the first tokens, seconds for the others, and how many others; one prompt at a time."""
    first = others = 0.0
    count = 0
    for prompt, limit in zip(prompts, limits, strict=False):
        seconds = []
        for most in (1, limit):
            started = time.perf_counter()
            [ids] = models.by_transformers(model, [prompt], most, stops, [None])
            seconds.append(time.perf_counter() - started)
        first, others, count = first + seconds[0], others + max(seconds[1] - seconds[0], 1e-9), count + len(ids) - 1
    return first, others, count


def _log_softmax(model: Any, prompt: list[int], ids: list[int]) -> Any:
    """(places, vocabulary): what the model expects at each place of the answer, and after its last token."""
    import torch

    with torch.inference_mode():
        tokens = torch.tensor([[*prompt, *ids]], device=model.device)
        # where the reference's are, which it is compared with
        logits = model(tokens).logits[0, len(prompt) - 1 :].cpu()
    return torch.log_softmax(logits.double(), -1)
