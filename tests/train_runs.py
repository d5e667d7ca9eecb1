"""What tests of training share: a project with a snapshot of a few short rows, and runs on the nano base.

Steps run as programs of their own that can be killed, forked from one that has loaded Unsloth already: loading takes
longer than what they do.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import resource
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from potstill import cli, project
from potstill.files import canonical_json, sha256_file
from potstill.records import Example, write_jsonl
from potstill.snapshots import Snapshot, Version
from projects import make_project

# two epochs of 64 rows in batches of 8 are 16 steps
ROWS = {"train": 64, "val": 8, "test": 8}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def example(number: int, split: str, words: int = 2) -> Example:
    """A BatFit row whose length depends on its number: `words` words and up to 22 more."""
    said = " ".join(NUMBERS[(number * k) % 9] for k in range(1, 1 + words + number % 23))
    return Example(
        id=f"{split}-{number}",
        task="t1_parse",
        system="Answer in JSON.",
        prompt=f"weight {number}: {said}",
        response=canonical_json({"intent": said.split()[0], "context": {"target_weight_lb": number}}),
        slots={"intent": {"level": "exact"}, "context.target_weight_lb": {"level": "numeric_tol"}},  # type: ignore[dict-item]
        metadata={},
        schema_version="1",
        source_sha256="0" * 64,
    )


def small_project(folder: Path, words: int = 2, count: int = ROWS["train"]) -> Path:
    """A project whose snapshot has `count` train rows."""
    make_project(folder)
    files: dict[str, Any] = {}
    for split, rows in {**ROWS, "train": count}.items():
        path = Path(f"data/processed/batfit/{split}.v1.jsonl")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / path, [example(n, split, words) for n in range(rows)])
        files[split] = Snapshot(file=path.as_posix(), rows=rows, sha256=sha256_file(folder / path))
    version = Version(**files, seed=1, parents={})
    text = json.dumps({"batfit": {"v1": version.model_dump()}})
    (folder / "configs/datasets.yaml").write_text(text)
    return folder


def forbid_network() -> None:
    """From here on, a connection to anything but a file's socket is an error."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise OSError("the network was reached for")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign,assignment]


def step(folder: Path, name: str, words: list[str], environment: dict[str, str]) -> None:
    """In a program of its own: runs scripts.<name> in `folder`, what it shows in <name>.log.

    MORE_MEMORY in the environment is how many bytes more than now it may have; NO_NETWORK keeps it off the network.
    """
    os.chdir(folder)
    if "MORE_MEMORY" in environment:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = now + int(environment["MORE_MEMORY"])
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    os.environ.update(environment)
    if "NO_NETWORK" in environment:
        forbid_network()
    with open(f"{name}.log", "w", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.argv = [name]
        main = importlib.import_module(f"scripts.{name}").main
        cli.run(lambda: main(words))


def start(folder: Path, name: str, *words: str, **environment: str) -> BaseProcess:
    """Starts scripts.<name> in `folder` and returns its process."""
    project.go_offline()
    os.environ["UNSLOTH_COMPILE_LOCATION"] = str(folder / "models/.unsloth_cache")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unsloth", "trl", "mlflow.tracking", "potstill.callbacks", "potstill.training"])
    process = context.Process(target=step, args=(folder, name, list(words), environment))
    process.start()
    return process


def run_step(folder: Path, name: str, *words: str, check: int = 0, **environment: str) -> str:
    """Runs scripts.<name> to its end; returns what it showed. `check` is the exit code wanted."""
    process = start(folder, name, *words, **environment)
    process.join()
    shown = (folder / f"{name}.log").read_text()
    assert process.exitcode == check, f"{name} exited {process.exitcode}, want {check}\n{shown}"
    return shown


def kill(process: BaseProcess) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.join()


def prepare(folder: Path, run: str, config: str = "nano", **options: Any) -> str:
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    return run_step(folder, "train.prepare", "-w", "batfit", "-c", config, "-r", run, *words)


def steps_of(folder: Path, run: str, whole: bool = True) -> list[dict[str, Any]]:
    """The rows of steps.jsonl; what a kill tore is left out where the log need not be `whole`."""
    found = []
    for line in (folder / f"models/{run}/steps.jsonl").read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            assert not whole
    return found
