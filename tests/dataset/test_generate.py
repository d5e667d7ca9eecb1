"""dataset.generate: the seeded generator, and a strong model behind a real HTTP server, well and badly behaved."""

import _thread
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from potstill import database, judge_calls, teacher
from potstill.records import Exemplar
from potstill.stop import REJECT, UNAVAILABLE, USAGE, Stop
from potstill.workloads import coach
from projects import REPO, add_workload
from scripts.dataset import generate
from service import USED, Fault, Service

# LiteLLM's own types make pydantic warn
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydantic")
PRICE_IN, PRICE_OUT = 2.0, 8.0  # USD per million tokens
COST = (USED["prompt_tokens"] * PRICE_IN + USED["completion_tokens"] * PRICE_OUT) / 1e6


@pytest.fixture
def service():
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def folder(project_folder: Path, service: Service, monkeypatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
    monkeypatch.setattr(judge_calls, "BACKOFF_MAX_S", 0.01)
    service.known = {row.prompt_text: row.response_strong for row in coach.generate(200, 1)}
    return project_folder


def options(service: Service, count: int, *more: str) -> list[str]:
    price = ["--price", f"{PRICE_IN},{PRICE_OUT}"]
    server = ["--model", "openai/test-model", "--api-base", service.url, *price, "--yes"]
    return ["-w", "coach", "--count", str(count), "--concurrency", "4", *server, *more]


def stored() -> list[Exemplar]:
    return [row for row in database.read(Path("data/raw/dataset.duckdb"), coach.SCHEMAS) if isinstance(row, Exemplar)]


def report() -> dict:
    return json.loads(Path("reports/coach/generated.json").read_text())


def drafts(count: int) -> list[Exemplar]:
    return list(coach.generate(count, 1))


# --- the seeded generator


def test_the_seeded_generator_writes_rows_once_and_says_who_made_them(project_folder, capsys):
    generate.main(["-w", "coach", "--count", "30", "--dry-run"])
    assert not Path("data/raw").exists()
    for _ in range(2):
        generate.main(["-w", "coach", "--count", "30"])
    rows = stored()
    assert {row.id: row.response_strong for row in rows} == {row.id: row.response_strong for row in drafts(30)}
    assert {row.metadata["generated_by"] for row in rows} == {"seed 1"}
    generate.main(["-w", "coach", "--count", "10", "--seed", "2"])
    assert len(stored()) == 40
    assert capsys.readouterr().out.splitlines()[-1] == "next: fab dataset.clean -w coach"


def test_a_workload_without_a_generator_says_so(project_folder):
    with pytest.raises(Stop, match="no generate") as stopped:
        generate.main(["-w", "batfit", "--count", "3"])
    assert stopped.value.code == USAGE


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--count", "1", "--concurrency", "0"], ["--max-cost", "-1"]])
def test_impossible_numbers_are_refused(project_folder, wrong):
    with pytest.raises(Stop) as stopped:
        generate.main(["-w", "coach", *wrong])
    assert stopped.value.code == USAGE


# --- a strong model


def test_a_models_answers_are_checked_and_kept_and_never_asked_for_twice(folder, service, capsys):
    generate.main(options(service, 12))
    out = capsys.readouterr().out
    assert re.search(r"12 prompts to openai/test-model: about [\d,]+ tokens in and [\d,]+ out", out)
    assert re.search(r"about 0\.\d+ USD, at most 0\.\d+ USD; --max-cost is 1\.0 USD", out)
    assert "12 kept, 0 rejected" in out
    assert service.times_asked() == dict.fromkeys((row.prompt_text for row in drafts(12)), 1)
    rows = {row.prompt_text: row for row in stored()}
    for draft in drafts(12):
        row = rows[draft.prompt_text]
        assert (row.task, row.response_strong) == (draft.task, draft.response_strong)
        assert row.id != draft.id
        assert row.metadata["generated_by"] == row.metadata["model"] == "openai/test-model"
        assert row.metadata["group"] == draft.metadata["group"]
        assert row.metadata["prompt_tokens"] == 1000
    assert report()["cost_usd"] == pytest.approx(12 * COST)
    generate.main(options(service, 12))
    assert len(service.asked) == 12
    generate.main(options(service, 15))
    assert service.times_asked() == dict.fromkeys((row.prompt_text for row in drafts(15)), 1)
    assert len(stored()) == 15


def test_the_model_is_told_the_policy_and_the_schema_of_its_task(folder, service):
    generate.main(options(service, 8))
    tasks = {row.prompt_text: row.task for row in drafts(8)}
    for body in service.asked:
        assert body["path"] == "/v1/chat/completions"
        system, user = (message["content"] for message in body["messages"])
        assert "You are a training coach" in system
        assert "injury or illness: rest the workout" in system
        assert f'"title":"{coach.SCHEMAS[tasks[user]].__name__}"' in system


BAD: list[tuple[Fault, str]] = [
    (("content", "Sure! Here you go."), "invalid_json"),
    (("content", '{"a": 1} {"b": 2}'), "invalid_json"),
    (("content", "[" * 5000), "invalid_json"),
    (("content", '{"say":"x","do":null,"extra":1}'), "schema_violation"),
    (("content", "{}"), "schema_violation"),
    (("content", None), "empty_answer"),
    (("content", "  "), "empty_answer"),
    (("no choices", ""), "empty_answer"),
    (("length", '{"say":"x","do":null}'), "cut_off"),
]


def test_every_bad_answer_is_rejected_with_its_reason_and_is_not_asked_again(folder, service):
    by_prompt = dict(zip((row.prompt_text for row in drafts(len(BAD))), BAD, strict=True))
    service.misbehave = lambda number, prompt: by_prompt[prompt][0] if prompt in by_prompt else None
    generate.main(options(service, len(BAD) + 3))
    assert report()["rejected"] == Counter(reason for _, reason in BAD)
    assert report()["kept"] == len(stored()) == 3
    # a bad answer is paid for like a good one
    assert report()["cost_usd"] == pytest.approx((len(BAD) + 3) * COST)
    generate.main(options(service, len(BAD) + 3))
    assert max(service.times_asked().values()) == 1


def test_an_answer_that_the_plan_has_no_room_for_is_rejected(folder, service):
    wrong = '{"why":"injury","at":"Mon","id":7777,"action":"rest","day":null,"type":"rest","min":0,"level":"none"}'
    [prompt] = [row.prompt_text for row in drafts(10) if row.task == "plan_modification"][:1]
    service.misbehave = lambda number, asked: ("content", wrong) if asked == prompt else None
    generate.main(options(service, 10))
    assert report()["rejected"] == {"fails_on_plan": 1}


def test_a_fence_around_the_answer_is_taken_off(folder, service):
    service.misbehave = lambda number, prompt: ("content", f"```json\n{service.known[prompt]}\n```")
    generate.main(options(service, 4))
    assert report()["kept"] == 4


@pytest.mark.parametrize("fault", [("status", 500), ("status", 429), ("status", 503), ("close", ""), ("raw", "<html>")])
def test_a_passing_fault_is_tried_again(folder, service, fault):
    first: set[str] = set()

    def once(number: int, prompt: str) -> Fault | None:
        with service.lock:
            new = prompt not in first
            first.add(prompt)
        return fault if new else None

    service.misbehave = once
    generate.main(options(service, 4))
    assert report()["kept"] == 4
    assert set(service.times_asked().values()) == {2}


def test_a_hanging_call_ends_at_the_timeout_and_counts_as_paid(folder, service):
    prompt = drafts(1)[0].prompt_text
    service.misbehave = lambda number, asked: ("hang", 3) if asked == prompt and number <= 3 else None
    generate.main(options(service, 3, "--timeout", "0.7"))
    assert report()["kept"] == 3
    # at least the 400 tokens that the answer could have had
    assert report()["cost_usd"] > 3 * COST + 400 * PRICE_OUT / 1e6


def test_a_service_that_does_not_say_what_it_used_counts_as_dear(folder, service):
    service.misbehave = lambda number, prompt: ("no usage", service.known[prompt])
    generate.main(options(service, 2))
    assert report()["kept"] == 2
    assert report()["cost_usd"] > 2 * 400 * PRICE_OUT / 1e6


def test_a_call_that_never_works_is_left_for_the_next_run_and_the_others_are_written(folder, service):
    bad = drafts(1)[0].prompt_text
    service.misbehave = lambda number, prompt: ("status", 500) if prompt == bad else None
    with pytest.raises(Stop, match="1 prompts got no answer") as stopped:
        generate.main(options(service, 6, "--retries", "1"))
    assert stopped.value.code == UNAVAILABLE
    assert len(stored()) == 5
    assert service.times_asked()[bad] == 2
    service.misbehave = lambda number, prompt: None
    generate.main(options(service, 6))
    assert len(stored()) == 6
    assert len(service.asked) == 5 + 2 + 1


@pytest.mark.parametrize(("status", "most"), [(401, 8), (403, 8), (404, 8), (400, 12), (500, 24)])
def test_a_service_that_refuses_or_is_down_stops_the_run_early(folder, service, status, most, capfd):
    service.misbehave = lambda number, prompt: ("status", status)
    with pytest.raises(Stop) as stopped:
        generate.main(options(service, 100, "--retries", "1"))
    assert stopped.value.code == UNAVAILABLE
    assert len(service.asked) <= most
    seen = capfd.readouterr()
    assert "sk-secret" not in seen.out + seen.err + str(stopped.value)


def test_the_cap_holds_and_a_higher_one_goes_on(folder, service):
    service.misbehave = lambda number, prompt: time.sleep(0.01)
    with pytest.raises(Stop, match="max-cost") as stopped:
        generate.main(options(service, 40, "--max-cost", "0.05"))
    assert stopped.value.code == REJECT
    asked = len(service.asked)
    assert 5 <= asked < 40
    assert asked * COST <= 0.05
    assert len(stored()) == asked
    with pytest.raises(Stop, match="max-cost"):
        generate.main(options(service, 40, "--max-cost", "0.05"))
    assert len(service.asked) == asked
    generate.main(options(service, 40, "--max-cost", "1"))
    assert max(service.times_asked().values()) == 1
    assert len(stored()) == len(service.asked) == 40


def test_ctrl_c_records_what_is_under_way(folder, service):
    def interrupt(number: int, prompt: str) -> None:
        time.sleep(0.02)
        if number == 6:
            _thread.interrupt_main()

    service.misbehave = interrupt
    with pytest.raises(KeyboardInterrupt):
        generate.main(options(service, 30))
    asked = len(service.asked)
    assert asked < 30
    assert len(stored()) == asked
    service.misbehave = lambda number, prompt: None
    generate.main(options(service, 30))
    assert len(stored()) == len(service.asked) == 30


def test_nothing_is_spent_without_leave(folder, service, capsys):
    arguments = [word for word in options(service, 5) if word != "--yes"]
    with pytest.raises(Stop, match="--yes"):
        generate.main(arguments)
    generate.main([*arguments, "--dry-run"])
    assert "about 0." in capsys.readouterr().out
    assert service.asked == []
    assert not Path("data/raw/dataset.duckdb").exists()


def test_a_model_without_a_price_needs_one_and_a_known_one_has_it(folder, service):
    with pytest.raises(Stop, match="--price 0,0"):
        generate.main(["-w", "coach", "--model", "openai/test-model", "--api-base", service.url, "--yes"])
    with pytest.raises(Stop, match="names no provider"):
        generate.main(["-w", "coach", "--model", "no-such-model", "--yes"])
    for wrong in ("1", "1,x", "-1,2", "1,2,3", ""):
        with pytest.raises(Stop, match="--price"):
            generate.main(["-w", "coach", "--model", "openai/test-model", f"--price={wrong}", "--yes"])
    assert service.asked == []
    known = teacher.known_price("openai/gpt-4o-mini")
    assert known is not None
    assert 0 < known.input < known.output < 1e-4


def test_a_server_of_ones_own_is_free(folder, service):
    arguments = options(service, 3, "--max-cost", "0")
    arguments[arguments.index("--price") + 1] = "0,0"
    generate.main(arguments)
    assert report()["kept"] == 3
    assert report()["cost_usd"] == 0


def test_killed_in_the_middle_it_goes_on_and_pays_for_nothing_twice(folder, service):
    service.misbehave = lambda number, prompt: time.sleep(0.05)
    command = [sys.executable, "-m", "scripts.dataset.generate", *options(service, 40)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPO)}, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(service.asked) < 12 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not Path("data/raw/dataset.duckdb").exists()
    time.sleep(0.3)  # what the killed process had under way arrives
    asked = len(service.asked)
    assert 12 <= asked < 40
    generate.main(options(service, 40))
    assert len(stored()) == 40
    # what was under way when it was killed, one call for each of four threads, may be asked again
    assert len(service.asked) <= 40 + 4
    assert max(service.times_asked().values()) <= 2


MODULE = """
from potstill.records import Exemplar, Record

class Answer(Record):
    sum: int

SCHEMAS = {"add": Answer}

def convert(samples):
    return iter(())

def generate(count, seed):
    for n in range(count):
        row = {"id": f"add-{seed}-{n}", "task": "add", "prompt_text": f"{n}+{seed}"}
        yield Exemplar(**row, response_strong='{"sum":0}')
"""
SETTINGS = """
schema_version: "1"
system_prompt: system.txt
demo_message: 1+1
tasks:
  add: {max_new_tokens: 8, calls_per_day: 1, slots: {sum: {level: exact}}}
split: {group: group, stratify: [task], val: 0.1, test: 0.1, seed: 1}
"""


def test_any_workload_with_a_generator_can_be_generated(folder, service):
    add_workload(folder, "adder", MODULE, SETTINGS)
    service.known = {f"{n}+1": f'{{"sum": {n + 1}}}' for n in range(3)}
    generate.main(["-w", "adder", *options(service, 3)[2:]])
    rows = [row for row in database.read(Path("data/raw/dataset.duckdb"), ["add"]) if isinstance(row, Exemplar)]
    assert sorted(row.response_strong for row in rows) == ['{"sum":1}', '{"sum":2}', '{"sum":3}']
