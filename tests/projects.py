"""What tests share: a project folder of their own, steps run as a user runs them, and the chain of a small run."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from potstill.files import sha256_file, write_json
from potstill.records import Example, read_jsonl, write_jsonl
from potstill.runs import RunRecord

REPO = Path(__file__).resolve().parent.parent


def make_project(folder: Path) -> Path:
    """A project folder with the repository's configs, samples and nano base; outputs land in it."""
    shutil.copytree(REPO / "configs", folder / "configs")
    (folder / "configs/datasets.yaml").unlink(missing_ok=True)
    (folder / "data").mkdir()
    (folder / "data/samples").symlink_to(REPO / "data/samples")
    (folder / "models").mkdir()
    (folder / "models/nano").symlink_to(REPO / "models/nano")
    shutil.copy(REPO / "requirements.lock", folder)
    return folder


def write_run(name: str, rows: list[Example]) -> None:
    """A BatFit run of the working folder's project that has `rows` in every split; it is not trained."""
    snapshot = Path("data/processed/batfit/test.v1.jsonl")
    write_jsonl(snapshot, rows)
    entry = {"file": str(snapshot), "rows": len(rows), "sha256": sha256_file(snapshot)}
    run = {
        "run": name,
        "workload": "batfit",
        "created_at": "2026-11-20T00:00:00+00:00",
        "train_config": "nano",
        "mode": "full",
        "base": {"name": "nano", "path": "models/nano", "revision": None, "sha256": "0" * 64},
        "snapshot": "v1",
        "snapshots": {"train": entry, "val": entry, "test": entry},
        "git_commit": None,
        "git_dirty": False,
        "lock_sha256": None,
        "seed": 1,
        "device": "cpu",
    }
    write_json(Path("models") / name / "run.json", RunRecord.model_validate(run).model_dump())


def add_workload(folder: Path, name: str, module: str, settings: str, system: str = "Answer in JSON.") -> None:
    """A workload of the project folder's own: a module, a config and a samples folder that holds its system prompt."""
    files = {
        f"potstill/workloads/{name}.py": module,
        f"configs/workloads/{name}.yaml": settings,
        f"data/samples/{name}/system.txt": system,
    }
    if (folder / "data/samples").is_symlink():
        (folder / "data/samples").unlink()
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def run_script(folder: Path, name: str, *arguments: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Runs python -m scripts.<name> in `folder` as a user would; `check` is the exit code wanted."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", f"scripts.{name}", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    if check is not None and done.returncode != check:
        raise AssertionError(f"{name} exited {done.returncode}, want {check}\n{done.stdout}\n{done.stderr}")
    return done


@dataclass(frozen=True)
class Distilled:
    """A project folder in which the whole chain has run once, briefly."""

    folder: Path
    name: str

    @property
    def run(self) -> Path:
        return self.folder / "models" / self.name

    @property
    def reports(self) -> Path:
        return self.folder / "reports" / self.name

    def examples(self, split: str) -> list[Example]:
        return list(read_jsonl(self.folder / f"data/processed/batfit/{split}.v1.jsonl", Example))


CHAIN = [
    ("dataset.convert",),
    ("dataset.clean",),
    ("dataset.split",),
    ("dataset.stats",),
    ("train.prepare", "-r", "small", "-o", "sft.max_steps=45"),
    ("train.run", "-r", "small"),
    ("eval.generate", "-r", "small"),
    ("eval.generate", "-r", "small", "--backend", "base"),
    ("eval.generate", "-r", "small", "--backend", "null"),
    ("eval.judge", "-r", "small"),
    ("eval.report", "-r", "small"),
    ("package.export", "-r", "small"),
    # a model trained this briefly is of two minds about many a token, and eight bits decide some of them otherwise
    ("package.parity", "-r", "small", "-o", "artifacts.gguf-q8_0={min_same_json: 0.8, max_slot_drop: 0.05}"),
    ("eval.judge", "-r", "small"),
    ("eval.report", "-r", "small"),
]


def thin(source: Path, target: Path) -> None:
    """Copies a samples folder with every fifth row."""
    shutil.copytree(source, target)
    for path in target.rglob("*.jsonl"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::5]))
