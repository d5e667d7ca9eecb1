"""SIGKILL at random moments of eval.generate against an endpoint: nothing is lost or doubled, and only the calls that
were under way are paid for twice.

POTSTILL_KILLS=50 kills more often than the suite does.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.records import Example, Prediction, read_jsonl
from projects import REPO, write_run
from service import Service

KILLS = int(os.environ.get("POTSTILL_KILLS", "4"))
CONCURRENCY, ROWS = 4, 20 * KILLS
RUN = "batfit-killed"

# Children are forked once everything is imported, so that a kill falls into the work itself.
DRIVER = """
import os, random, signal, sys, time
from potstill import judge
judge.load_litellm()
from scripts.eval import generate

kills, words = int(sys.argv[1]), sys.argv[2:]

def start():
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        generate.main(words)
        os._exit(0)
    return child

moments = random.Random(5)
for _ in range(kills):
    child = start()
    time.sleep(moments.uniform(0.1, 0.7))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
_, status = os.waitpid(start(), 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def service():
    made = Service()
    made.known = {f"prompt {number}": json.dumps({"answer": number}) for number in range(ROWS)}
    yield made
    made.server.shutdown()
    made.server.server_close()


def make_run() -> None:
    rows = [
        Example(
            id=f"row{number}",
            task="t1_parse",
            system="",
            prompt=f"prompt {number}",
            response="{}",
            slots={},
            metadata={},
            schema_version="1",
            source_sha256="0" * 64,
        )
        for number in range(ROWS)
    ]
    write_run(RUN, rows)


def test_a_killed_generate_loses_nothing_and_pays_for_little_twice(project_folder: Path, service: Service):
    make_run()
    # slow enough for kills to fall between answers
    service.misbehave = lambda number, prompt: ("slow", 0.03)
    words = ["-r", RUN, "--model", "openai/test-model", "--api-base", service.url, "--price", "1,1", "--yes"]
    words += ["--max-cost", "100", "--concurrency", str(CONCURRENCY), "--answers", "killed"]
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OPENAI_API_KEY": "sk-test"}
    subprocess.run([sys.executable, "-c", DRIVER, str(KILLS), *words], env=environment, check=True, timeout=300)
    found = list(read_jsonl(Path("reports") / RUN / "predictions.killed.jsonl", Prediction))
    assert [row.id for row in found] == [f"row{number}" for number in range(ROWS)]
    assert [row.parsed for row in found] == [{"answer": number} for number in range(ROWS)]
    asked = service.times_asked()
    assert set(asked) == set(service.known)
    assert len(service.asked) <= ROWS + KILLS * CONCURRENCY
    assert not list((Path("reports") / RUN).glob(".predictions*"))
