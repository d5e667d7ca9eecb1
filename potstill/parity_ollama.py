"""Asks Ollama: makes a model of the artifact's own Modelfile, chats with it on this machine, and removes it again.

Source: Ollama's API reference (docs/api.md: /api/version, /api/chat, /api/ps) and its command line (create, rm).
Messages go in as chat, since the Modelfile's template is what is tried. Ollama shows neither token ids nor odds.
"""

import http.client
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from potstill import progress
from potstill.files import sha256_text
from potstill.parity_engines import TIMED, Answer, Answered, Questions, rate
from potstill.stop import DATA, UNAVAILABLE, Stop

DEFAULT = "127.0.0.1:11434"
LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104, what OLLAMA_HOST is set to for a server
TIMEOUT_S = 600
MS = 1e6  # nanoseconds


def ask(folder: Path, questions: Questions) -> Answered:
    """Raises Stop 69 when no Ollama answers on this machine, 65 when it cannot make or run the model."""
    version = request("GET", "/api/version", None)["version"]
    name = f"potstill-parity-{sha256_text(str(folder.absolute()))[:12]}"
    command("create", name, "-f", str((folder / "Modelfile").absolute()))
    try:
        first = chat(name, questions, 0)
        loaded = [entry for entry in request("GET", "/api/ps", None)["models"] if entry["name"].startswith(name)]
        started = time.perf_counter()
        numbers = range(len(questions.prompts))
        rows = [chat(name, questions, i) for i in progress.track(numbers, f"parity {folder.name}-ollama")]
        wall_s = time.perf_counter() - started
    finally:
        command("rm", name)
    alone = rows[:TIMED]
    return Answered(
        version=version,
        answers=[answer_of(row) for row in rows],
        read=None,
        load_ms=first["load_duration"] / MS,
        peak_bytes=loaded[0]["size"] if loaded else None,
        prompt_tokens_per_s=rate(total(alone, "prompt_eval_count"), total(alone, "prompt_eval_duration") / MS),
        decode_tokens_per_s=rate(total(alone, "eval_count"), total(alone, "eval_duration") / MS),
        answers_per_s=len(rows) / wall_s,
    )


def chat(name: str, questions: Questions, index: int) -> dict[str, Any]:
    options = {"temperature": 0, "top_k": 1, "seed": 0, "num_ctx": questions.context}
    options |= {"num_predict": questions.limits[index]}
    body = {"model": name, "messages": questions.messages[index], "stream": False, "options": options}
    found: dict[str, Any] = request("POST", "/api/chat", body)
    return found


def answer_of(row: dict[str, Any]) -> Answer:
    return Answer(
        text=row["message"]["content"],
        ids=None,
        finish_reason="length" if row.get("done_reason") == "length" else "stop",
        prompt_tokens=row.get("prompt_eval_count", 0),
        completion_tokens=row["eval_count"],
        latency_ms=row["total_duration"] / MS,
    )


def total(rows: list[dict[str, Any]], key: str) -> int:
    # a prompt that Ollama has still in its cache is not counted
    return sum(row.get(key, 0) for row in rows)


def address() -> tuple[str, int]:
    """Where Ollama listens. Raises Stop 69 for OLLAMA_HOST on another machine: prompts do not leave this one."""
    given = os.environ.get("OLLAMA_HOST", DEFAULT)
    parts = urlsplit(given if "//" in given else f"//{given}")
    host = parts.hostname or "127.0.0.1"
    if host not in LOCAL:
        raise Stop(f"OLLAMA_HOST is {given!r}: parity asks Ollama on this machine only. Unset it.", UNAVAILABLE)
    return ("127.0.0.1" if host == "0.0.0.0" else host), parts.port or 11434  # noqa: S104


def request(method: str, path: str, body: dict[str, Any] | None) -> Any:
    connection = http.client.HTTPConnection(*address(), timeout=TIMEOUT_S)
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        text = response.read().decode("utf-8", errors="replace")
    except OSError as error:
        where = ":".join(map(str, address()))
        raise Stop(f"Ollama does not answer on {where} ({error}). Start it: ollama serve.", UNAVAILABLE) from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise Stop(f"Ollama refused {path} ({response.status}): {text[:300]}", DATA)
    return json.loads(text)


def command(*arguments: str) -> None:
    done = subprocess.run(["ollama", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise Stop(f"ollama {arguments[0]} failed (exit {done.returncode}): {told}", DATA)
