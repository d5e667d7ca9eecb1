"""The command line of every Fabric task, here and on a host, and how fab ends."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fabric import Config, Connection
from fabric.testing.base import Command, MockRemote, Session
from invoke import Exit, MockContext, Result

import fabfile
from potstill import demo, workload

REPO = Path(__file__).resolve().parents[1]
FAB = REPO / ".venv/bin/fab"
HERE = f"{sys.executable} -m"


def command_of(task, **options) -> str:
    c = MockContext(run=Result())
    task(c, **options)
    return c.run.call_args.args[0]


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        (fabfile.samples, {}, "scripts.dataset.samples"),
        (fabfile.convert, {"workload": "batfit"}, "scripts.dataset.convert --workload=batfit"),
        (fabfile.clean, {}, "scripts.dataset.clean"),
        (fabfile.split, {"dry_run": True}, "scripts.dataset.split --dry-run"),
        (fabfile.stats, {"workload": "batfit"}, "scripts.dataset.stats --workload=batfit"),
        (
            fabfile.prepare,
            {"run": "r1", "config": "nano", "override": ["sft.seed=1", "base=a b"]},
            "scripts.train.prepare --run=r1 --config=nano --override=sft.seed=1 '--override=base=a b'",
        ),
        (fabfile.run, {"run": "r1"}, "scripts.train.run --run=r1"),
        (fabfile.generate, {"backend": "base", "limit": 3}, "scripts.eval.generate --backend=base --limit=3"),
        (
            fabfile.judge,
            {"run": "r1", "predictions": ["merged", "base"]},
            "scripts.eval.judge --run=r1 --predictions=merged --predictions=base",
        ),
        (fabfile.report, {}, "scripts.eval.report"),
        (
            fabfile.chat,
            {"artifact": "gguf-q8_0", "message": "-1 it's"},
            "scripts.eval.chat --artifact=gguf-q8_0 " + shlex.quote("--message=-1 it's"),
        ),
        (fabfile.export, {"config": "all"}, "scripts.package.export --config=all"),
        (fabfile.keygen, {"key": "shop"}, "scripts.package.keygen --key=shop"),
        (fabfile.verify, {}, "scripts.package.verify"),
        (fabfile.parity, {"config": "default"}, "scripts.package.parity --config=default"),
        (fabfile.doctor, {}, "scripts.ops.doctor"),
        (fabfile.project_tokens, {"workload": "batfit"}, "scripts.ops.project_tokens --workload=batfit"),
        (fabfile.push, {"run": "r1", "setup": True}, "scripts.ops.push --run=r1 --setup"),
        (fabfile.fetch, {"checkpoints": True, "dry_run": True}, "scripts.ops.fetch --checkpoints --dry-run"),
    ],
)
def test_command_line_here(task, options, words) -> None:
    assert command_of(task, **options) == f"{HERE} {words}"


def test_every_option_of_every_task_is_explained() -> None:
    for name in fabfile.ns.task_names:
        unexplained = [argument.name for argument in fabfile.ns[name].get_arguments() if not argument.help]
        assert not unexplained, name


def test_command_line_on_a_host() -> None:
    there = "cd potstill && exec .venv/bin/python -m scripts.train.run --run=r1"
    # a shell of sh's own first says its process id, to which an interrupt goes
    sent = shlex.join(["sh", "-c", f"echo $$; {there}"])
    with MockRemote() as remote:
        commands = [Command(sent, out=b"123\n")]
        remote.expect_sessions(Session(host="gpu.example.org", user="someone", commands=commands))
        fabfile.run(Connection("someone@gpu.example.org", config=connection_config()), run="r1")


def connection_config():
    config = Config()
    config.load_collection(fabfile.ns.configuration())
    config.run.in_stream = False
    return config


def test_push_and_fetch_run_here_for_the_host_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Connection, "local", lambda c, command, **options: asked.append(command) or Result())
    c = Connection("someone@gpu")
    fabfile.push(c, workload="batfit")
    fabfile.fetch(c)
    assert asked == [
        f"{HERE} scripts.ops.push --host=someone@gpu --workload=batfit",
        f"{HERE} scripts.ops.fetch --host=someone@gpu",
    ]


def test_demo_is_one_run_from_the_first_step_to_the_last() -> None:
    c = MockContext(run=Result(), repeat=True)
    fabfile.demo(c)
    lines = [call.args[0].removeprefix(f"{HERE} scripts.") for call in c.run.call_args_list]
    steps = [line.split()[0] for line in lines]
    assert steps[:6] == [
        "ops.doctor", "dataset.convert", "dataset.clean", "dataset.split", "dataset.stats", "train.prepare",
    ]  # fmt: skip
    assert steps[-1] == "eval.chat"
    names = [re.search(r"--run=(\S+)", line) for line in lines[5:]]
    assert {name.group(1) for name in names if name} == {re.search(r"--run=(\S+)", lines[5]).group(1)}
    # only the token projection is about the workload and not about the run
    assert [step for step, name in zip(steps[5:], names, strict=True) if not name] == ["ops.project_tokens"]


def test_a_failing_step_ends_the_chain_with_its_code() -> None:
    c = MockContext(run=[Result(), Result(exited=65), Result()])
    with pytest.raises(Exit) as stopped:
        fabfile.demo(c)
    assert (stopped.value.code, stopped.value.message) == (65, None)
    assert c.run.call_count == 2


def test_a_gate_that_says_no_does_not_end_the_chain_but_gives_its_code() -> None:
    c = MockContext(run=Result(exited=100), repeat=True)
    with pytest.raises(Exit) as stopped:
        fabfile.demo(c)
    assert stopped.value.code == 100
    assert c.run.call_count == len(demo.steps("batfit", "run", ""))


def tasks() -> Iterator[str]:
    listed = subprocess.run([FAB, "-l", "--list-format=json"], cwd=REPO, capture_output=True, text=True, check=True)
    tree = json.loads(listed.stdout)
    yield from (task["name"] for task in tree["tasks"])
    for group in tree["collections"]:
        yield from (f"{group['name']}.{task['name']}" for task in group["tasks"])


def test_every_task_has_its_script_and_every_script_its_task() -> None:
    scripts = {f"{path.parent.name}.{path.stem}" for path in REPO.glob("scripts/*/*.py") if path.stem != "__init__"}
    assert set(tasks()) == scripts | {"demo", "test"}


def test_demo_of_an_unknown_workload_is_one_line() -> None:
    c = MockContext(run=Result())
    with pytest.raises(Exit, match="Did you mean 'batfit'") as stopped:
        fabfile.demo(c, workload="batfitt")
    assert stopped.value.code == 2
    c.run.assert_not_called()


def test_readme_table_names_every_task_and_no_other() -> None:
    """The first cells of the table task | reads | writes."""
    cells = re.findall(r"^\|([^|\n]*)\|", (REPO / "README.md").read_text(encoding="utf-8"), re.M)
    named = {name for cell in cells for name in re.findall(r"\b(?:dataset|train|eval|package|ops)\.[a-z_]+", cell)}
    assert named == set(fabfile.ns.task_names) - {"demo", "test"}


def options_of(text: str) -> set[str]:
    return set(re.findall(r"^ +(?:-\w\b[^,\n]*, )?--([a-z-]+)", text, re.M)) - {"help"}


@pytest.mark.parametrize("name", sorted(set(fabfile.ns.task_names) - {"demo", "test"}))
def test_a_task_has_the_options_of_its_script(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(f"scripts.{name}").main(["--help"])
    script = options_of(capsys.readouterr().out)
    task = {argument.name.replace("_", "-") for argument in fabfile.ns[name].get_arguments()}
    # a workload's own options are -o name=value to Fabric; -H names the host; fetch asks the host for the listing
    own = {name.replace("_", "-") for name in workload.load("batfit").module.CONVERT_OPTIONS}
    assert task == script - {"host", "list"} - (own if name == "dataset.convert" else set())


def test_listing_is_quick_because_it_imports_little() -> None:
    program = "import sys, fabfile; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "unsloth", "trl", "mlflow", "litellm", "duckdb", "pydantic", "rich", "numpy"}
    assert not heavy & set(loaded.stdout.split())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose one script is the test's own."""
    for name in ("fabfile.py", "fabric.yaml"):
        (tmp_path / name).write_text((REPO / name).read_text())
    (tmp_path / "potstill").symlink_to(REPO / "potstill")
    (tmp_path / "scripts/train").mkdir(parents=True)
    return tmp_path


def test_fab_exits_as_the_script_did_and_adds_nothing(project: Path) -> None:
    (project / "scripts/train/run.py").write_text("import sys\nsys.exit('error: full')\n")
    done = subprocess.run([FAB, "train.run"], cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: full\n")
    (project / "scripts/train/run.py").write_text("raise SystemExit(101)\n")
    done = subprocess.run([FAB, "train.run"], cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (101, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_the_step_once(number: int, project: Path) -> None:
    program = """\
import pathlib, time
try:
    pathlib.Path("started").touch()
    time.sleep(120)
except KeyboardInterrupt:
    time.sleep(0.3)
    pathlib.Path("saved").touch()
    raise SystemExit(75)
"""
    (project / "scripts/train/run.py").write_text(program)
    process = subprocess.Popen([FAB, "train.run"], cwd=project, stdin=subprocess.DEVNULL, start_new_session=True)
    while not (project / "started").exists():
        assert process.poll() is None
        time.sleep(0.02)
    # as a terminal does it, to the whole group, or as `timeout` does
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) == 75
    assert (project / "saved").exists()


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    """fab ... | head -1"""
    started = subprocess.Popen([FAB, "ops.doctor"], cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.stdout.close()
    assert "Traceback" not in started.communicate()[1]
