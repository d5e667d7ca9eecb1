"""Times package.export of Gemma 3 270M's real shape on this machine: bf16, Q8_0 and Q4_0.

Run: .venv/bin/python -m benchmarks.export [-w batfit] [--folder <where the made-up model is kept>]
Random weights and a made-up vocabulary of 262,144 pieces in Gemma 3's layout (benchmarks/gemma_vocabulary.py), as a run
on the workload's newest snapshot. The whole command is timed: merging, the importance matrix, writing, the token lock,
hashing. Prints seconds and peak memory, writes reports/benchmark_export.json; exits 100 when it takes over a minute.
"""

import argparse
import contextlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import yaml

from benchmarks import vocab
from potstill import models, package, project, runs, snapshots
from potstill.files import sha256_file, write_json, write_text
from potstill.stop import OK, REJECT

RUN = "benchmark-export"
ARTIFACTS = "artifacts={bf16: {}, gguf-q8_0: {}, gguf-q4_0: {}}"
LIMIT_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", default="batfit", help="its newest snapshot (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where the made-up model is kept (default: nowhere)")
    arguments = parser.parse_args()
    project.go_offline()
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="potstill-export-")))
        if not (folder / "whole" / "model.safetensors").is_file():
            vocab.build(folder / "whole")
        target = project.run_folder(RUN)
        stack.callback(shutil.rmtree, target, ignore_errors=True)
        pretend(target, folder / "whole", arguments.workload)
        began = time.perf_counter()
        command = [sys.executable, "-m", "scripts.package.export", "-r", RUN, "-o", ARTIFACTS, "-o", "num_ctx=2048"]
        subprocess.run(command, check=True)
        wall_s = time.perf_counter() - began
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        sizes = {
            path.parent.name: path.stat().st_size for path in package.folder(RUN).glob("*/*.[gs]*f*") if path.is_file()
        }
    cpu_s, peak_gib = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    print(f"{wall_s:.1f} s wall (limit {LIMIT_S:.0f}), {cpu_s:.1f} s of CPU, peak {peak_gib:.2f} GiB")
    found = {"wall_s": wall_s, "cpu_s": cpu_s, "peak_gib": peak_gib, "bytes": sizes, "limit_s": LIMIT_S}
    write_json(Path("reports/benchmark_export.json"), found)
    return OK if wall_s <= LIMIT_S else REJECT


def pretend(target: Path, base: Path, workload: str) -> None:
    """A run that looks trained: its weights are the base's, cast to float32 as full fine-tuning leaves them."""
    import torch

    name, version = snapshots.newest(workload)
    shutil.rmtree(target, ignore_errors=True)
    model, _ = models.load_folder(base, torch.float32)
    model.save_pretrained(target / "model")
    for file in models.TOKENIZER_FILES:
        if (base / file).is_file():
            shutil.copyfile(base / file, target / "model" / file)
    settings = runs.train_config("nano")
    record = runs.RunRecord(
        run=RUN,
        workload=workload,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        train_config="nano",
        mode="full",
        base=runs.Base(name="made-up", path=str(base), revision=None, sha256=sha256_file(base / "model.safetensors")),
        snapshot=name,
        snapshots=version.files(),
        git_commit=None,
        git_dirty=True,
        lock_sha256=project.lock_sha256(),
        seed=0,
        device="cpu",
    )
    write_text(target / "config.yaml", yaml.safe_dump(settings.model_dump(exclude_none=True)))
    write_json(target / "metrics.json", {})
    write_json(target / "run.json", record.model_dump())


if __name__ == "__main__":
    sys.exit(main())
