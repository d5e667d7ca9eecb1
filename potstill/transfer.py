"""Files between this machine and a host: OpenSSH and rsync with checked host keys, and folders that arrive whole.

Everything a user can cause (no ssh, unknown key, full disk, a broken line) ends in Stop 69, 74 or 75.
"""

import contextlib
import ctypes
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO as File
from typing import NamedTuple

from potstill import hosts
from potstill.hosts import Host
from potstill.stop import BUSY, IO, UNAVAILABLE, Stop

PACKAGES = {"ssh": "openssh-client", "rsync": "rsync"}
CONNECT_TIMEOUT_S = 20
PLAIN_INTERVAL_S = 5.0
PARTIAL = ".rsync-partial"
# rsync(1) and ssh(1), exit values
RSYNC_INTERRUPTED = 20
SSH_FAILED = 255
AT_FDCWD, RENAME_EXCHANGE = -100, 2
LISTED = re.compile(r"(?P<kind>\S)\S{9}\S? +(?P<size>\d+) (?P<time>\S+ \S+) (?P<name>.+)")


class Entry(NamedTuple):
    """A remote file: its kind as `ls -l` begins a line ("-" is a file), bytes, and time of change in seconds."""

    kind: str
    size: int
    time: str


def need_programs() -> None:
    """Raises Stop 69, naming the Debian package, when ssh or rsync is missing here."""
    missing = [name for name in PACKAGES if shutil.which(name) is None]
    if missing:
        packages = " ".join(PACKAGES[name] for name in missing)
        raise Stop(f"{' and '.join(missing)} not found; on Debian or Ubuntu: sudo apt install {packages}", UNAVAILABLE)


def ssh_command(host: Host) -> list[str]:
    """ssh and its options: never a question, never an unknown key, nothing forwarded."""
    known = " ".join(f'"{path}"' for path in hosts.known_hosts_files(host))
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": known,
        "UpdateHostKeys": "no",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ConnectTimeout": str(CONNECT_TIMEOUT_S),
        "ServerAliveInterval": str(hosts.KEEPALIVE_S),
    }
    if host.known_hosts:
        options["GlobalKnownHostsFile"] = "/dev/null"
    words = ["ssh", "-T", *(f"-o{key}={value}" for key, value in options.items())]
    if host.port:
        words += ["-p", str(host.port)]
    if host.user:
        words += ["-l", host.user]
    if host.identity_file:
        words += ["-i", str(Path(host.identity_file).expanduser()), "-oIdentitiesOnly=yes"]
    return words


def remote(host: Host, command: str, show: bool = False) -> str:
    """Runs a command line on the host and returns what it prints, or shows it. Its exit code carries over as Stop's."""
    with tempfile.TemporaryFile("w+") as errors:
        done = subprocess.run(
            [*ssh_command(host), "--", host.host, command],
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        problem = _read(errors)
    if done.returncode == SSH_FAILED:
        raise Stop(_why_ssh_failed(host, problem), UNAVAILABLE)
    if done.returncode:
        lines = problem.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Stop(f"{host.host}: {lines[-1].removeprefix('error: ')}", done.returncode)
    return done.stdout or ""


def rsync(
    host: Host, files: Iterable[str], source: str, target: str, what: str, options: Iterable[str] = ("--compress",)
) -> None:
    """Copies `files`, relative to `source`, below `target`; one of the two is `remote_path(...)`.

    Regular files only, each one whole or not there. A broken transfer goes on where it was when it is run again.
    """
    words = [*_rsync_words(host), "--times", "--perms", *options]
    words += [f"--partial-dir={PARTIAL}", "--info=progress2", "--outbuf=L"]
    output = None if sys.stdout.isatty() else subprocess.PIPE
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*words, "--", source, target], stdin=subprocess.PIPE, stdout=output, stderr=errors, text=True
        )
        try:
            with contextlib.suppress(BrokenPipeError):
                _feed(process, files)
            _show(process, what)
            code = process.wait()
        except BaseException:
            # it keeps what it has in the partial folder
            process.terminate()
            process.wait()
            raise
        problem = _read(errors)
    _check(host, code, problem, what)


def listing(host: Host, files: Iterable[str], source: str) -> dict[str, Entry]:
    """What `files`, names in the remote folder `source`, are there, links followed; those that are not are left out."""
    words = [*_rsync_words(host), "--list-only", "--copy-links", "--ignore-missing-args", "--no-human-readable"]
    done = subprocess.run(
        # with --files-from it wants a target too, and --list-only writes nothing there
        [*words, "--8-bit-output", "--", source, "."],
        input="".join(f"{name}\0" for name in files),
        capture_output=True,
        text=True,
        errors="replace",
    )
    if "change_dir" in done.stderr and "No such file or directory" in done.stderr:
        return {}
    _check(host, done.returncode, done.stderr, f"listing {source}")
    entries = (LISTED.fullmatch(line) for line in done.stdout.splitlines())
    return {found["name"]: Entry(found["kind"], int(found["size"]), found["time"]) for found in entries if found}


def adopt(target: Path) -> None:
    """Makes of what a killed rsync has left of the file `target` the part that the next rsync goes on with."""
    partial = target.parent / PARTIAL / target.name
    # an rsync that is killed at once leaves its temporary file
    left = [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}.")]
    for path in sorted(left, key=lambda path: path.stat().st_size):
        if not partial.exists() or path.stat().st_size > partial.stat().st_size:
            partial.parent.mkdir(exist_ok=True)
            os.replace(path, partial)
        else:
            path.unlink()


def _rsync_words(host: Host) -> list[str]:
    # no word of ours is for the remote shell to read: names go through rsync's own protocol
    return ["rsync", "--secluded-args", "--from0", "--files-from=-", f"--rsh={shlex.join(ssh_command(host))}"]


def _check(host: Host, code: int, stderr: str, what: str) -> None:
    """Raises the Stop that rsync's exit code stands for."""
    if "rsync: command not found" in stderr or "rsync: not found" in stderr:
        raise Stop(f"{host.host} has no rsync; on Debian or Ubuntu, there: sudo apt install rsync", UNAVAILABLE)
    if code == SSH_FAILED or (code and "(0 bytes received so far)" in stderr):
        # where rsync was to receive it ends with a code of its own, after ssh's words
        words = [line for line in stderr.splitlines() if not line.startswith("rsync")]
        raise Stop(_why_ssh_failed(host, "\n".join(words)), UNAVAILABLE)
    if code < 0 or code == RSYNC_INTERRUPTED:
        raise Stop(f"{what} was interrupted; run the same command again to go on", BUSY)
    if code:
        lines = stderr.strip().splitlines() or [""]
        raise Stop(f"{what} failed: {lines[0]} (rsync exit code {code}). Run the same command again to go on.", IO)


def remote_path(host: Host, folder: str) -> str:
    """rsync's name of a folder below the project's on the host."""
    return f"{host.host}:{host.directory}/{folder}"


def swap_in(arrived: Path, target: Path) -> None:
    """Puts the complete folder `arrived` in the place of `target`; files that only `target` has stay in it.

    At every instant `target` is the former folder or the new one, where the file system can exchange two folders.
    Where it cannot, a kill between two renames leaves the former folder in `aside(target)`: see recover().
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        os.rename(arrived, target)
        return
    for old in target.rglob("*"):
        new = arrived / old.relative_to(target)
        if old.is_file() and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            os.link(old, new)
    if _exchange(arrived, target):
        shutil.rmtree(arrived)
    else:
        os.rename(target, aside(target))
        os.rename(arrived, target)
        shutil.rmtree(aside(target))


def aside(target: Path) -> Path:
    return target.parent / ".incoming" / f"{target.name}.former"


def recover(target: Path) -> None:
    """Ends what a kill within swap_in has left."""
    if aside(target).exists():
        if target.exists():
            shutil.rmtree(aside(target))
        else:
            os.rename(aside(target), target)


def _exchange(first: Path, second: Path) -> bool:
    """renameat2(2) with RENAME_EXCHANGE: two names change places in one step; False where that is not to be had."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    return function(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0


def _feed(process: "subprocess.Popen[str]", files: Iterable[str]) -> None:
    assert process.stdin
    with process.stdin:
        process.stdin.writelines(f"{name}\0" for name in files)


def _read(file: File[str]) -> str:
    file.seek(0)
    return file.read()


def _show(process: "subprocess.Popen[str]", what: str) -> None:
    """A plain line of rsync's progress every few seconds; on a terminal rsync shows it itself."""
    shown = time.monotonic()
    # universal newlines split at the carriage returns with which rsync overwrites its line
    for line in process.stdout or ():
        if line.strip() and time.monotonic() - shown >= PLAIN_INTERVAL_S:
            shown = time.monotonic()
            print(f"{what}: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _why_ssh_failed(host: Host, stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()] or ["no message"]
    path = hosts.known_hosts_files(host)[0]
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr or "REVOKED HOST KEY" in stderr:
        return (
            f"the host key of {host.host} has CHANGED or is revoked, so nothing was sent: see docs/remote.md. ({path})"
        )
    if "Host key verification failed" in stderr or "host key is known" in stderr:
        return f"the host key of {host.host} is not known. {hosts.how_to_add(host, path)}"
    return f"{host.host} cannot be reached: {lines[-1]}"
