"""The Pi bundle, and deploy/pi/ run by sh: with the real llama.cpp, and with stand-ins for what cannot be here.

Ollama and an ARM board cannot: `ollama`, `uname` and `getconf` are small programs, first on PATH, that answer as those
do.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import served

from potstill import contents, headers, llama, pi, workload
from potstill.files import sha256_file
from potstill.stop import USAGE, Stop

REPO = Path(__file__).resolve().parents[2]
INSTALL, SMOKE = (REPO / "deploy" / "pi" / f"{name}.sh" for name in ("install", "smoke"))
ANSWER = '{"context":{},"interaction":{}}'
# reads its standard input to the end, as Ollama does, and says how fast it was on standard error
OLLAMA = """\
#!/bin/sh
case $1 in
  create) echo "$PWD $*" >>"$LOG"; [ "$3" = -f ] && [ -f "$4" ] || exit 1 ;;
  run)
    cat >"$LOG.prompt"
    echo '{answer}'
    echo 'prompt eval rate:     90.50 tokens/s' >&2
    echo 'eval rate:            41.25 tokens/s' >&2 ;;
esac
"""


@pytest.fixture(scope="module")
def package(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = served.make(tmp_path_factory.mktemp("pi") / "package", tiny)
    job = workload.load("batfit")
    pi.write(folder, run=served.RUN, kind="gguf-q8_0", gguf=served.GGUF, job=job, system="Be brief.", num_ctx=1024)
    return folder


@pytest.fixture
def bundle(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package / "pi", tmp_path / "pi"))


@pytest.fixture
def board(tmp_path: Path) -> dict[str, str]:
    """An environment on whose PATH a 64-bit ARM board with Ollama comes first."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_in(programs, "ollama", OLLAMA.format(answer=ANSWER))
    stand_in(programs, "uname", "#!/bin/sh\necho aarch64\n")
    stand_in(programs, "getconf", "#!/bin/sh\necho 64\n")
    return {"PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(tmp_path / "ollama.log"), "HOME": str(tmp_path)}


def stand_in(programs: Path, name: str, text: str) -> None:
    (programs / name).write_text(text)
    (programs / name).chmod(0o755)


def run(script: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dash", str(script), *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def resum(bundle: Path) -> None:
    names = sorted(path.name for path in bundle.iterdir() if path.name != pi.SUMS)
    (bundle / pi.SUMS).write_text("".join(f"{sha256_file(bundle / name)}  {name}\n" for name in names))


def test_the_bundle_is_whole_and_data_only(package: Path) -> None:
    names = {path.name for path in (package / "pi").iterdir()}
    assert names == {
        served.GGUF,
        "Modelfile",
        "request.json",
        "prompt.txt",
        "keys.txt",
        "bundle.txt",
        pi.SUMS,
        "README.md",
    }
    for path in (package / "pi").iterdir():
        assert contents.check(path.name, path)[0] == [], path
    assert (package / "pi" / served.GGUF).samefile(package / "gguf-q8_0" / served.GGUF), "twice on the disk"
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", pi.SUMS], cwd=package / "pi", capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.count(": OK") == len(names) - 1
    # Ollama hands a line end at the end on to the model
    assert (package / "pi" / "prompt.txt").read_text() == workload.load("batfit").settings.demo_message


def test_memory_is_weights_and_cache(package: Path) -> None:
    path = package / "pi" / served.GGUF
    facts = headers.read_gguf(path)[0]
    assert (facts["gemma3.block_count"], facts["gemma3.attention.head_count_kv"]) == (4, 1)
    # two bytes for each of 32 keys and 32 values, in 4 layers
    cache = 2 * (32 + 32) * 4 * 2**20
    assert pi.memory_mib(path, 2**20) - pi.OVERHEAD_MIB == -(-(path.stat().st_size + cache) // 2**20)


def test_an_artifact_that_is_not_there_is_refused(package: Path) -> None:
    with pytest.raises(Stop, match="it has gguf-q8_0") as stopped:
        pi.write(
            package, run="r", kind="gguf-q4_0", gguf="r.gguf", job=workload.load("batfit"), system=None, num_ctx=64
        )
    assert stopped.value.code == USAGE


def test_installing_and_asking(bundle: Path, board: dict[str, str]) -> None:
    done = run(INSTALL, board, str(bundle))
    assert done.returncode == 0, done.stderr
    assert Path(board["LOG"]).read_text() == f"{bundle} create {served.RUN} -f Modelfile\n"
    asked = run(SMOKE, board, str(bundle))
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.splitlines() == [ANSWER, "smoke: the answer has every key; 41.2 tokens/s"]
    assert Path(board["LOG"] + ".prompt").read_bytes() == (bundle / "prompt.txt").read_bytes()


@pytest.mark.parametrize(
    ("program", "text", "code", "said"),
    [
        ("uname", "#!/bin/sh\necho armv7l\n", 69, "this machine is armv7l"),
        ("getconf", "#!/bin/sh\necho 32\n", 69, "programs here have 32 bits"),
        ("ollama", "#!/bin/sh\nexit 1\n", 69, "is its service running"),
    ],
)
def test_another_machine_is_refused(bundle: Path, board: dict, program: str, text: str, code: int, said: str) -> None:
    stand_in(Path(board["PATH"].split(":")[0]), program, text)
    done = run(INSTALL, board, str(bundle))
    assert done.returncode == code
    assert said in done.stderr


def test_too_little_memory_is_refused(bundle: Path, board: dict[str, str]) -> None:
    facts = (bundle / "bundle.txt").read_text().replace("memory_mib ", "memory_mib 9999")
    (bundle / "bundle.txt").write_text(facts)
    resum(bundle)
    done = run(INSTALL, board, str(bundle))
    assert (done.returncode, Path(board["LOG"]).exists()) == (69, False)
    assert "MiB of memory are free, want 9999" in done.stderr


@pytest.mark.parametrize("name", [served.GGUF, "Modelfile", "prompt.txt", "bundle.txt", "keys.txt"])
def test_a_changed_file_is_refused(bundle: Path, board: dict[str, str], name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    done = run(INSTALL, board, str(bundle))
    assert (done.returncode, Path(board["LOG"]).exists()) == (65, False)


@pytest.mark.parametrize(
    "line", ["model x; touch hacked", "model $(touch hacked)", "gguf ../../etc/passwd", "memory_mib many", "else 1"]
)
def test_a_hostile_bundle_runs_nothing(bundle: Path, board: dict[str, str], line: str) -> None:
    key = line.split()[0]
    kept = [own for own in (bundle / "bundle.txt").read_text().splitlines() if not own.startswith(f"{key} ")]
    (bundle / "bundle.txt").write_text("\n".join([*kept, line]) + "\n")
    resum(bundle)
    assert run(INSTALL, board, str(bundle)).returncode == 65
    if key == "model":
        assert run(SMOKE, board, str(bundle)).returncode == 65
    assert not list(bundle.parent.rglob("hacked"))
    assert not Path(board["LOG"]).exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Sure! Here it is", "not JSON"),
        ('{"context":{}}', "no key interaction"),
        ("[1]", "no key context, interaction"),
    ],
)
def test_a_wrong_answer_is_told(bundle: Path, board: dict[str, str], answer: str, said: str) -> None:
    stand_in(Path(board["PATH"].split(":")[0]), "ollama", OLLAMA.format(answer=answer))
    done = run(SMOKE, board, str(bundle))
    assert done.returncode == 65
    assert said in done.stderr


def test_arguments_are_checked(bundle: Path, board: dict[str, str]) -> None:
    for script in (INSTALL, SMOKE):
        assert run(script, board).returncode == 2
        assert run(script, board, str(bundle.parent)).returncode == 2
    assert run(SMOKE, board, str(bundle), "http://example.org").returncode == 2
    assert run(SMOKE, board, str(bundle), "http://127.0.0.1:9").returncode == 69


def test_without_ollama_the_command_of_llama_server_is_shown(bundle: Path, board: dict[str, str]) -> None:
    programs = Path(board["PATH"].split(":")[0])
    (programs / "ollama").unlink()
    done = run(INSTALL, board, str(bundle))
    assert done.returncode == 69
    stand_in(programs, "llama-server", "#!/bin/sh\n")
    done = run(INSTALL, board, str(bundle))
    assert done.returncode == 0
    assert f"llama-server -m {served.GGUF} --alias {served.RUN} -c 1024 -np 1" in done.stdout


def test_llama_cpps_own_server_passes_the_smoke_test(bundle: Path, board: dict[str, str]) -> None:
    # a random model ends no answer before the grammar does
    asked = json.loads((bundle / "request.json").read_text())
    (bundle / "request.json").write_text(json.dumps(asked | {"max_tokens": 800}))
    with llama.serve(bundle / served.GGUF, 1024, parallel=1) as server, forwarded(server.socket) as address:
        done = run(SMOKE, board, str(bundle), address)
    assert done.returncode == 0, done.stderr
    answer, verdict = done.stdout.splitlines()
    assert answer.startswith('{"context":{')
    assert verdict.startswith("smoke: the answer has every key; ")
    assert verdict.endswith(" tokens/s")


@contextlib.contextmanager
def forwarded(path: str) -> Iterator[str]:
    """One connection to a port of 127.0.0.1, handed on to the Unix socket that llama.serve listens on."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def hand_on() -> None:
        near, _ = listener.accept()
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(path)
            there = threading.Thread(target=pump, args=(near, far), daemon=True)
            there.start()
            pump(far, near)
            there.join(timeout=10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=hand_on, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(timeout=10)
