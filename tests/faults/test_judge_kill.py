"""eval.judge killed while it asks: nothing lost, nothing twice, and no more paid for than what was under way.

POTSTILL_KILLS=50 kills more often than the suite does. The same processes show what a judge's process can see.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import judge as bench
from eval import byhand as run_by_hand
from potstill import grading
from potstill.records import Verdict, read_jsonl
from projects import REPO, run_script

KILLS = int(os.environ.get("POTSTILL_KILLS", "2"))
ROWS = 20 * (KILLS + 1)
CONCURRENCY = 4
SECRETS = {"SSH_AUTH_SOCK": "agent.sock", "AWS_SECRET_ACCESS_KEY": "aws-secret", "OPENAI_API_KEY": "sk-secret"}
OWN = {"HOSTED_VLLM_API_KEY": "own-key"}


def make_run(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose every row has one free text that differs from its reference."""
    answers = [json.dumps({"a": 1, "b": 2, "c": f"item {n}: the hinge is bent"}) for n in range(ROWS)]
    rows = [(f"row{n}", {}, {"a": 1, "b": 2, "c": bench.REFERENCE}, answer) for n, answer in enumerate(answers)]
    monkeypatch.setattr(run_by_hand, "ROWS", rows)
    monkeypatch.setattr(run_by_hand, "ANSWERS", {grading.TUNED: answers})
    return run_by_hand.make_run()


def test_a_killed_judge_loses_nothing_asks_little_twice_and_sees_no_secret(project_folder, monkeypatch):
    folder = make_run(monkeypatch)
    rng = random.Random(7)
    with bench.served("--latency-ms", "60") as server:
        options = ["-r", run_by_hand.RUN, "-o", f"model={bench.MODEL}", "-o", f"api_base={server.address}"]
        options += ["-o", f"concurrency={CONCURRENCY}"]
        for _ in range(KILLS):
            kill_after(server, rng.randint(2, 18), project_folder, options)
        monkeypatch.setenv("HOSTED_VLLM_API_KEY", "own-key")
        run_script(project_folder, "eval.judge", *options)
        counts = server.counts()
        # judged whole: another run asks nothing
        (run,) = grading.judge_runs(folder)
        assert run.void is None
    rows = list(read_jsonl(folder / run.judged["merged"].verdicts, Verdict))
    judged = [row.id for row in rows if row.judge == bench.MODEL]
    assert sorted(judged) == sorted(f"row{n}" for n in range(ROWS))
    assert all(row.status == "scored" for row in rows)
    assert counts["items"] == ROWS
    assert counts["requests"] <= ROWS + run.canaries + KILLS * CONCURRENCY
    assert not list(folder.glob(".judge-*"))


def kill_after(server: bench.Server, requests: int, folder: Path, options: list[str]) -> None:
    """Starts the judge and kills it once the server has seen so many requests more; reads its environment first."""
    before = server.counts()["requests"]
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.eval.judge", *options],
        cwd=folder,
        env={**os.environ, **SECRETS, **OWN, "PYTHONPATH": str(REPO)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and server.counts()["requests"] < before + requests:
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
    seen = Path(f"/proc/{process.pid}/environ").read_bytes().decode()
    process.kill()
    process.wait()
    process.stderr.close()
    assert not [name for name in SECRETS if name in seen]
    assert "own-key" in seen
