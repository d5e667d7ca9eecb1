"""Asks one artifact of a package the same prompts in one engine. Every engine answers with an `Answered`.

Token ids go in, greedy answers come out. Ollama alone takes chat messages, since that is what its Modelfile renders.
"""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from potstill import llama, progress, token_lock, vllm_engine
from potstill.memory import Peak
from potstill.package import Engine

# enough prompts, one after the other, to time a single stream
TIMED = 8
# tokens whose probabilities are asked of an engine that does not show all
TOP = 20
# the engine that an artifact is made for comes first
ENGINES: dict[str, tuple[Engine, ...]] = {
    "bf16": ("transformers", "vllm"),
    "fp16": ("transformers",),
    "awq": ("vllm",),
    "rtn": ("vllm",),
    "gguf": ("llama.cpp", "ollama"),
}


@dataclass(frozen=True)
class Questions:
    """What all engines are asked. `texts` are what `prompts` are the token ids of; `shown` answers come with odds."""

    prompts: list[list[int]]
    texts: list[str]
    messages: list[list[dict[str, str]]]
    limits: list[int]
    context: int
    slots: int
    shown: int
    tokenizer: Any


class Answer(NamedTuple):
    """One answer; `ids` are without the stop token, and None where an engine shows only text."""

    text: str
    ids: list[int] | None
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float


@dataclass(frozen=True)
class Answered:
    """`read` are the engine's own ids of the texts, None where it does not show them.

    `likeliest(i)` has, for each place of answer i, log probabilities by token id, or is None where none are shown.
    """

    version: str
    answers: list[Answer]
    read: list[list[int]] | None
    load_ms: float
    peak_bytes: int | None
    prompt_tokens_per_s: float
    decode_tokens_per_s: float
    answers_per_s: float
    likeliest: Callable[[int], Any] = field(default=lambda _: None)


def engines_of(kind: str) -> tuple[Engine, ...]:
    return ENGINES[kind.partition("-")[0]]


def name_of(kind: str, engine: str) -> str:
    """An artifact's own name in the engine it is made for, else <artifact>-<engine>."""
    return kind if engine == engines_of(kind)[0] else f"{kind}-{engine}"


def missing(engine: Engine, kind: str) -> str | None:
    """Why an engine cannot be asked here for one artifact, and what to run; None when it can."""
    if engine == "vllm" and not vllm_engine.is_built():
        return f".venv-vllm is not built: {vllm_engine.BUILD}"
    # vLLM 0.32.0: "Quant type (uint8b128) not supported by CPUWNA16"
    if engine == "vllm" and kind.endswith("-w8a16") and vllm_engine.is_for_cpu():
        return "vLLM has no kernel for 8-bit weights on a CPU: run fab package.parity --all on a GPU host"
    if engine == "ollama" and shutil.which("ollama") is None:
        return "ollama is not on PATH: install it from ollama.com, and start it"
    return None


def ask(engine: Engine, folder: Path, questions: Questions) -> Answered:
    """Raises Stop when the artifact cannot be loaded or the engine cannot answer."""
    from potstill import parity_ollama, parity_transformers

    asked = {"transformers": parity_transformers.ask, "llama.cpp": llama_cpp, "vllm": vllm, "ollama": parity_ollama.ask}
    return asked[engine](folder, questions)


def llama_cpp(folder: Path, questions: Questions) -> Answered:
    prompts, limits = questions.prompts, questions.limits
    [path] = folder.glob("*.gguf")
    with Peak() as peak, llama.serve(path, questions.context, parallel=questions.slots) as server:
        read = token_lock.tokenize(server, questions.texts, questions.tokenizer)
        started = time.perf_counter()
        answered = llama.generate(server, prompts, limits, shown=questions.shown, top=TOP)
        found = list(progress.track(answered, f"parity {folder.name}", len(prompts)))
        wall_s = time.perf_counter() - started
        alone = [next(llama.generate(server, [p], n)) for p, n in zip(prompts[:TIMED], limits, strict=False)]
        load_ms = server.load_ms
    return Answered(
        version=metadata.version("xllamacpp"),
        answers=[
            Answer(g.text, g.ids, g.finish_reason, g.prompt_tokens, g.completion_tokens, g.latency_ms) for g in found
        ],
        read=read,
        load_ms=load_ms,
        peak_bytes=peak.bytes,
        prompt_tokens_per_s=rate(sum(g.prompt_tokens for g in alone), sum(g.prompt_ms for g in alone)),
        decode_tokens_per_s=rate(sum(g.completion_tokens for g in alone), sum(g.decode_ms for g in alone)),
        answers_per_s=len(found) / wall_s,
        likeliest=lambda index: found[index].likeliest,
    )


def vllm(folder: Path, questions: Questions) -> Answered:
    request = vllm_engine.Request(
        folder=str(folder),
        context=questions.context,
        prompts=questions.prompts,
        max_new_tokens=questions.limits,
        stop_ids=_stops(questions.tokenizer),
        timed=TIMED,
        shown=questions.shown,
        top=TOP,
        texts=questions.texts,
    )
    found = vllm_engine.ask(request)
    timed = found.timed
    assert timed is not None
    return Answered(
        version=found.version,
        answers=[
            Answer(g.text, g.ids, g.finish_reason, g.prompt_tokens, g.completion_tokens, g.latency_ms)
            for g in found.answers
        ],
        read=found.tokens,
        load_ms=found.load_ms,
        peak_bytes=found.peak_bytes,
        prompt_tokens_per_s=rate(timed.prompt_tokens, timed.prompt_ms),
        decode_tokens_per_s=rate(timed.decoded_tokens, timed.decode_ms),
        answers_per_s=rate(len(found.answers), timed.wall_ms),
        likeliest=lambda index: found.answers[index].likeliest,
    )


def _stops(tokenizer: Any) -> list[int]:
    return sorted({tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end_of_turn>")})


def rate(count: int, ms: float) -> float:
    return count / ms * 1000 if ms else 0.0
