"""The chain of ./fab demo: every stage once, from samples to a packaged model that answers."""

import time
from collections.abc import Callable
from typing import Any

from invoke import Exit

from potstill import runners


def run(workload: str | None, script: Callable[..., None]) -> None:
    """Runs the chain of a workload, by default the project's, as one new run."""
    from potstill import project
    from potstill import workload as workloads

    with runners.stops():
        workload = workload or project.load_project().workload
        settings = workloads.load(workload).settings
    name = project.new_run_name(workload, settings.train_config)
    follow(steps(workload, name, settings.demo_message, settings.demo_task), script)
    print(f"\nread reports/{name}/report.md; the package is models/{name}/package/")


def steps(workload: str, run: str, message: str, task: str | None = None) -> list[tuple[str, dict[str, Any]]]:
    """The scripts in order, each with its options; `message`, of `task`, is what the package is asked at last."""
    job = {"workload": workload}
    of_run = {**job, "run": run}
    return [
        ("ops.doctor", job),
        *[(f"dataset.{step}", job) for step in ("convert", "clean", "split", "stats")],
        ("train.prepare", of_run),
        ("train.run", of_run),
        *[("eval.generate", of_run | {"backend": backend}) for backend in ("merged", "base", "null")],
        # before export, so that the manifest has the scores; after parity, so that the artifacts' answers are graded
        ("eval.judge", of_run),
        ("eval.report", of_run),
        ("package.export", of_run),
        ("package.parity", of_run),
        ("eval.judge", of_run),
        ("eval.report", of_run),
        ("package.verify", of_run),
        ("ops.project_tokens", job),
        ("eval.chat", of_run | {"artifact": "gguf", "task": task, "message": message}),
    ]


def follow(chain: list[tuple[str, dict[str, Any]]], script: Callable[..., None]) -> None:
    """Runs the steps one after the other, and prints how long each took.

    A gate that says no (exit code 100) is no failure: the other steps follow, and the chain ends with its code.
    """
    lines, started, refused = [], time.monotonic(), None
    for step, options in chain:
        began = time.monotonic()
        print(f"\n== {step} {' '.join(runners.flags(**options))}", flush=True)
        try:
            script(step, **options)
        except Exit as stop:
            if stop.code != 100:
                raise
            refused = stop
        lines.append(f"{time.monotonic() - began:7.1f} s  {step} {options.get('backend', '')}")
    print("\n== time per stage", *lines, f"{time.monotonic() - started:7.1f} s  in all", sep="\n")
    if refused is not None:
        raise refused
