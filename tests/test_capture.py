"""potstill/capture*.py: calls through LiteLLM's own machinery to a real HTTP server, many processes, hostile texts."""

import asyncio
import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill import capture, capture_calls, capture_spool, database, judge
from potstill.capture_calls import Skipped
from potstill.records import Exemplar, SlotSpec
from potstill.stop import BUSY, IO, USAGE, Stop

# LiteLLM's own types make pydantic warn
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
REPO = Path(__file__).parents[1]
ANSWER = '{"a": 1}'
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a?"}]
SECRETS = {"api_key": "sk-secret-1", "extra_headers": {"X-Secret": "secret-2"}, "user": "secret-3"}


@pytest.fixture(autouse=True)
def _fresh_counts() -> None:
    capture._renew()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data/calls.duckdb"


def rows(path: Path, *tasks: str) -> list[Exemplar]:
    return [row for row in database.read(path, tasks or ["t"]) if isinstance(row, Exemplar)]


def spooled(path: Path) -> list[Path]:
    return sorted(capture_spool.folder_of(path).glob("*.jsonl"))


def program(path: Path, code: str, *arguments: str) -> "subprocess.Popen[str]":
    """Starts a program that has `path`, `capture` and `sys`."""
    head = f"import sys\nfrom pathlib import Path\nfrom potstill import capture\npath = Path({str(path)!r})\n"
    command = [sys.executable, "-c", head + code, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_call_becomes_a_row_of_the_table(path: Path):
    # words that mean something in a mark are plain metadata here
    metadata = {"group": "g1", "consent": True, "system": "ios", "task": "of the user"}
    specs = {"a": SlotSpec(level="numeric_tol", tolerance=0.5), "b": {"level": "exact"}}
    id = capture.record("t", CHAT, ANSWER, database=path, metadata=metadata, slot_specs=specs, merge_every=0)
    assert not path.exists()
    assert capture.flush(path) == capture.Flushed(1, {})
    (row,) = rows(path)
    assert row.id == id
    assert (row.prompt_text, row.system_prompt, row.response_strong) == ("What is a?", "Be brief.", ANSWER)
    assert row.metadata.pop("captured_at").endswith("+00:00")
    assert row.metadata == metadata
    assert row.slot_specs == {"a": specs["a"], "b": SlotSpec(level="exact")}
    assert capture.counts() == {"captured": 1}
    # nothing is left, and nothing happens a second time
    assert spooled(path) == []
    assert capture.flush(path) == capture.Flushed(0, {})


def test_two_alike_calls_are_two_rows_and_one_call_told_twice_is_one(path: Path):
    ids = [capture.record("t", "p", "r", database=path, merge_every=0) for _ in range(2)]
    ids += [capture.record("t", "p", "r", database=path, merge_every=0, call_id="call 7") for _ in range(2)]
    # an id that a client chose is no reason to lose another call
    ids += [capture.record("t", "other", "r", database=path, merge_every=0, call_id="call 7")]
    assert len(set(ids)) == 4
    capture.flush(path)
    assert {row.id for row in rows(path)} == set(ids)


@pytest.mark.parametrize(
    ("messages", "wanted"),
    [
        (CHAT, ("Be brief.", "What is a?")),
        ([{"role": "developer", "content": "d"}, *CHAT], ("d\n\nBe brief.", "What is a?")),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], (None, "a\n\nb")),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], (None, "ab")),
        ([SimpleNamespace(role="user", content="a")], (None, "a")),
        ([*CHAT, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}], "several_turns"),
        ([*CHAT, {"role": "tool", "content": "x"}], "several_turns"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "not_text"),
        ([{"role": "user", "content": 7}], "not_text"),
        ([{"role": "system", "content": "x"}, {"role": "user", "content": " "}], "no_prompt"),
        ([], "no_prompt"),
        ([{"role": "user", "content": "redacted-by-litellm"}], "redacted"),
    ],
)
def test_a_chat_of_one_turn_is_an_exemplar_and_no_other(messages, wanted):
    if isinstance(wanted, tuple):
        assert capture_calls.turn(messages) == wanted
    else:
        with pytest.raises(Skipped) as skipped:
            capture_calls.turn(messages)
        assert skipped.value.reason == wanted


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        ('{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1]\n```\n", [1]),
        ("```python\nx\n```", "```python\nx\n```"),
        ("plain text", "plain text"),
        # Python takes these for JSON, DuckDB or the next reader does not
        ("NaN", "NaN"),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
        ("1e999", "1e999"),
        ("\ufeff{}", "\ufeff{}"),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5_000, "9" * 5_000),
    ],
)
def test_any_answer_can_be_stored(path: Path, answer: str, stored):
    capture.record("t", "p", answer, database=path, merge_every=0)
    capture.flush(path)
    assert json.loads(rows(path)[0].response_strong) == stored


def test_hostile_texts_come_back_and_stop_no_other_row(path: Path):
    hostile = [
        "\x00",
        "a \u2028 \u2029 \x85 b",
        "\ud800 lone",
        "\ud83d\ude00",
        "\x1b[31m",
        "a\r\nb",
        "x" * 300_000,
        "'\";--",
    ]
    for text in hostile:
        metadata = {"k\ud800": text, "n": float("nan"), "o": object, "s": (1, {2})}
        assert capture.record("t", text, text, system=text, database=path, metadata=metadata, merge_every=0)
    assert capture.flush(path).written == len(hostile)
    wanted = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in hostile]
    found = rows(path)
    assert {row.prompt_text for row in found} == set(wanted)
    assert {row.system_prompt for row in found} == set(wanted)
    assert found[0].metadata["n"] == "nan"
    assert found[0].metadata["s"] == [1, [2]]


texts = st.text(max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts, lambda inner: st.lists(inner), max_leaves=5
)


@given(prompt=texts, response=texts, metadata=st.dictionaries(texts, values, max_size=3))
def test_what_was_appended_is_read_back(tmp_path_factory, prompt, response, metadata):
    folder = tmp_path_factory.mktemp("spool")
    given_row = {"id": "1", "task": "t", "prompt_text": prompt, "response_strong": response, "metadata": metadata}
    row = Exemplar.model_validate(capture_calls.plain(given_row))
    capture_spool.append(folder, row)
    refused: list[tuple[str, bytes]] = []
    (sealed,) = capture_spool.seal(folder)
    assert list(capture_spool.read(sealed, refused)) == [row]
    assert refused == []
    assert sealed.read_bytes().count(b"\n") == 1


def test_damaged_and_foreign_lines_are_set_aside_and_the_others_kept(path: Path, caplog):
    for n in range(3):
        capture.record("t", f"prompt {n}", "r", database=path, merge_every=0)
    (file,) = spooled(path)
    lines = file.read_bytes().splitlines(keepends=True)
    flipped = lines[1].replace(b"prompt 1", b"prompt 9")
    newer = lines[1].replace(b"potstill1", b"potstill2")
    file.write_bytes(lines[0] + flipped + b"\n" + newer + b"prose\n" + lines[2][:40])
    # the next line does not stick to the one that was cut off
    capture.record("t", "after", "r", database=path, merge_every=0)
    with caplog.at_level(logging.WARNING):
        assert capture.flush(path) == capture.Flushed(2, {"damaged": 4, "other_version": 1})
    assert {row.prompt_text for row in rows(path)} == {"prompt 0", "after"}
    (kept,) = spooled(path)
    assert kept.name.endswith(".refused.jsonl")
    assert kept.read_bytes().splitlines() == [flipped[:-1], b"", newer[:-1], b"prose", lines[2][:40]]
    assert "4 damaged, 1 other_version" in caplog.text
    assert "prompt" not in caplog.text
    # looked at once, and not again
    assert capture.flush(path) == capture.Flushed(0, {})


def test_an_open_database_loses_no_call(path: Path, caplog):
    database.write(path, [])
    code = "import duckdb\nheld = duckdb.connect(str(path))\nprint('open', flush=True)\nsys.stdin.readline()"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import sys\npath = {str(path)!r}\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "open\n"
    with caplog.at_level(logging.WARNING):
        for n in range(4):
            assert capture.record("t", f"p{n}", "r", database=path, merge_every=2)
            quiesce()
    assert caplog.text.count("captured calls wait in") == 1
    with pytest.raises(Stop, match="is open in another process") as stop:
        capture.flush(path)
    assert stop.value.code == BUSY
    holder.communicate("\n")
    assert capture.flush(path).written == 4
    assert len(rows(path)) == 4


def quiesce() -> None:
    for thread in threading.enumerate():
        if thread.name == "potstill-capture":
            thread.join()


def test_a_table_that_cannot_take_rows_is_named_and_keeps_the_spool(path: Path):
    import duckdb

    path.parent.mkdir(parents=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE examples(id TEXT, task TEXT, prompt_text TEXT, response_strong JSON)")
    capture.record("t", "p", "r", database=path, merge_every=0)
    with pytest.raises(Stop, match=r"captured calls stay in .*calls.captured") as stop:
        capture.flush(path)
    assert stop.value.code == IO
    path.unlink()
    assert capture.flush(path).written == 1


def test_every_so_many_calls_and_the_end_of_a_program_fill_the_table(path: Path):
    for n in range(4):
        assert not path.exists()
        capture.record("t", f"p{n}", "r", database=path, merge_every=4)
    quiesce()
    assert len(rows(path)) == 4
    capture.record("t", "p4", "r", database=path, merge_every=4)
    started = program(path, "capture.record('t', 'last', 'r', database=path)")
    assert started.communicate()[1] == ""
    assert {row.prompt_text for row in rows(path)} == {"p0", "p1", "p2", "p3", "p4", "last"}


def test_four_processes_and_threads_at_once_while_another_merges(path: Path):
    code = (
        "import threading\n"
        "def work(t):\n"
        "    for n in range(50):\n"
        "        assert capture.record('t', f'{sys.argv[1]} {t} {n}', 'r', database=path, merge_every=40)\n"
        "threads = [threading.Thread(target=work, args=(t,)) for t in range(3)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
    )
    workers = [program(path, code, str(number)) for number in range(4)]
    while any(worker.poll() is None for worker in workers):
        capture.flush(path)
        time.sleep(0.02)
    assert [worker.communicate()[1] for worker in workers] == [""] * 4
    capture.flush(path)
    wanted = {f"{p} {t} {n}" for p in range(4) for t in range(3) for n in range(50)}
    found = [row.prompt_text for row in rows(path)]
    assert len(found) == len(wanted)
    assert set(found) == wanted
    assert spooled(path) == []


def test_nobody_waits_for_a_file_that_another_holds(path: Path):
    capture.record("t", "first", "r", database=path, merge_every=0)
    (file,) = spooled(path)
    with open(file, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert capture.record("t", "second", "r", database=path, merge_every=0)
        assert len(spooled(path)) == 2
        # what is held is left for the next time
        assert capture.flush(path).written == 1
    assert capture.flush(path).written == 1
    assert {row.prompt_text for row in rows(path)} == {"first", "second"}


def test_a_file_that_is_taken_away_between_open_and_lock_gets_no_line(path: Path, monkeypatch):
    capture.record("t", "first", "r", database=path, merge_every=0)
    folder, lock, taken = capture_spool.folder_of(path), fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not taken:
            taken.append(True)
            taken.extend(capture_spool.seal(folder))
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    capture.record("t", "second", "r", database=path, merge_every=0)
    sealed = taken[1]
    assert b"first" in sealed.read_bytes()
    assert b"second" not in sealed.read_bytes()
    assert capture.flush(path).written == 2


def test_a_forked_child_keeps_no_lock_and_may_capture_too(path: Path):
    folder = capture_spool.folder_of(path)
    folder.mkdir(parents=True)
    with capture_spool.merge_lock(folder, wait=False) as ours, capture._state.lock:
        assert ours
        child = os.fork()
        if child == 0:
            time.sleep(0.2)
            os._exit(0 if capture.record("t", "child", "r", database=path, merge_every=0) else 1)
    # the child has the lock's file open, and the parent has let go
    with capture_spool.merge_lock(folder, wait=False) as ours:
        assert ours
    capture.record("t", "parent", "r", database=path, merge_every=0)
    assert os.waitpid(child, 0)[1] == 0
    capture.flush(path)
    assert {row.prompt_text for row in rows(path)} == {"child", "parent"}


def test_a_full_disk_is_told_once_and_leaves_whole_lines(path: Path):
    # a limit on the size of files: the kernel writes what fits and refuses the rest
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "print([bool(capture.record('t', 'x' * 1000, 'r', database=path, merge_every=0)) for _ in range(4)])\n"
        "print(capture.counts())\n"
    )
    out, told = program(path, code).communicate()
    assert out == "[True, True, False, False]\n{'captured': 2, 'not_written': 2}\n"
    assert told.count("not captured") == 1
    assert capture.flush(path) == capture.Flushed(2, {})


def test_a_logger_that_cannot_work_never_raises(path: Path, caplog, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path.parent.mkdir(parents=True)
    capture_spool.folder_of(path).write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert [capture.record("t", "p", "r", database=path) for _ in range(3)] == [None] * 3
        assert capture.record("t", "p", "r") is None
        assert capture.record("t", "p", None, database=path) is None
        assert capture.record(None, "p", "secret text", database=path) is None
        assert capture.record("t", "p", "r", slot_specs={"a": {"level": 1}}, database=path) is None
        assert capture.record("t", "p", "r", slot_specs="secret", database=path) is None
        assert capture.record("t", 7, "r", database=path) is None
    assert capture.counts() == {"not_written": 3, "no_database": 1, "empty_answer": 1, "malformed": 4}
    assert len(caplog.records) == 4
    assert "secret" not in caplog.text
    with pytest.raises(Stop, match="name one") as stop:
        capture.callback("t")
    assert stop.value.code == USAGE


def test_importing_it_imports_nothing_heavy():
    code = "from potstill import capture; import sys; print({'litellm', 'duckdb', 'torch'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# --- through LiteLLM


class Server:
    """An OpenAI-compatible server; the user's text names what it answers with."""

    def __init__(self):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                choices = answer_to(body["messages"][-1]["content"])
                status = 200 if choices is not None else 400
                kind, data = "application/json", json.dumps(whole(choices, "chat.completion"))
                if status == 400:
                    data = json.dumps({"error": {"message": "no", "type": "invalid_request_error"}})
                elif body.get("stream"):
                    kind, data = "text/event-stream", streamed(choices)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data.encode())))
                self.end_headers()
                self.wfile.write(data.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def answer_to(text: str) -> list[dict] | None:
    message: dict = {"role": "assistant", "content": ANSWER}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    if text == "fail":
        return None
    if text in ("length", "content_filter"):
        choice["finish_reason"] = text
    if text == "tool":
        function = {"name": "f", "arguments": "{}"}
        message |= {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    if text == "empty":
        message["content"] = " "
    return [choice, {**choice, "index": 1}] if text == "two" else [choice]


def whole(choices: list[dict] | None, kind: str) -> dict:
    usage = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
    return {"id": "1", "object": kind, "created": 1, "model": "m-2026", "choices": choices, "usage": usage}


def streamed(choices: list[dict]) -> str:
    parts = []
    content = choices[0]["message"]["content"]
    for text in (content[:3], content[3:]):
        delta = {"role": "assistant", "content": text}
        parts.append(whole([{"index": 0, "delta": delta, "finish_reason": None}], "chat.completion.chunk"))
    parts.append(
        whole([{"index": 0, "delta": {}, "finish_reason": choices[0]["finish_reason"]}], "chat.completion.chunk")
    )
    return "".join(f"data: {json.dumps(part)}\n\n" for part in parts) + "data: [DONE]\n\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def litellm():
    return judge.load_litellm()


@pytest.fixture
def ask(litellm, server: Server, path: Path):
    """Has LiteLLM ask the server with a callback in place: ask(text, mode, task, system, complete, **options)."""

    def asking(text, mode="sync", task="t", system=True, complete=litellm.completion, **options):
        callback = capture.callback(task, database=path, system=system, merge_every=0)
        before = sum(capture.counts().values())
        litellm.callbacks.append(callback)
        call = {
            "model": "openai/m",
            "messages": [CHAT[0], {"role": "user", "content": text}],
            "api_base": server.url,
            "num_retries": 0,
            "max_retries": 0,
            **SECRETS,
            **options,
        }
        try:
            talk(litellm, mode, call, complete)
            wait_for(lambda: sum(capture.counts().values()) > before)
        finally:
            for callbacks in (litellm.callbacks, litellm.success_callback, litellm._async_success_callback):
                while callback in callbacks:
                    callbacks.remove(callback)
            for callbacks in (litellm.failure_callback, litellm._async_failure_callback):
                while callback in callbacks:
                    callbacks.remove(callback)
        return capture.counts()

    return asking


def talk(litellm, mode: str, call: dict, complete) -> None:
    async def one():
        found = await litellm.acompletion(**call, stream=mode == "async stream")
        if mode == "async stream":
            async for _ in found:
                pass
        # LiteLLM's worker logs between two steps of the loop
        deadline = time.monotonic() + 5
        while not capture.counts() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    try:
        if mode.startswith("async"):
            asyncio.run(one())
        else:
            found = complete(**call, stream=mode == "stream")
            if mode == "stream":
                list(found)
    except litellm.BadRequestError:
        pass


def wait_for(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "LiteLLM told nothing"
        time.sleep(0.01)


@pytest.mark.parametrize("mode", ["sync", "stream", "async", "async stream"])
def test_a_call_through_litellm_is_captured_once_without_its_secrets(ask, path: Path, mode: str):
    marks = {"potstill": {"group": "g", "source_url": "https://shop.example/1"}}
    counts = ask("question", mode, metadata=marks, temperature=0.25, max_tokens=50)
    assert counts == {"captured": 1}
    assert all(
        secret not in spooled(path)[0].read_text() for secret in ("sk-secret", "secret-2", "secret-3", "127.0.0.1")
    )
    capture.flush(path)
    (row,) = rows(path)
    assert (row.system_prompt, row.prompt_text, row.response_strong) == ("Be brief.", "question", ANSWER)
    assert set(row.metadata) - {"cost_usd"} == {
        *("captured_at", "model", "prompt_tokens", "completion_tokens", "params", "group", "source_url")
    }
    assert row.metadata["model"] == "openai/m"
    assert row.metadata["params"] == {"temperature": 0.25, "max_tokens": 50}
    assert (row.metadata["prompt_tokens"], row.metadata["completion_tokens"]) == (11, 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("length", "cut_off"),
        ("content_filter", "filtered"),
        ("tool", "tool_call"),
        ("empty", "empty_answer"),
        ("two", "several_answers"),
        ("fail", "failed_call"),
    ],
)
def test_what_is_no_exemplar_is_counted_by_reason(ask, path: Path, caplog, text: str, reason: str):
    with caplog.at_level(logging.WARNING, "potstill.capture"):
        assert ask(text) == {reason: 1}
        assert ask(text) == {reason: 2}
    assert [record.name for record in caplog.records if reason in record.message] == ["potstill.capture"]
    assert spooled(path) == []


def test_a_streamed_answer_that_was_cut_off_and_an_async_failure_are_counted(ask):
    assert ask("length", "async stream") == {"cut_off": 1}
    assert ask("fail", "async") == {"cut_off": 1, "failed_call": 1}


def test_a_call_says_its_own_task_or_stays_out(ask, path: Path, caplog):
    with caplog.at_level(logging.WARNING, "potstill.capture"):
        assert ask("a", task=None) == {"no_task": 1}
        assert ask("b", metadata={"potstill": False}) == {"no_task": 2}
    assert not [record for record in caplog.records if record.name.startswith("potstill")]
    marks = {"potstill": {"task": "other", "system": "mine", "slot_specs": {"a": {"level": "exact"}}}}
    ask("c", task=None, metadata=marks)
    ask("d", system=False)
    assert ask("e", metadata={"potstill": "other"})["malformed"] == 1
    capture.flush(path)
    (other,) = rows(path, "other")
    assert (other.prompt_text, other.system_prompt, other.slot_specs) == ("c", "mine", {"a": SlotSpec(level="exact")})
    (row,) = rows(path)
    assert (row.prompt_text, row.system_prompt) == ("d", None)


def test_redacted_texts_are_no_exemplars(ask, litellm, path: Path, monkeypatch):
    monkeypatch.setattr(litellm, "turn_off_message_logging", True)
    assert ask("a") == {"redacted": 1}
    assert spooled(path) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cache_hit": True}, "cache_hit"),
        ({"call_type": "aembedding"}, "other_call"),
        ({"litellm_params": None}, "no_task"),
        ({"litellm_params": {"metadata": {"potstill": 7}}}, "malformed"),
        ({"litellm_params": {"litellm_metadata": {"potstill": False}}}, "no_task"),
    ],
)
def test_events_that_are_no_exemplars(change: dict, reason: str):
    event = {"call_type": "completion", "litellm_params": {"metadata": {"potstill": {"task": "t"}}}, "messages": CHAT}
    message = SimpleNamespace(content=ANSWER)
    response = SimpleNamespace(choices=[SimpleNamespace(message=message, finish_reason="stop")])
    assert capture_calls.of_event(event, response, None).response == ANSWER
    with pytest.raises(Skipped) as skipped:
        capture_calls.of_event({**event, **change}, response, None)
    assert skipped.value.reason == reason


def test_litellms_router_is_captured_too(ask, litellm, server: Server, path: Path):
    model = {"model": "openai/m", "api_base": server.url, "api_key": "sk-secret-1"}
    router = litellm.Router(model_list=[{"model_name": "strong", "litellm_params": model}], num_retries=0)
    marks = {"potstill": {"group": "g"}}
    assert ask("a", complete=router.completion, model="strong", metadata=marks) == {"captured": 1}
    capture.flush(path)
    assert rows(path)[0].metadata["group"] == "g"


def test_the_programs_of_the_documentation_run_as_they_stand(server: Server, tmp_path: Path):
    text = (REPO / "docs/capture.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    settings = {
        "OPENAI_API_KEY": "sk-secret-1",
        "OPENAI_BASE_URL": server.url,
        "OPENAI_API_BASE": server.url,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONPATH": str(REPO),
    }
    for code in programs:
        command = [sys.executable, "-W", "ignore", "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    found = rows(tmp_path / "data/raw/dataset.duckdb", "parse")
    assert {row.metadata["group"] for row in found} == {"customer-17", "17"}
    assert [json.loads(row.response_strong) for row in found] in (
        [{"a": 1}, {"kind": "lid"}],
        [{"kind": "lid"}, {"a": 1}],
    )
