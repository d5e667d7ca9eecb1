"""fab -H against a real sshd: host keys, quoting, exit codes and interrupts."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

SHOW = """\
import json, pathlib, sys
pathlib.Path("seen.json").write_text(json.dumps(sys.argv[1:]))
print("to stdout")
print("to stderr", file=sys.stderr)
raise SystemExit(CODE)
"""


def test_arguments_arrive_as_they_are(remote_host, checkout: Path) -> None:
    remote_host.put("eval/chat.py", SHOW.replace("CODE", "0"))
    message = """it's "2.8 lb"; $HOME `id` \\ * & | > ü\n-second line"""
    done = remote_host.fab(checkout, "eval.chat", "--message", message, "-r", "a run")
    assert done.returncode == 0, done.stderr
    seen = json.loads((remote_host.directory / "seen.json").read_text())
    assert seen == ["--run=a run", f"--message={message}"]
    assert done.stdout == "to stdout\n"
    assert done.stderr == "to stderr\n"


@pytest.mark.parametrize("code", [2, 65, 75, 100])
def test_exit_code_carries_over_and_stops_the_chain(code: int, remote_host, checkout: Path) -> None:
    remote_host.put("dataset/clean.py", SHOW.replace("CODE", str(code)))
    remote_host.put("dataset/split.py", "open('split ran', 'w')")
    done = remote_host.fab(checkout, "dataset.clean", "dataset.split")
    assert done.returncode == code
    assert done.stderr == "to stderr\n"
    assert not (remote_host.directory / "split ran").exists()


def test_unknown_host_key_is_refused(remote_host, checkout: Path) -> None:
    remote_host.put("dataset/clean.py", SHOW.replace("CODE", "0"))
    remote_host.known_hosts.write_text("# empty\n")
    done = remote_host.fab(checkout, "dataset.clean")
    assert done.returncode == 69
    assert f"ssh-keyscan -p {remote_host.server.port} 127.0.0.1 >> {remote_host.known_hosts}" in done.stderr
    assert done.stderr.count("\n") == 1
    # nothing ran, and the key was not added behind the user's back
    assert not (remote_host.directory / "seen.json").exists()
    assert remote_host.known_hosts.read_text() == "# empty\n"


def test_changed_host_key_is_refused(remote_host, checkout: Path) -> None:
    remote_host.put("dataset/clean.py", SHOW.replace("CODE", "0"))
    remote_host.know_another()
    done = remote_host.fab(checkout, "dataset.clean")
    assert done.returncode == 69
    assert "CHANGED" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (remote_host.directory / "seen.json").exists()


def test_revoked_host_key_is_refused(remote_host, checkout: Path) -> None:
    remote_host.put("dataset/clean.py", SHOW.replace("CODE", "0"))
    known = remote_host.known_hosts.read_text()
    remote_host.known_hosts.write_text(f"{known}@revoked * {remote_host.server.host_key}\n")
    done = remote_host.fab(checkout, "dataset.clean")
    assert done.returncode == 69
    assert "revoked" in done.stderr
    assert not (remote_host.directory / "seen.json").exists()


def test_refused_login_and_closed_port(remote_host, checkout: Path, tmp_path: Path) -> None:
    remote_host.know_another()  # makes a key pair that is not let in
    remote_host.know(remote_host.server.host_key)
    hosts = remote_host.hosts_yaml.read_text()
    remote_host.hosts_yaml.write_text(hosts.replace(str(remote_host.server.identity_file), str(tmp_path / "other_key")))
    done = remote_host.fab(checkout, "dataset.clean")
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert "refuses the login" in done.stderr
    remote_host.hosts_yaml.write_text(hosts.replace(f"port: {remote_host.server.port}", "port: 1"))
    done = remote_host.fab(checkout, "dataset.clean")
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_reaches_the_step(number: int, remote_host, checkout: Path) -> None:
    program = """\
import pathlib, time
pathlib.Path("started").touch()
try:
    time.sleep(120)
except KeyboardInterrupt:
    pathlib.Path("saved").touch()
    raise SystemExit(75)
"""
    remote_host.put("train/run.py", program)
    process = subprocess.Popen(remote_host.command("train.run"), cwd=checkout, stdin=subprocess.DEVNULL)
    while not (remote_host.directory / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=20) == 75
    assert (remote_host.directory / "saved").exists()


def test_other_lines_of_known_hosts_do_no_harm(remote_host, checkout: Path) -> None:
    remote_host.put("dataset/clean.py", SHOW.replace("CODE", "0"))
    known = remote_host.known_hosts.read_text()
    authority = f"@cert-authority *.example.org {remote_host.server.host_key}"
    remote_host.known_hosts.write_text(f"# mine\n\n{authority}\n{known}")
    assert remote_host.fab(checkout, "dataset.clean").returncode == 0
    remote_host.known_hosts.write_text(f"{known}example.org ssh-ed25519 AAAAC3Nz!\n")
    done = remote_host.fab(checkout, "dataset.clean")
    assert done.returncode == 69
    assert f"{remote_host.known_hosts} line 2" in done.stderr
