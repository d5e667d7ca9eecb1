"""Runs a GGUF file in llama.cpp, inside this process and without a network port.

    with llama.serve(Path("model.gguf"), context=1024) as server:
        for answer in llama.generate(server, prompts, max_new_tokens=128): ...

llama.cpp's own server (xllamacpp) listens on a Unix socket in a private folder, so several prompts are answered at
once by its slots and nothing is reachable from outside. Prompts are token ids: what is compared is the model, and
`tokenize` compares the tokenizer apart from it.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from potstill.stop import BUG, DATA, Stop

# as torch's: on a busy machine threads that wait for each other take ten times as long
THREADS = int(given) if (given := os.environ.get("OMP_NUM_THREADS", "")).isdigit() else 2
TIMEOUT_S = 600
GREEDY = {"temperature": 0.0, "top_k": 1, "samplers": ["top_k"], "return_tokens": True}


@dataclass(frozen=True)
class Server:
    """A loaded model. `context` is the number of tokens one slot holds, prompt and answer together."""

    socket: str
    context: int
    parallel: int
    load_ms: float


@dataclass(frozen=True)
class Generated:
    """One answer: `ids` without the stop token, `text` as llama.cpp detokenizes them.

    `latency_ms` is the wall time of the request, waiting for other slots included; `prompt_ms` and `decode_ms` are
    llama.cpp's own. `likeliest[t]` has the log probabilities of the likeliest tokens at place t, before any sampler.
    """

    index: int
    ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    prompt_ms: float
    decode_ms: float
    likeliest: list[dict[int, float]]


@contextlib.contextmanager
def serve(gguf: Path, context: int, parallel: int = 4, threads: int = THREADS) -> Iterator[Server]:
    """Loads `gguf` with `parallel` slots of `context` tokens each. Raises Stop 65 when llama.cpp cannot load it."""
    import xllamacpp

    if not Path(gguf).is_file():
        raise Stop(f"{gguf} is not there. Run fab package.export.", DATA)
    folder = tempfile.mkdtemp(prefix="potstill-")  # 0700, and short: a socket's path has at most 107 bytes
    address = f"{folder}/llama.sock"
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(gguf)
    parameters.hostnames = [address]
    parameters.n_parallel = parallel
    parameters.n_ctx = context * parallel
    parameters.n_threads_http = parallel + 2
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    parameters.verbosity = 0
    parameters.offline = True
    parameters.ui = parameters.warmup = parameters.fit_params = False
    parameters.cache_ram_mib = 0
    try:
        started = time.perf_counter()
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError:
            raise Stop(f"llama.cpp cannot load {gguf}. Run fab package.verify, or export again.", DATA) from None
        finally:
            _take_signals_back()
        loaded = Server(address, context, parallel, (time.perf_counter() - started) * 1000)
        try:
            # a server that is ended before its loop has begun never ends; an answer proves that the loop runs
            _complete(loaded, 0, [0], 1)
            yield loaded
        finally:
            # its destructor ends the threads, which a traceback that holds this frame would keep alive
            del server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def generate(
    server: Server, prompts: list[list[int]], max_new_tokens: int | list[int], shown: int = 0, top: int = 0
) -> Iterator[Generated]:
    """Greedy answers to prompts given as token ids, in order, as many at once as the server has slots.

    The first `shown` answers come with the `top` likeliest tokens of every place.
    """
    limits = max_new_tokens if isinstance(max_new_tokens, list) else [max_new_tokens] * len(prompts)
    for prompt, limit in zip(prompts, limits, strict=True):
        if len(prompt) + limit > server.context:
            raise Stop(
                f"a prompt of {len(prompt)} tokens and an answer of {limit} do not fit the context of "
                f"{server.context} tokens; raise num_ctx in configs/package/default.yaml",
                DATA,
            )
    with ThreadPoolExecutor(server.parallel) as pool:
        try:
            yield from pool.map(
                lambda i: _complete(server, i, prompts[i], limits[i], top if i < shown else 0), range(len(prompts))
            )
        finally:
            pool.shutdown(cancel_futures=True)


def tokenize(server: Server, text: str) -> list[int]:
    """llama.cpp's token ids of `text`, control tokens recognised, none added."""
    return request(server, "/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]


def stream(server: Server, messages: list[dict[str, str]], max_new_tokens: int) -> Iterator[str]:
    """One greedy answer to chat messages in pieces, rendered by llama.cpp with the template in the GGUF."""
    body = {"messages": messages, "max_tokens": max_new_tokens, "temperature": 0.0, "top_k": 1, "samplers": ["top_k"]}
    with _posted(server, "/v1/chat/completions", {**body, "stream": True}) as response:
        for line in response:
            data = line.decode().removeprefix("data: ").strip()
            if line.startswith(b"data: ") and data != "[DONE]":
                yield json.loads(data)["choices"][0]["delta"].get("content") or ""


def request(server: Server, path: str, body: dict[str, Any]) -> Any:
    """Posts JSON to one of llama.cpp's routes. Raises Stop 65 with llama.cpp's own words when it refuses."""
    with _posted(server, path, body) as response:
        return json.loads(response.read())


@contextlib.contextmanager
def _posted(server: Server, path: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(TIMEOUT_S)
        connection.sock.connect(server.socket)
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            code = BUG if response.status >= http.client.INTERNAL_SERVER_ERROR else DATA
            raise Stop(f"llama.cpp refused {path}: {json.loads(response.read())['error']['message']}", code)
        yield response
    finally:
        connection.close()


def _complete(server: Server, index: int, prompt: list[int], max_new_tokens: int, top: int = 0) -> Generated:
    started = time.perf_counter()
    # a reused prefix is computed in other batches and can differ in the last bit, so every prompt is read anew
    body = {"prompt": prompt, "n_predict": max_new_tokens, "cache_prompt": False, **GREEDY}
    body |= {"n_probs": top} if top else {}
    answer = request(server, "/completion", body)
    return Generated(
        index=index,
        ids=answer["tokens"],
        text=answer["content"],
        finish_reason="length" if answer["stop_type"] == "limit" else "stop",
        prompt_tokens=answer["tokens_evaluated"],
        completion_tokens=answer["tokens_predicted"],
        latency_ms=(time.perf_counter() - started) * 1000,
        prompt_ms=answer["timings"]["prompt_ms"],
        decode_ms=answer["timings"]["predicted_ms"],
        likeliest=[
            {entry["id"]: entry["logprob"] for entry in place["top_logprobs"]}
            for place in answer.get("completion_probabilities", [])
        ],
    )


def _take_signals_back() -> None:
    """llama.cpp's server takes SIGINT and SIGTERM for itself; Ctrl-C must go on raising KeyboardInterrupt."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.getsignal(number))
