"""Answers prompts with vLLM. Runs inside .venv-vllm, imports nothing of Potstill, and is started by vllm_engine.py.

Run: .venv-vllm/bin/python -I potstill/vllm_answers.py request.json answers.jsonl

request.json is `vllm_engine.Request`. Each line of answers.jsonl is an object whose `kind` says what it holds:
`loaded`, `tokens`, `answer`, `timed`, and last `done`, so that a file without it was cut short.
Run it with -I: this folder's html.py would otherwise stand in for Python's own.
"""

import json
import sys
import time
from typing import IO, Any

# prompts answered at once: what bounds the key/value cache
AT_ONCE = 32
KIB = 1024


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        request = json.load(file)
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        started = time.perf_counter()
        llm = load(request)
        write(out, kind="loaded", load_ms=(time.perf_counter() - started) * 1000, version=version())
        tokenize(llm, request, out)
        answer(llm, request, out)
        write(out, kind="done", peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """The most resident memory that this program has had; getrusage's begins with that of the one that started it."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * KIB


def version() -> str:
    import vllm

    return str(vllm.__version__)


def load(request: dict[str, Any]) -> Any:
    from vllm import LLM
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    return LLM(
        request["folder"],
        dtype="bfloat16",
        max_model_len=request["context"],
        max_num_seqs=AT_ONCE,
        max_num_batched_tokens=max(2048, request["context"]),
        max_logprobs=request["top"],
        # a reused prefix is computed in other batches and can differ in the last bit
        enable_prefix_caching=False,
        # compiling takes a CPU minutes, and its kernels are none that a GPU would run
        enforce_eager=on_cpu,
        # vLLM's estimate of what is free would take most of a CPU machine's memory
        kv_cache_memory_bytes=request["cache_bytes"] if on_cpu else None,
        generation_config="vllm",
        disable_log_stats=False,
        seed=0,
    )


def tokenize(llm: Any, request: dict[str, Any], out: IO[str]) -> None:
    if not request["texts"]:
        return
    tokenizer = llm.get_tokenizer()
    for index, text in enumerate(request["texts"]):
        write(out, kind="tokens", index=index, ids=list(tokenizer(text, add_special_tokens=False)["input_ids"]))


def answer(llm: Any, request: dict[str, Any], out: IO[str]) -> None:
    """All prompts together, then the first few alone, one after the other, for the speed of one stream."""
    prompts, limits, stops = request["prompts"], request["max_new_tokens"], request["stop_ids"]
    if not prompts:
        return
    # the first request pays for what vLLM prepares once
    generate(llm, prompts[:1], [1], stops)
    started = time.perf_counter()
    shown = [request["top"] if index < request["shown"] else None for index in range(len(prompts))]
    found = generate(llm, prompts, limits, stops, shown)
    wall_ms = (time.perf_counter() - started) * 1000
    for index, output in enumerate(found):
        write(out, kind="answer", index=index, **fields_of(output, stops))
    timed = request["timed"]
    alone = [generate(llm, [p], [n], stops)[0] for p, n in zip(prompts[:timed], limits[:timed], strict=True)]
    # the first token comes out of reading the prompt
    write(
        out,
        kind="timed",
        wall_ms=wall_ms,
        prompt_tokens=sum(len(output.prompt_token_ids) for output in alone),
        prompt_ms=sum(spent_ms(output)[0] for output in alone),
        decoded_tokens=sum(len(output.outputs[0].token_ids) - 1 for output in alone),
        decode_ms=sum(spent_ms(output)[1] for output in alone),
    )


def generate(
    llm: Any, prompts: list[list[int]], limits: list[int], stops: list[int], shown: list[int | None] | None = None
) -> list[Any]:
    from vllm import SamplingParams

    parameters = [
        SamplingParams(temperature=0.0, max_tokens=limit, stop_token_ids=stops, logprobs=count)
        for limit, count in zip(limits, shown or [None] * len(limits), strict=True)
    ]
    found: list[Any] = llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
    return found


def fields_of(output: Any, stops: list[int]) -> dict[str, Any]:
    one = output.outputs[0]
    ids = list(one.token_ids)
    if ids and ids[-1] in stops:
        ids = ids[:-1]
    return {
        "ids": ids,
        "text": one.text,
        "finish_reason": one.finish_reason,
        "prompt_tokens": len(output.prompt_token_ids),
        "completion_tokens": len(one.token_ids),
        "latency_ms": (output.metrics.last_token_ts - output.metrics.queued_ts) * 1000,
        # at each place, the likeliest tokens and their log probabilities
        "likeliest": [[[i, entry.logprob] for i, entry in place.items()] for place in one.logprobs or []],
    }


def spent_ms(output: Any) -> tuple[float, float]:
    """Milliseconds until the first token, and from it to the last."""
    at = output.metrics
    return (at.first_token_ts - at.scheduled_ts) * 1000, (at.last_token_ts - at.first_token_ts) * 1000


def write(out: IO[str], **fields: Any) -> None:
    out.write(json.dumps(fields) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
