"""configs/hosts.yaml, host names, and the command line that a host gets."""

import shlex
import subprocess
from pathlib import Path

import pytest
from fabric import Config, Connection
from hypothesis import given
from hypothesis import strategies as st

from potstill import hosts, transfer
from potstill.hosts import Host
from potstill.stop import Stop

REPO = Path(__file__).resolve().parents[1]


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    path = folder / "hosts.yaml"
    path.write_text(text)
    monkeypatch.setenv("POTSTILL_HOSTS", str(path))


def test_shipped_file_names_no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_HOSTS", str(REPO / "configs/hosts.yaml"))
    assert hosts.find("gpu") == Host(host="gpu")


def test_shipped_example_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPO / "configs/hosts.yaml").read_text().replace("\n  # ", "\n  ")
    write(tmp_path, monkeypatch, text)
    gpu = hosts.find("gpu")
    assert (gpu.host, gpu.user, gpu.directory) == ("gpu.example.org", "distiller", "potstill")


def test_a_name_that_is_not_listed_is_an_ssh_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, "hosts:\n  gpu: {host: 10.0.0.7}\n")
    assert hosts.find("gpu").host == "10.0.0.7"
    other = hosts.find("me@other.example.org")
    assert (other.host, other.user, other.directory, other.python) == (
        "other.example.org", "me", "potstill", ".venv/bin/python",
    )  # fmt: skip


def test_a_user_before_a_listed_name_takes_the_place_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, monkeypatch, "hosts:\n  gpu: {host: 10.0.0.7, port: 2222, user: you}\n")
    found = hosts.find("me@gpu")
    assert (found.host, found.port, found.user) == ("10.0.0.7", 2222, "me")
    with pytest.raises(Stop, match="user is"):
        hosts.find("me@you@gpu")


@pytest.mark.parametrize("name", ["-oProxyCommand=id", "", "a b", "a;id", "host:22", "a/b", "$(id)", "a\nb", "@a"])
def test_names_that_could_be_more_than_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, "hosts:\n")
    with pytest.raises(Stop, match="is no host name") as refused:
        hosts.find(name)
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{host: a, prot: 22}", "unknown key 'hosts.gpu.prot'"),
        ("{port: 22}", "key 'hosts.gpu.host' is missing"),
        ("{host: a, port: 0}", "hosts.gpu.port is 0"),
        ("{host: -oProxyCommand=id}", "hosts.gpu.host is '-oProxyCommand=id'"),
        ("{host: a, user: -x}", "hosts.gpu.user"),
        ("{host: a, directory: -x}", "hosts.gpu.directory"),
        ("{host: a, directory: ~other/x}", "hosts.gpu.directory"),
        ('{host: a, python: "a\\nb"}', "hosts.gpu.python"),
    ],
)
def test_a_wrong_entry_is_named(entry: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, f"hosts:\n  gpu: {entry}\n")
    with pytest.raises(Stop) as refused:
        hosts.find("gpu")
    assert said in str(refused.value)
    assert refused.value.code == 2


def test_a_file_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_HOSTS", str(tmp_path / "none.yaml"))
    with pytest.raises(Stop, match=r"none\.yaml is not there"):
        hosts.find("gpu")


def test_name_of_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, "hosts:\n  gpu: {host: a, user: listed}\n")
    plain = Config(overrides={"user": "me"}, lazy=True)
    assert hosts.name_of(Connection("gpu", config=plain)) == "gpu"
    assert hosts.name_of(Connection("other", config=plain)) == "other"
    assert hosts.name_of(Connection("you@other", config=plain)) == "you@other"


def test_command_line() -> None:
    host = Host(host="gpu", directory="~/my work/pot'still", python="/opt/py thon/bin/python")
    line = hosts.command(host, "scripts.train.run", ["--run=r1", "--message=a 'b' $c"])
    assert line == (
        "cd 'my work/pot'\"'\"'still' && exec '/opt/py thon/bin/python' -m scripts.train.run --run=r1 "
        "'--message=a '\"'\"'b'\"'\"' $c'"
    )


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
def test_a_shell_reads_back_every_argument(arguments: list[str]) -> None:
    line = hosts.command(Host(host="gpu"), "m", arguments)
    assert shlex.split(line) == ["cd", "potstill", "&&", "exec", ".venv/bin/python", "-m", "m", *arguments]


def test_ssh_never_asks_and_never_learns_a_key(tmp_path: Path) -> None:
    """What ssh itself makes of our options: `ssh -G` prints the settings it would use."""
    known = tmp_path / "known hosts"
    known.touch()
    host = Host(host="gpu", port=2222, user="me", identity_file="~/.ssh/k", known_hosts=str(known))
    words = transfer.ssh_command(host)
    shown = subprocess.run([words[0], "-G", *words[1:], "--", host.host], capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    for line in (
        "batchmode yes",
        "stricthostkeychecking true",
        "updatehostkeys false",
        "forwardagent no",
        "identitiesonly yes",
        "port 2222",
        "user me",
        "globalknownhostsfile /dev/null",
        f'userknownhostsfile "{known}"',
    ):
        assert line in lines or line.replace('"', "") in lines
