"""ops.push and ops.fetch against a real sshd and rsync: what goes, what never goes, and what a kill leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from potstill import transfer
from potstill.files import sha256_file, write_json
from potstill.stop import Stop
from scripts.ops import fetch, push

RUN = Path("models/batfit-tiny-1")
SECRETS = [".env", ".env.production", "configs/judge.key", "id_ed25519", "data/raw/dataset.duckdb", "reports/x/r.json"]


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".incoming" not in path.parts]
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def test_a_step_there_between_push_and_fetch(remote_host, checkout: Path, trained_run: str) -> None:
    done = remote_host.fab(checkout, "ops.push", "eval.generate", "--backend=null", "ops.fetch")
    assert done.returncode == 0, done.stdout + done.stderr
    answers = Path("reports", trained_run, "predictions.null.jsonl")
    assert len(answers.read_text().splitlines()) == 3
    assert answers.read_bytes() == (remote_host.directory / answers).read_bytes()
    # the host worked in its own folder
    assert not (remote_host.directory / ".env").exists()
    assert f"wrote reports/{trained_run}" in done.stdout


@pytest.mark.parametrize("git", [True, False])
def test_secrets_and_outputs_stay_here(git: bool, remote_host, checkout: Path, trained_run: str) -> None:
    for name in SECRETS:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("my s3cret")
    Path("configs/link").symlink_to("/etc/passwd")
    if git:
        # tracked by mistake, so that only push's own rule keeps them here
        subprocess.run(["git", "init", "-q"], check=True)
        subprocess.run(["git", "add", "-f", ".", ":!models"], check=True)
        Path("potstill/cli.py").write_text("# changed since\n")
        Path("potstill/stop.py").unlink()
    assert push.main(["--host", remote_host.name]) == 0
    there = contents(remote_host.directory)
    assert not {name for name in there if name in SECRETS or b"s3cret" in (remote_host.directory / name).read_bytes()}
    assert "configs/link" not in there
    assert not any("/checkpoints/" in name for name in there)
    here = contents(checkout)
    assert {name: here[name] for name in there} == there
    wanted = {"fabfile.py", "potstill/cli.py", "configs/datasets.yaml", "models/tiny/model.safetensors", ".env.example"}
    wanted |= {f"data/processed/batfit/{split}.v1.jsonl" for split in ("train", "val", "test")}
    wanted |= {f"{RUN}/{name}" for name in ("run.json", "config.yaml", "metrics.json", "model/model.safetensors")}
    assert wanted <= set(there)


def test_an_interrupted_run_can_be_taken_up_there(remote_host, checkout: Path, trained_run: str, capsys) -> None:
    assert push.main(["--host", remote_host.name, "--dry-run", "--checkpoints"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert any(name.startswith(f"{RUN}/checkpoints/checkpoint-") for name in listed)


def test_push_dry_run_sends_nothing(remote_host, checkout: Path, trained_run: str, capsys) -> None:
    assert push.main(["--host", remote_host.name, "--dry-run"]) == 0
    assert f"{RUN}/run.json" in capsys.readouterr().out.splitlines()
    assert not remote_host.directory.exists()


def test_push_refuses_a_changed_snapshot_and_a_base_outside(remote_host, checkout: Path, trained_run: str) -> None:
    record = json.loads((RUN / "run.json").read_text())
    write_json(RUN / "run.json", record | {"base": record["base"] | {"path": "/somewhere/else"}})
    with pytest.raises(Stop, match="outside the project"):
        push.main(["--host", remote_host.name])
    write_json(RUN / "run.json", record)
    Path("data/processed/batfit/val.v1.jsonl").write_text("")
    with pytest.raises(Stop, match=r"val\.v1\.jsonl"):
        push.main(["--host", remote_host.name])
    assert not remote_host.directory.exists()


@pytest.mark.parametrize("script", [push, fetch])
def test_host_key_is_checked(script, remote_host, checkout: Path, trained_run: str) -> None:
    remote_host.known_hosts.write_text("# empty\n")
    with pytest.raises(Stop, match=r"not known.*ssh-keyscan") as unknown:
        script.main(["--host", remote_host.name])
    assert unknown.value.code == 69
    remote_host.know_another()
    with pytest.raises(Stop, match="CHANGED") as changed:
        script.main(["--host", remote_host.name])
    assert changed.value.code == 69
    assert not remote_host.directory.exists()


def train_there(remote_host, size: int = 1000) -> dict[str, str]:
    """The host's run as training would leave it: new weights, metrics and a checkpoint; returns its files."""
    assert push.main(["--host", remote_host.name]) == 0
    there = remote_host.directory / RUN
    (there / "model/model.safetensors").write_bytes(os.urandom(size))
    write_json(there / "metrics.json", {"train_loss": 0.5})
    (there / "checkpoints/checkpoint-9").mkdir(parents=True)
    (there / "checkpoints/checkpoint-9/optimizer.pt").write_bytes(b"state")
    (there / ".train.lock").write_text("process 1")
    return contents(there)


def test_fetch_brings_the_run_back_and_keeps_what_is_only_here(remote_host, checkout: Path, trained_run: str) -> None:
    there = train_there(remote_host)
    (RUN / "package").mkdir()
    (RUN / "package/manifest.json").write_text("{}")
    assert fetch.main(["--host", remote_host.name, "--dry-run"]) == 0
    assert json.loads((RUN / "metrics.json").read_text()) == {"train_loss": 1.0}
    assert fetch.main(["--host", remote_host.name]) == 0
    here = contents(RUN)
    for name in ("run.json", "metrics.json", "model/model.safetensors"):
        assert here[name] == there[name]
    only_here = {"package/manifest.json", "checkpoints/checkpoint-1/optimizer.pt"}
    assert set(here) == {"run.json", "config.yaml", "metrics.json", "model/model.safetensors"} | only_here
    assert fetch.main(["--host", remote_host.name, "--checkpoints", "-r", trained_run]) == 0
    assert "checkpoints/checkpoint-9/optimizer.pt" in contents(RUN)


def test_killed_fetch_leaves_the_former_state_and_goes_on(remote_host, checkout: Path, trained_run: str) -> None:
    there = train_there(remote_host, size=96_000_000)
    before = contents(RUN)
    command = [sys.executable, "-m", "scripts.ops.fetch", "--host", remote_host.name]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    arriving = Path("models/.incoming", trained_run, "model")
    while not any(path.stat().st_size for path in arriving.glob(".*")):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert contents(RUN) == before
    assert [path.parent.name for path in Path("models").glob("*/run.json")] == [trained_run]
    assert fetch.main(["--host", remote_host.name]) == 0
    assert contents(RUN)["model/model.safetensors"] == there["model/model.safetensors"]
    assert not list(Path("models").rglob("*rsync*"))
    assert not Path("models/.incoming", trained_run).exists()


def test_damaged_and_hostile_listings_change_nothing(remote_host, checkout: Path, trained_run: str) -> None:
    train_there(remote_host)
    before = contents(checkout)

    def answer(path: str, sha256: str) -> None:
        files = {RUN.as_posix(): [{"path": path, "size": 1000, "sha256": sha256}]}
        remote_host.put("ops/fetch.py", f"print({json.dumps({'run': trained_run, 'folders': files})!r})")

    answer("model/model.safetensors", "0" * 64)
    with pytest.raises(Stop, match="another checksum") as damaged:
        fetch.main(["--host", remote_host.name])
    assert damaged.value.code == 74
    for path in ("../../fabfile.py", "/etc/passwd", ".train.lock", ""):
        answer(path, "0" * 64)
        with pytest.raises(Stop) as hostile:
            fetch.main(["--host", remote_host.name])
        assert hostile.value.code == 65
    assert contents(checkout) == before


def test_folders_are_exchanged_also_where_renameat2_is_not_to_be_had(tmp_path: Path, monkeypatch) -> None:
    for exchange in (transfer._exchange, lambda first, second: False):
        monkeypatch.setattr(transfer, "_exchange", exchange)
        target, arrived = tmp_path / "run", tmp_path / ".incoming/run"
        for folder, text in ((target, "old"), (arrived, "new")):
            (folder / "deep").mkdir(parents=True)
            (folder / "deep/file").write_text(text)
        (target / "kept").write_text("kept")
        transfer.swap_in(arrived, target)
        assert (target / "deep/file").read_text() == "new"
        assert (target / "kept").read_text() == "kept"
        assert not list((tmp_path / ".incoming").iterdir())
        # killed between the two renames
        os.rename(target, transfer.aside(target))
        transfer.recover(target)
        assert (target / "deep/file").read_text() == "new"
        shutil.rmtree(target)


def test_missing_programs_are_named_with_their_packages(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Stop, match="apt install openssh-client rsync") as missing:
        transfer.need_programs()
    assert missing.value.code == 69
