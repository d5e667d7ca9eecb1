"""Sends the code, a run's snapshot, its base model and the run itself to a host, so that any step can run there.

python -m scripts.ops.push --host gpu [-w batfit] [-r run] [--setup] [--dry-run]     or: fab -H gpu ops.push
Adds and replaces, never deletes. What is in data/raw/ and reports/, .env files and keys stay here.
"""

import fnmatch
import shlex
import subprocess
from pathlib import Path

from potstill import cli, hosts, project, runs, snapshots, tombstones, transfer
from potstill.stop import Stop

# the project, where it is no checkout that could tell
CODE = (
    "fab",
    "fabfile.py",
    "fabric.yaml",
    "pyproject.toml",
    "requirements.lock",
    "requirements-gpu.lock",
    "requirements-vllm.lock",
    "requirements-vllm-gpu.lock",
    "README.md",
    "LICENSE",
    ".env.example",
    ".gitignore",
    ".ci",
    "configs",
    "potstill",
    "scripts",
    "tests",
    "benchmarks",
    "deploy",
    "docs",
    "data/samples",
    "models/nano",
)
NEVER_FOLDERS = {".git", ".venv", "__pycache__"}
NEVER_BELOW = ("data/raw/", "reports/", "mlflow.db")
NEVER_NAMES = (".env", ".env.*", "*.pem", "*.key", "id_*", "*.p12", "*.pyc")
ALWAYS = ".env.example"


def main(argv: list[str] | None = None) -> int | None:
    parser = cli.parser(__doc__, run=True, dry_run=True)
    parser.add_argument("--host", help="a name in configs/hosts.yaml, or an SSH host")
    parser.add_argument("--checkpoints", action="store_true", help="with models/<run>/checkpoints/, to resume there")
    parser.add_argument("--setup", action="store_true", help="build the environment there (scripts/setup_env.sh)")
    arguments = parser.parse_args(argv)
    if not arguments.host:
        raise Stop("which host? Say fab -H <name> ops.push, or --host <name>")
    host = hosts.find(arguments.host)
    run = _run(cli.workload_name(arguments), arguments.run)
    files = sorted({*code(), *(run_files(run, arguments.checkpoints) if run else ())})
    size = sum(Path(name).stat().st_size for name in files)
    what = f"{len(files)} files, {size / 1e6:.1f} MB"
    if arguments.dry_run:
        print(*files, sep="\n")
        cli.done([], f"fab -H {arguments.host} ops.push  would send these {what} to {host.host}:{host.directory}")
        return 0
    transfer.need_programs()
    # one login that makes the folder, and finds out whether the host can receive
    transfer.remote(
        host,
        f"mkdir -p {shlex.quote(host.directory)} && {{ command -v rsync >/dev/null || "
        f"{{ echo 'rsync not found there; sudo apt install rsync' >&2; exit 69; }}; }}",
    )
    print(f"push: {what} to {host.host}:{host.directory}", flush=True)
    transfer.rsync(host, files, "./", transfer.remote_path(host, ""), "push")
    if arguments.setup:
        print("push: building the environment there, a few minutes the first time", flush=True)
        transfer.remote(host, f"cd {shlex.quote(host.directory)} && exec scripts/setup_env.sh", show=True)
    following = f"train.run -r {run}" if run else "dataset.convert"
    cli.done([f"{host.host}:{host.directory}"], f"fab -H {arguments.host} {following}")
    return 0


def _run(workload: str, run: str | None) -> str | None:
    try:
        return project.find_run(workload, run)
    except Stop:
        if run is not None:
            raise
        print(f"push: workload {workload} has no run yet, so only the code goes")
        return None


def code() -> list[str]:
    """The tracked files as they are now, or outside a checkout the project's own folders."""
    inside = subprocess.run(["git", "rev-parse", "--show-prefix"], capture_output=True, text=True)
    if inside.returncode == 0 and not inside.stdout.strip():
        tracked = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True)
        names = [name for name in tracked.stdout.split("\0") if name]
    else:
        names = [name for top in CODE for name in below(Path(top))]
    # written by steps, and perhaps not committed yet
    written = [name for name in (project.REGISTRY.as_posix(), tombstones.FILE.as_posix()) if name not in names]
    return [name for name in (*names, *written) if may_go(name) and _is_plain(Path(name))]


def run_files(run: str, resume: bool = False) -> list[str]:
    """run.json, config.yaml, the base and the snapshot of a run, and its weights once training is complete.

    `resume`: also the checkpoints that an interrupted training goes on from.

    Raises Stop 65 when a snapshot file is not what the run was prepared with.
    """
    record, folder = runs.read(run), project.run_folder(run)
    names = [(folder / name).as_posix() for name in ("run.json", "config.yaml")]
    kept = ("lengths.json", "steps.jsonl", "val.jsonl", "config_changes.jsonl", *(["checkpoints"] if resume else []))
    names += [path for name in kept for path in below(folder / name)]
    for snapshot in record.snapshots.values():
        names.append(snapshots.checked(snapshot).as_posix())
    base = Path(record.base.path)
    if base.is_absolute() or ".." in base.parts:
        raise Stop(
            f"run {run} has its base in {base}, outside the project, where no host finds it. "
            f"Put it below models/ and run fab train.prepare again."
        )
    names += [*below(base), *below(folder / "base")]
    if runs.is_trained(run):
        names += [*below(folder / "adapter"), *below(folder / "model"), (folder / "metrics.json").as_posix()]
    return [name for name in names if may_go(name)]


def below(top: Path) -> list[str]:
    """The plain files at or below a path, none when it is not there."""
    paths = [top] if top.is_file() else sorted(top.rglob("*"))
    return [path.as_posix() for path in paths if _is_plain(path)]


def may_go(name: str) -> bool:
    """False for secrets, raw data, reports and what is built anew on every machine."""
    path = Path(name)
    if path.name == ALWAYS:
        return True
    if NEVER_FOLDERS & set(path.parts) or name.startswith(NEVER_BELOW):
        return False
    return not any(fnmatch.fnmatch(path.name, pattern) for pattern in NEVER_NAMES)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


if __name__ == "__main__":
    cli.run(main)
