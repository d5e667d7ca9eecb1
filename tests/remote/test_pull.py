"""dataset.pull from a real sshd: what arrives, what is refused, and what a kill leaves."""

import getpass
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import database, transfer
from potstill.records import Exemplar
from potstill.stop import Stop
from scripts.dataset import pull

TARGET = Path("data/raw/dataset.duckdb")
PREVIOUS = Path("data/raw/dataset.previous.duckdb")
# a name that a shell would make much of
NAME = "bob's $(touch pwned); `id` & data.duckdb"


def make(path: Path, rows: int, task: str = "t1_parse") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    database.write(path, [exemplar(str(number), task) for number in range(rows)])
    return path


def exemplar(name: str, task: str) -> Exemplar:
    # text that no compression makes small
    noise = hashlib.shake_128(name.encode()).hexdigest(4000)
    return Exemplar(id=name, task=task, prompt_text=noise, response_strong="{}")


@pytest.fixture
def source(remote_host, checkout: Path) -> Path:
    """A database of five rows on the host; here lies one of two."""
    make(TARGET, 2, "mine")
    return make(remote_host.directory / NAME, 5)


def state() -> tuple[bytes, bool]:
    return TARGET.read_bytes(), PREVIOUS.exists()


def test_a_remote_database_replaces_the_present_one(remote_host, source: Path, capsys) -> None:
    former = TARGET.read_bytes()
    os.chmod(source, 0o400)
    assert pull.main(["--source", f"{getpass.getuser()}@{remote_host.name}:{source}", "-w", "batfit"]) is None
    said = capsys.readouterr().out
    assert TARGET.read_bytes() == source.read_bytes()
    assert PREVIOUS.read_bytes() == former
    assert f"sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}" in said
    assert "REPLACED, not merged" in said
    assert "mine: 2 -> 0" in said
    assert "t1_parse: 0 -> 5" in said
    assert f"wrote {TARGET}" in said
    assert not Path("data/raw/.incoming").exists()
    assert not list(Path().rglob("pwned")) + list(remote_host.directory.rglob("pwned"))
    # rows can be added to it
    assert os.access(TARGET, os.W_OK)
    assert database.write(TARGET, [exemplar("new", "t1_parse")]) == 1


def test_the_same_file_again_changes_nothing(remote_host, source: Path, capsys) -> None:
    for _ in range(2):
        former = PREVIOUS.read_bytes() if PREVIOUS.exists() else TARGET.read_bytes()
        pull.main(["--source", f"{remote_host.name}:{source}"])
    assert "is the same file already" in capsys.readouterr().out
    assert PREVIOUS.read_bytes() == former


def test_dry_run_writes_nothing(remote_host, source: Path, capsys) -> None:
    before = sorted(Path("data").rglob("*"))
    pull.main(["--source", f"{remote_host.name}:{source}", "--dry-run"])
    assert f"{source.stat().st_size} bytes" in capsys.readouterr().out
    pull.main(["--source", str(source), "--dry-run"])
    assert "t1_parse: 0 -> 5" in capsys.readouterr().out
    assert sorted(Path("data").rglob("*")) == before


def test_a_link_is_followed(remote_host, source: Path) -> None:
    link = source.with_name("latest.duckdb")
    link.symlink_to(source)
    pull.main(["--source", f"{remote_host.name}:{link}"])
    assert TARGET.read_bytes() == source.read_bytes()
    assert not TARGET.is_symlink()


def test_home_is_the_folder_in_which_the_login_starts(remote_host, checkout: Path) -> None:
    source = pull.parse_source(f"{remote_host.name}:~/x.duckdb")
    home = Path(transfer.remote(source.host, "pwd").strip())
    there = {path.name for path in home.iterdir()}
    assert there
    assert set(transfer.listing(source.host, sorted(there), source.path)) == there


def test_the_host_key_is_checked(remote_host, source: Path) -> None:
    before = state()
    remote_host.known_hosts.write_text("# empty\n")
    with pytest.raises(Stop, match=r"not known.*ssh-keyscan") as unknown:
        pull.main(["--source", f"{remote_host.name}:{source}"])
    remote_host.know_another()
    with pytest.raises(Stop, match="CHANGED") as changed:
        pull.main(["--source", f"{remote_host.name}:{source}"])
    # a port is part of what a key is known for
    remote_host.know(remote_host.server.host_key)
    with pytest.raises(Stop, match="cannot be reached") as closed:
        pull.main(["--source", f"{remote_host.name}:{source}", "--port", "1"])
    assert [stop.value.code for stop in (unknown, changed, closed)] == [69, 69, 69]
    assert state() == before


def test_what_is_no_whole_database_there_changes_nothing(remote_host, source: Path) -> None:
    before, folder = state(), source.parent
    data = source.read_bytes()
    (folder / "cut.duckdb").write_bytes(data[: len(data) // 2])
    (folder / "text.duckdb").write_text("not a database\n" * 2000)
    os.mkfifo(folder / "pipe.duckdb")
    (folder / "open.duckdb").write_bytes(data)
    (folder / "open.duckdb.wal").write_bytes(b"rows to come")
    for name, code, said in (
        ("cut.duckdb", 65, "is cut off"),
        ("text.duckdb", 65, "is no DuckDB database"),
        ("pipe.duckdb", 65, "is no file"),
        ("none.duckdb", 65, "is not there"),
        ("deeper/none.duckdb", 65, "is not there"),
        ("open.duckdb", 75, "write-ahead log"),
    ):
        with pytest.raises(Stop, match=said) as refused:
            pull.main(["--source", f"{remote_host.name}:{folder}/{name}"])
        assert refused.value.code == code, name
        assert name in str(refused.value)
    assert state() == before


def test_a_file_that_changes_while_it_is_copied_is_busy(remote_host, source: Path, monkeypatch) -> None:
    before, rsync = state(), transfer.rsync

    def rsync_then_write(*words) -> None:
        rsync(*words)
        make(source, 9)

    monkeypatch.setattr(transfer, "rsync", rsync_then_write)
    with pytest.raises(Stop, match="has changed while it was copied") as busy:
        pull.main(["--source", f"{remote_host.name}:{source}"])
    assert busy.value.code == 75
    assert state() == before
    monkeypatch.setattr(transfer, "rsync", rsync)
    pull.main(["--source", f"{remote_host.name}:{source}"])
    assert database.task_counts(TARGET) == {"t1_parse": 9}


@pytest.mark.parametrize("group", [True, False])
def test_a_killed_transfer_goes_on(group: bool, remote_host, source: Path) -> None:
    size = make(source, 3000).stat().st_size
    before = state()
    words = [sys.executable, "-m", "scripts.dataset.pull", "--source", f"{remote_host.name}:{source}"]
    process = subprocess.Popen(
        [*words, "--bwlimit=4000"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    arriving = Path("data/raw/.incoming")
    while sum(path.stat().st_size for path in arriving.rglob(".bob*")) < size // 4:
        assert process.poll() is None
        time.sleep(0.01)
    # with the group its rsync and ssh go too; without, they find out by themselves
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert state() == before
    done = subprocess.run([*words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    had = re.search(r"going on with the (\d+) bytes", done.stdout)
    assert had
    assert int(had[1]) >= size // 8
    assert TARGET.read_bytes() == source.read_bytes()
    assert not arriving.exists()


def test_a_source_that_is_more_than_a_name(checkout: Path) -> None:
    texts = [
        "", "-e sh", "https://a/b", "s3://a/b", "a:b", "a:", "a:/", "a:/b/", "a::b/c", "a:/b/*", "a:/b/[c]", "a:/b/-c",
        "a:~b/c", "a:~/", "a:/b\nc", "a:/b\x1b", "-oProxyCommand=id:/x", "a b:/x", "a:/b/.", "a:/b/..", "a:/b/#c",
        "a:///b", "a:/b/../c", "a:~/../c", "user@-host:/x", "[::1]:/x",
    ]  # fmt: skip
    for text in texts:
        with pytest.raises(Stop) as refused:
            pull.main([f"--source={text}"])
        assert refused.value.code == 2, text
    assert not Path("data").exists()


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=30) | st.from_regex(r"\A[a-z@.-]{1,3}:[~/.a-z*? -]{1,8}\Z"))
def test_any_source_is_a_path_or_a_plain_file_of_a_host(text: str) -> None:
    try:
        source = pull.parse_source(text)
    except Stop:
        return
    assert text.isprintable()
    assert not text.startswith("-")
    if isinstance(source, pull.Remote):
        assert re.fullmatch(r"(/|\./)([^/].*/)?", source.folder)
        assert re.fullmatch(r"\w[^/]*", source.name)
        assert not set(source.folder + source.name) & set("*?[]")


def test_ports(remote_host, source: Path, capsys) -> None:
    listed = pull.parse_source(f"{remote_host.name}:/x/y")
    assert listed.host.port == remote_host.server.port
    other = pull.parse_source("me@other.example:/x/y", 2222)
    assert (other.host.user, other.host.host, other.host.port) == ("me", "other.example", 2222)
    assert "-p 2222 -l me" in " ".join(transfer.ssh_command(other.host))
    for port in ("0", "65536", "2222; id", "-1"):
        with pytest.raises(SystemExit):
            pull.main([f"--port={port}", "--source", "a:/b"])


def test_local_files(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Stop, match="is the project's database already"):
        pull.main(["--source", str(TARGET)])
    before = state()
    holder = duckdb.connect(str(source))
    code = f"from scripts.dataset import pull; pull.cli.run(lambda: pull.main(['--source', {str(source)!r}]))"
    busy = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (busy.returncode, "is open in another process" in busy.stderr) == (75, True)
    holder.execute("INSERT INTO examples SELECT * REPLACE ('more' AS id) FROM examples LIMIT 1")
    holder.close()
    assert state() == before
    link = tmp_path / "link"
    link.symlink_to(source)
    pull.main(["--source", str(link)])
    assert database.task_counts(TARGET) == {"t1_parse": 6}


def test_a_present_database_that_is_open_stays(remote_host, source: Path) -> None:
    holder = duckdb.connect(str(TARGET))
    words = [sys.executable, "-m", "scripts.dataset.pull", "--source", f"{remote_host.name}:{source}"]
    busy = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert (busy.returncode, "is open in another process" in busy.stderr) == (75, True)
    holder.close()
    assert database.task_counts(TARGET) == {"mine": 2}


def test_what_a_killed_writer_left_in_the_present_log_is_kept(source: Path) -> None:
    code = "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute(sys.argv[2]); os.kill(os.getpid(), 9)"
    insert = "INSERT INTO examples SELECT * REPLACE ('more' AS id) FROM examples LIMIT 1"
    subprocess.run([sys.executable, "-c", code, str(TARGET), insert])
    assert TARGET.with_name("dataset.duckdb.wal").exists()
    pull.main(["--source", str(source)])
    assert database.task_counts(TARGET) == {"t1_parse": 5}
    assert database.task_counts(PREVIOUS) == {"mine": 3}
    assert not list(TARGET.parent.glob("*.wal"))


def test_a_damaged_present_database_is_replaced_and_kept(source: Path, capsys) -> None:
    TARGET.write_bytes(TARGET.read_bytes()[:20_000])
    pull.main(["--source", str(source)])
    assert "is of no use" in capsys.readouterr().out
    assert database.task_counts(TARGET) == {"t1_parse": 5}
    assert PREVIOUS.stat().st_size == 20_000


def test_a_host_without_rsync_or_with_another_login_is_named(remote_host, source: Path) -> None:
    for words, said in ((["--rsync-path=no-rsync"], "has no rsync"), (["--rsh=false"], "cannot be reached")):
        there = pull.parse_source(f"{remote_host.name}:{source}")
        with pytest.raises(Stop, match=said) as stop:
            transfer.rsync(there.host, [there.name], there.path, "arriving/", "pull", words)
        assert stop.value.code == 69


def test_too_little_room_is_said_first(remote_host, source: Path, monkeypatch) -> None:
    before = state()
    monkeypatch.setattr(pull.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    for text in (str(source), f"{remote_host.name}:{source}"):
        with pytest.raises(Stop, match="Make room first") as full:
            pull.main(["--source", text])
        assert full.value.code == 74
    assert state() == before
