"""A real OpenSSH server on loopback, and hosts.yaml entries that lead to it."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from potstill import snapshots
from potstill.files import sha256_file, write_json
from potstill.records import Example, write_jsonl
from potstill.runs import Base, RunRecord
from potstill.snapshots import Snapshot, Version

REPO = Path(__file__).resolve().parents[2]
FAB = REPO / ".venv/bin/fab"
CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel VERBOSE
"""


@dataclass(frozen=True)
class Server:
    """A running sshd: its port, its keys and the log it writes."""

    folder: Path
    port: int

    @property
    def host_key(self) -> str:
        """The public host key: its type and its base64."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def identity_file(self) -> Path:
        return self.folder / "client_key"


@dataclass(frozen=True)
class RemoteHost:
    """The host `name` of `hosts_yaml`, where the project belongs into `directory`, which is not there yet."""

    name: str
    hosts_yaml: Path
    known_hosts: Path
    directory: Path
    server: Server

    def know(self, key: str) -> None:
        """Makes `key` ('type base64') the only host key that is known."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.server.port} {key}\n")

    def know_another(self) -> None:
        """Makes a key that is not the server's the only one that is known."""
        path = self.known_hosts.with_name("other_key")
        make_key(path)
        self.know(" ".join(path.with_suffix(".pub").read_text().split()[:2]))

    def fab(self, folder: Path, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """The real fab, in the project `folder`, with -H for this host."""
        command = self.command(*words)
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)

    def command(self, *words: str) -> list[str]:
        return [str(FAB), "-H", self.name, *words]

    def put(self, name: str, program: str) -> None:
        """A program of the host's own in the place of scripts/<name>."""
        path = self.directory / "scripts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(program)


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """sshd as the user who runs the tests, on a high port, with keys of its own."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    assert program, "no sshd here; on Debian or Ubuntu: apt install openssh-server"
    folder = tmp_path_factory.mktemp("sshd")
    make_key(folder / "host_key")
    make_key(folder / "client_key")
    shutil.copy(folder / "client_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        # started by root, sshd refuses to run without its empty privilege separation folder
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
    # sshd starts itself anew for every login, so it wants its absolute path
    command = [str(Path(program).resolve()), "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")]
    process = subprocess.Popen(command)
    try:
        wait_for(port, process, folder / "log")
        yield Server(folder, port)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            if connection.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise AssertionError(f"sshd did not start: {log.read_text() if log.exists() else 'no log'}")


@pytest.fixture
def remote_host(sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteHost:
    """The host `test`, its key known; its directory's name needs quoting. POTSTILL_HOSTS names its hosts.yaml."""
    folder = tmp_path / "there"
    folder.mkdir()
    host = RemoteHost("test", tmp_path / "hosts.yaml", tmp_path / "known_hosts", folder / "Bob's potstill", sshd)
    entry = {
        "host": "127.0.0.1",
        "port": sshd.port,
        "user": getpass.getuser(),
        "directory": str(host.directory),
        "python": sys.executable,
        "identity_file": str(sshd.identity_file),
        "known_hosts": str(host.known_hosts),
    }
    host.hosts_yaml.write_text(yaml.safe_dump({"hosts": {host.name: entry}}))
    host.know(sshd.host_key)
    monkeypatch.setenv("POTSTILL_HOSTS", str(host.hosts_yaml))
    # neither an agent nor the user's own files have a say
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return host


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's code and configs as they are, with secrets in it, and no run; the test is in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("configs", "potstill", "scripts"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("fab", "fabfile.py", "fabric.yaml", "requirements.lock", ".env.example"):
        shutil.copy(REPO / name, folder / name)
    (folder / "configs/datasets.yaml").unlink(missing_ok=True)
    (folder / ".env").write_text("OPENAI_API_KEY=my s3cret\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def trained_run(checkout: Path) -> str:
    """The name of a BatFit run of `checkout` whose base, weights and snapshot are small made-up files."""
    name, base, folder = "batfit-tiny-1", Path("models/tiny"), Path("models/batfit-tiny-1")
    for path in (base / "model.safetensors", folder / "model/model.safetensors"):
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(20_000))
    files = {split: make_snapshot(split) for split in snapshots.SPLITS}
    snapshots.register("batfit", "v1", Version(**files, seed=1, parents={}))
    record = RunRecord(
        run=name, workload="batfit", created_at="2026-11-20T00:00:00Z", train_config="nano", mode="full", seed=1,
        base=Base(name="tiny", path=base.as_posix(), revision=None, sha256=sha256_file(base / "model.safetensors")),
        snapshot="v1", snapshots=files, git_commit=None, git_dirty=False, lock_sha256=None, device="cpu",
    )  # fmt: skip
    shutil.copy("configs/train/nano.yaml", folder / "config.yaml")
    write_json(folder / "run.json", record.model_dump())
    (folder / "checkpoints/checkpoint-1").mkdir(parents=True)
    (folder / "checkpoints/checkpoint-1/optimizer.pt").write_bytes(b"state")
    write_json(folder / "metrics.json", {"train_loss": 1.0})
    return name


def make_snapshot(split: str) -> Snapshot:
    path = snapshots.path_of("batfit", split, "v1")
    rows = [
        Example(
            id=f"{split}-{number}", task="t1_parse", system="", prompt="slow pitches at home", response="{}", slots={},
            metadata={}, schema_version="1", source_sha256="0" * 64,
        )
        for number in range(3)
    ]  # fmt: skip
    return Snapshot(file=path.as_posix(), rows=write_jsonl(path, rows), sha256=sha256_file(path))
