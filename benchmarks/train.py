"""Measures training: does a killed run go on exactly, are estimates right, and how fast it is beside its peers.

Run: .venv/bin/python -m benchmarks.train kill [--kills 20]         a nano run in float32, killed and run again
     .venv/bin/python -m benchmarks.train estimate [--shape 270m]   predicted memory and time, and 20 measured steps
     .venv/bin/python -m benchmarks.train throughput [--steps 8]    Gemma 3 270M's shape beside Unsloth's and TRL's
Every part prints its numbers, adds them to reports/benchmark_train.json, and exits 100 when a limit is missed. Rows of
`kill` are the newest snapshot's of -w; those of the other parts are made up (benchmarks/train_peers.py).
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks import train_peers
from potstill import checkpoints, cli, project, snapshots
from potstill.files import sha256_file, write_json
from potstill.records import write_jsonl
from potstill.snapshots import Snapshot, Version

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path("reports/benchmark_train.json")
LIMITS = {
    "loss_difference": 1e-5,
    "memory_factor": 1.5,
    "time_factor": 2.0,
    "reference_difference": 1e-3,
    "tokens_per_s_of_unsloth": 2.0,
    "memory_of_unsloth": 0.5,
    "tokens_per_s_of_trl": 4.0,
}
# two epochs of 80 rows in batches of 4
ROWS, STEPS, SAVE, BATCH = 80, 40, 2, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("kill", "estimate", "throughput"))
    parser.add_argument("-w", "--workload", default="batfit", help="whose newest snapshot (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--shape", choices=("nano", "270m"), default="nano", help="of estimate")
    parser.add_argument("--steps", type=int, default=8, help="an epoch's (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    project.go_offline()
    with tempfile.TemporaryDirectory(prefix="potstill-train-") as name:
        folder = Path(name) / "project"
        os.environ["UNSLOTH_COMPILE_LOCATION"] = str(folder / "models/.unsloth_cache")
        if arguments.part == "kill":
            found, missed = kill(folder, arguments)
        elif arguments.part == "estimate":
            found, missed = estimates(folder, arguments.shape)
        else:
            found, missed = train_peers.throughput(folder, arguments.steps, LIMITS)
    known = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    write_json(RESULT, {**known, "limits": LIMITS, arguments.part: {**found, "load_average": os.getloadavg()}})
    print(f"wrote {RESULT}" + "".join(f"\nmissed: {line}" for line in missed))
    return 100 if missed else 0


def kill(folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Kills a run at random steps until none is left, and compares every step with those of an untouched run."""
    small_project(folder, arguments.workload)
    options = [f"sft.max_steps={STEPS}", f"sft.save_steps={SAVE}", "sft.bf16=false", "sft.num_train_epochs=2"]
    options.append(f"sft.per_device_train_batch_size={BATCH}")
    for run in ("whole", "killed"):
        finish(folder, "train.prepare", "-w", arguments.workload, "-c", "nano", "-r", run, *overrides(options))
    finish(folder, "train.run", "-r", "whole")
    log, saved = folder / "models/killed/steps.jsonl", folder / "models/killed/checkpoints"
    targets = sorted(random.Random(arguments.seed).sample(range(1, STEPS), arguments.kills))
    lives: list[list[dict[str, Any]]] = []
    torn = 0
    for target in targets:
        process = started(folder, "train.run", "-r", "killed")
        while process.is_alive() and (not log.is_file() or log.read_bytes().count(b"\n") < target):
            time.sleep(0.001)
        process.kill()
        process.join()
        lives.append(steps(log))
        # what has a checkpoint's name is whole, whatever a kill left beside it
        torn += sum(checkpoints.read(path) is None for path in checkpoints.by_step(saved))
        print(f"killed at step {lives[-1][-1]['step'] if lives[-1] else 0} of {STEPS}", flush=True)
    finish(folder, "train.run", "-r", "killed")
    wanted, final = steps(folder / "models/whole/steps.jsonl"), steps(log)
    pairs = [(row, wanted[row["step"] - 1]) for life in [*lives, final] for row in life]
    found = {
        "kills": len(targets),
        "steps": len(final),
        "steps_compared": len(pairs),
        "loss_difference": max(abs(one["loss"] - other["loss"]) for one, other in pairs),
        "other_rows": sum(one["lines"] != other["lines"] for one, other in pairs),
        "torn_checkpoints": torn,
    }
    print(json.dumps(found))
    missed = [] if found["loss_difference"] <= LIMITS["loss_difference"] else ["loss_difference"]
    missed += [name for name in ("other_rows", "torn_checkpoints") if found[name]]
    return found, missed + ([] if len(final) == STEPS else ["steps"])


def estimates(folder: Path, shape: str) -> tuple[dict[str, Any], list[str]]:
    """train.estimate --measure of a LoRA run on rows like pages."""
    base = train_peers.project_of(folder, shape, 200)
    options = [f"base={base}", "vocabulary=keep", *train_peers.OPTIONS]
    finish(folder, "train.prepare", "-w", "batfit", "-c", "gemma3-270m", "-r", "r", *overrides(options))
    told = finish(folder, "train.estimate", "-r", "r", "--measure")
    print(told)
    found = json.loads(told.splitlines()[-1])
    ratios = {name: found[f"{name}_bytes"] / found[f"measured_{name}_bytes"] for name in ("memory",)}
    ratios["time"] = found["step_s"] / found["measured_step_s"]
    missed = [n for n, ratio in ratios.items() if not 1 / LIMITS[f"{n}_factor"] <= ratio <= LIMITS[f"{n}_factor"]]
    return {shape: {**found, "predicted_over_measured": ratios}}, missed


def small_project(folder: Path, workload: str) -> None:
    """A project of its own whose snapshot is the first rows of the workload's newest."""
    _, version = snapshots.newest(workload)
    shutil.copytree("configs", folder / "configs")
    (folder / "models").mkdir(parents=True)
    (folder / "models/nano").symlink_to(ROOT / "models/nano")
    shutil.copy("requirements.lock", folder)
    files = {}
    for split, count in (("train", ROWS), ("val", 8), ("test", 8)):
        path = Path(version.files()[split].file)
        rows = list(snapshots.read(version.files()[split]))[:count]
        write_jsonl(folder / path, rows)
        files[split] = Snapshot(file=path.as_posix(), rows=len(rows), sha256=sha256_file(folder / path))
    entry = Version(train=files["train"], val=files["val"], test=files["test"], seed=1, parents={})
    write_json(folder / "configs/datasets.yaml", {workload: {"v1": entry.model_dump()}})


def overrides(options: list[str]) -> list[str]:
    return [word for option in options for word in ("-o", option)]


def child(folder: Path, name: str, words: list[str]) -> None:
    """In a program of its own: runs scripts.<name> in `folder`, what it shows in <name>.log."""
    os.chdir(folder)
    with open(f"{name}.log", "w", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.argv = [name]
        cli.run(lambda: importlib.import_module(f"scripts.{name}").main(words))


def started(folder: Path, name: str, *words: str) -> BaseProcess:
    """Starts a step, forked from a program that has loaded Unsloth: twenty kills would load it twenty times."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unsloth", "trl", "mlflow.tracking", "potstill.callbacks", "potstill.training"])
    process = context.Process(target=child, args=(folder, name, list(words)))
    process.start()
    return process


def finish(folder: Path, name: str, *words: str) -> str:
    process = started(folder, name, *words)
    process.join()
    shown = (folder / f"{name}.log").read_text()
    if process.exitcode:
        raise SystemExit(f"{name} exited {process.exitcode}\n{shown}")
    return shown


def steps(log: Path) -> list[dict[str, Any]]:
    """The rows of a step log; a line that a kill tore is left out."""
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


if __name__ == "__main__":
    raise SystemExit(main())
