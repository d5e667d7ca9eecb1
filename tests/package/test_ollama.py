"""Ollama by its documented API: a real HTTP server on this machine that answers with a real llama.cpp."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_gemma

from potstill import llama, models, parity_ollama, prompt
from potstill.parity_engines import Questions
from potstill.stop import UNAVAILABLE, Stop

RUN = "batfit-tiny"


@pytest.fixture
def folder(copied: Path) -> Path:
    return copied / "models" / RUN / "package/gguf-f16"


@pytest.fixture
def questions(tiny: Path) -> Questions:
    tokenizer = models.load_tokenizer(tiny)
    messages = [prompt.messages(tiny_gemma.SYSTEM, text) for text in tiny_gemma.sentences(3, seed=9)]
    texts = [tokenizer.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m in messages]
    prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return Questions(prompts, texts, messages, [5, 6, 7], context=256, slots=1, shown=0, tokenizer=tokenizer)


@pytest.fixture
def ollama(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The API on a free port, and an `ollama` on PATH that writes down what it was told."""
    seen: dict[str, Any] = {"chats": [], "commands": tmp_path / "commands"}
    program = tmp_path / "bin/ollama"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {seen["commands"]}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with llama.serve(next(folder.glob("*.gguf")), context=256, parallel=1) as engine:

        class Api(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = seen["commands"].read_text().split()[1] if self.path == "/api/ps" else ""
                self.reply({"version": "0.99"} if self.path == "/api/version" else loaded(name))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen["chats"].append(body)
                text = "".join(llama.stream(engine, body["messages"], body["options"]["num_predict"]))
                counts = {"prompt_eval_count": 40, "eval_count": body["options"]["num_predict"]}
                times = {"load_duration": 7_000_000, "prompt_eval_duration": 2_000_000, "eval_duration": 1_000_000}
                message = {"role": "assistant", "content": text}
                self.reply({"message": message, "done_reason": "length", "total_duration": 10**7, **counts, **times})

            def reply(self, value: Any) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(value).encode())

            def log_message(self, *_: Any) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
            yield seen
            server.shutdown()


def loaded(name: str) -> dict[str, Any]:
    return {"models": [{"name": f"{name}:latest", "size": 123456789}]}


def test_a_model_is_made_asked_and_removed(ollama: dict[str, Any], folder: Path, questions: Questions) -> None:
    found = parity_ollama.ask(folder, questions)
    wanted = []
    with llama.serve(next(folder.glob("*.gguf")), context=256, parallel=1) as engine:
        wanted += [
            "".join(llama.stream(engine, m, n)) for m, n in zip(questions.messages, questions.limits, strict=True)
        ]
    assert [answer.text for answer in found.answers] == wanted
    assert [answer.completion_tokens for answer in found.answers] == [5, 6, 7]
    assert {answer.finish_reason for answer in found.answers} == {"length"}
    assert (found.version, found.load_ms, found.peak_bytes) == ("0.99", 7.0, 123456789)
    assert found.prompt_tokens_per_s == 20000
    assert found.decode_tokens_per_s == 6000
    # it shows neither ids nor odds
    assert found.read is None
    assert found.likeliest(0) is None
    made, removed = ollama["commands"].read_text().splitlines()
    name = made.split()[1]
    assert made == f"create {name} -f {folder.absolute() / 'Modelfile'}"
    assert removed == f"rm {name}"
    # greedy, in the package's context, and not in pieces
    options = {"temperature": 0, "top_k": 1, "seed": 0, "num_ctx": 256}
    assert [chat["options"] for chat in ollama["chats"][1:]] == [{**options, "num_predict": n} for n in (5, 6, 7)]
    assert {(chat["model"], chat["stream"]) for chat in ollama["chats"]} == {(name, False)}


def test_an_ollama_on_another_machine_is_not_asked(
    folder: Path, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://models.example.com:11434")
    with pytest.raises(Stop, match="this machine only") as caught:
        parity_ollama.ask(folder, questions)
    assert caught.value.code == UNAVAILABLE


def test_an_ollama_that_is_not_started_is_a_stop(
    folder: Path, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    with pytest.raises(Stop, match=r"does not answer on 127\.0\.0\.1:1.*ollama serve") as caught:
        parity_ollama.ask(folder, questions)
    assert caught.value.code == UNAVAILABLE


def test_what_ollama_cannot_make_is_a_stop_with_its_words(
    ollama: dict[str, Any], folder: Path, questions: Questions, tmp_path: Path
) -> None:
    (tmp_path / "bin/ollama").write_text("#!/bin/sh\necho 'Error: no such architecture' >&2\nexit 1\n")
    with pytest.raises(Stop, match=r"ollama create failed \(exit 1\): Error: no such architecture"):
        parity_ollama.ask(folder, questions)
