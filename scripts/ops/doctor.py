"""Checks what the other steps need: environment, disk, base, workload, data, programs. Says what to do about each.

python -m scripts.ops.doctor [-w batfit]     or: fab ops.doctor.  Exit 0, or 69 when a check fails.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from potstill import cli, database, project, workload
from potstill.files import sha256_file
from potstill.stop import BUSY, UNAVAILABLE, Stop

STAMP = Path(".venv/potstill-stamp")
NANO = project.MODELS / "nano"
DISK_GB, MEMORY_GB = 10, 6
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Check(NamedTuple):
    """`state` is ok, warn or fail; `advice` says what to do when it is not ok."""

    state: str
    what: str
    found: str
    advice: str = ""


def main(argv: list[str] | None = None) -> int | None:
    name = cli.workload_name(cli.parser(__doc__).parse_args(argv))
    checks = [*environment(), *machine(), nano_base(), *data(name), exemplars(), tracking(), *programs(), secrets()]
    table = Table(show_edge=False)
    for column in ("", "check", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for check in checks:
        state = f"[{STYLES[check.state]}]{check.state}[/]"
        table.add_row(state, check.what, check.found, check.advice if check.state != "ok" else "")
    # a pipe gets whole lines, not eighty columns
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    failed = [check.what for check in checks if check.state == "fail"]
    if failed:
        raise Stop(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}", UNAVAILABLE)
    cli.done([], f"fab dataset.convert -w {name}")
    return 0


def environment() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check("ok" if good else "fail", "python", version, "build .venv on Python 3.11, 3.12 or 3.13")
    flavour, _, built = STAMP.read_text().strip().partition(" ") if STAMP.is_file() else ("none", "", "")
    lock = Path("requirements.lock" if flavour in ("cpu", "none") else "requirements-gpu.lock")
    if Path(sys.prefix) != Path(".venv").absolute():
        yield Check("warn", "environment", sys.prefix, "not the project's .venv: start steps with ./fab")
    elif built == sha256_file(lock):
        yield Check("ok", "environment", f".venv is {lock}")
    else:
        yield Check("fail", "environment", f".venv is not {lock}", f"run scripts/setup_env.sh {flavour}")
    torch = importlib.util.find_spec("torch")
    if torch and torch.origin:
        # importing torch takes seconds
        text = (Path(torch.origin).parent / "version.py").read_text()
        builds = [kind for kind in ("cuda", "hip") if re.search(rf"^{kind}[^=\n]*= *'", text, re.M)]
        yield Check("ok", "torch", f"{importlib.metadata.version('torch')} for {builds[0] if builds else 'cpu'}")
    else:
        yield Check("fail", "torch", "not installed", "run scripts/setup_env.sh")
    there = importlib.util.find_spec("unsloth") is not None
    found = importlib.metadata.version("unsloth") if there else "not installed"
    yield Check("ok" if there else "fail", "unsloth", found, "run scripts/setup_env.sh")


def machine() -> Iterator[Check]:
    cores, memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    yield Check("ok" if cores > 1 else "warn", "cores", str(cores), "training on one core takes twice the time")
    found = f"{memory:.0f} GB"
    yield Check("ok" if memory >= MEMORY_GB else "warn", "memory", found, f"training wants {MEMORY_GB} GB")
    free = shutil.disk_usage(".").free / 1e9
    yield Check("ok" if free >= DISK_GB else "warn", "disk", f"{free:.0f} GB free", f"a 270M run wants {DISK_GB} GB")
    yield Check("ok", "gpu", gpu() or "none; steps run on the CPU")


def gpu() -> str | None:
    """What the driver's own tool says, or None."""
    for command in (["nvidia-smi", "-L"], ["rocm-smi", "--showproductname", "--csv"]):
        if shutil.which(command[0]):
            try:
                answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
            except subprocess.TimeoutExpired:
                return f"{command[0]} does not answer"
            if answer.returncode == 0 and answer.stdout.strip():
                return re.sub(r" \(UUID.*", "", answer.stdout.strip().splitlines()[-1])
    return None


def nano_base() -> Check:
    """README.md of the nano base names the checksum of its weights."""
    weights, card = NANO / "model.safetensors", NANO / "README.md"
    if not weights.is_file() or not card.is_file():
        return Check("fail", "nano base", f"{weights} or its README.md is not there", f"git checkout {NANO}")
    named = re.findall(r"\b[0-9a-f]{64}\b", card.read_text(encoding="utf-8"))
    if sha256_file(weights) in named:
        return Check("ok", "nano base", f"{weights}, {weights.stat().st_size / 1e6:.1f} MB, as its README.md says")
    return Check("fail", "nano base", f"{weights} has another checksum than {card} names", f"git checkout {NANO}")


def data(name: str) -> Iterator[Check]:
    try:
        job = workload.load(name)
    except Stop as stop:
        yield Check("fail", "workload", name, str(stop))
        return
    yield Check("ok", "workload", f"{name}: {', '.join(job.settings.tasks)}")
    files = sum(1 for path in job.samples.rglob("*") if path.is_file()) if job.samples.is_dir() else 0
    advice = f"run fab dataset.samples -w {name}, or bring your own {project.database()}"
    yield Check("ok" if files else "warn", "samples", f"{files} files in {job.samples}", advice)


def exemplars() -> Check:
    path = project.database()
    if not path.is_file():
        return Check("ok", "database", f"{path} is not there yet")
    try:
        counts = database.task_counts(path)
    except Stop as stop:
        # DuckDB lets nobody read while another process writes
        return Check("warn" if stop.code == BUSY else "fail", "database", str(path), str(stop))
    return Check("ok", "database", f"{path}: {sum(counts.values())} exemplars of {len(counts)} tasks")


def tracking() -> Check:
    uri = project.load_project().tracking_uri
    if not uri.startswith("sqlite:///"):
        return Check("ok", "tracking", uri)
    folder = Path(uri.removeprefix("sqlite:///")).absolute().parent
    good = folder.is_dir() and os.access(folder, os.W_OK)
    return Check("ok" if good else "fail", "tracking", uri, f"{folder} must be a folder that you can write in")


def programs() -> Iterator[Check]:
    for program, package in (("ssh", "openssh-client"), ("rsync", "rsync")):
        advice = f"for fab -H: sudo apt install {package}"
        yield Check("ok" if shutil.which(program) else "warn", program, shutil.which(program) or "not found", advice)


def secrets() -> Check:
    path = Path(".env")
    if not path.is_file():
        return Check("ok", ".env", "not there; only a judge or base from the network needs it")
    mode = path.stat().st_mode & 0o777
    return Check("fail" if mode & 0o077 else "ok", ".env", f"mode {mode:04o}", "others can read it: chmod 600 .env")


if __name__ == "__main__":
    cli.run(main)
