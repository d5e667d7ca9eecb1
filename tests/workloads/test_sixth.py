"""A workload written from docs/workloads/README.md alone: its own blocks, run in a project folder."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.records import Example, Reject, Verdict, read_jsonl
from potstill.stop import DATA, USAGE
from projects import REPO, make_project, run_script

PAGE = (REPO / "docs/workloads/README.md").read_text(encoding="utf-8")
BLOCKS = {name: text for name, text in re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)}
CONFIG, MODULE = "configs/workloads/helpdesk.yaml", "potstill/workloads/helpdesk.py"
SYSTEM = "data/samples/helpdesk/system.txt"
# what makes the chain brief: it is all that is added to the page's commands
BRIEF = {
    "train.prepare": ["-o", "sft.max_steps=2", "-o", "sft.per_device_train_batch_size=4"],
    "eval.generate": ["--limit", "4"],
    "eval.judge": ["--partial"],
    "package.export": ["-c", "brief"],
}
SMALLEST = "num_ctx: 1024\nslots: 4\nartifacts: {bf16: {}}\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with the page's three files, and nothing else changed."""
    folder = make_project(tmp_path_factory.mktemp("sixth") / "project")
    (folder / "data/samples").unlink()
    for path in (CONFIG, MODULE, SYSTEM):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(BLOCKS[path])
    run_commands(folder, "files")
    return folder


def run_commands(folder: Path, block: str, steps: list[str] | None = None) -> None:
    for line in BLOCKS[block].splitlines():
        program, step, *arguments = shlex.split(line)
        assert program == "./fab"
        if steps is None or step in steps:
            run_script(folder, step, *arguments, *BRIEF.get(step, []))


def copy(written: Path, folder: Path) -> Path:
    """The project without what was computed, for a test that changes it."""
    for path in ("configs", "potstill", "data/samples", "data/raw"):
        subprocess.run(["cp", "-r", "--parents", path, str(folder)], cwd=written, check=True)
    return folder


def test_the_page_from_files_to_a_verified_package(written: Path):
    (written / "configs/package/brief.yaml").write_text(SMALLEST)
    run_commands(written, "chain")
    processed, reports = written / "data/processed/helpdesk", written / "reports/helpdesk-1"
    kept = list(read_jsonl(processed / "clean.jsonl", Example))
    rejected = list(read_jsonl(processed / "rejected.jsonl", Reject))
    assert len(kept) + len(rejected) == 300
    assert len(kept) > 280
    # the blocks of the YAML were at work: pages reduced, mail addresses replaced, values grounded
    assert 30 < sum("\n" in example.prompt for example in kept) < 200
    assert not any("<p>" in example.prompt for example in kept)
    assert all(example.metadata["pii"]["email"] == 1 for example in kept)
    assert {example.metadata["grounded"]["refund_eur"] for example in kept} <= {"none", "exact", "normalised", "typed"}
    splits = {split: list(read_jsonl(processed / f"{split}.v1.jsonl", Example)) for split in ("train", "val", "test")}
    customers = [{example.metadata["customer"] for example in rows} for rows in splits.values()]
    assert all(customers)
    assert len(set.union(*customers)) == sum(map(len, customers))
    (verdicts,) = reports.glob("judge_run_*[0-9].jsonl")
    rows = list(read_jsonl(verdicts, Verdict))
    levels = {row.slot: row.level for row in rows}
    assert (levels["order"], levels["quoted"]) == ("same_order", "in_mail")
    assert not [row.reason for row in rows if row.status == "error"]
    assert json.loads((reports / "report.json").read_text())["n"] == 4
    assert (written / "models/helpdesk-1/package/manifest.json").is_file()


def test_captured_calls_need_no_convert(written: Path, tmp_path: Path):
    folder = copy(written, tmp_path)
    (folder / "data/raw/dataset.duckdb").unlink()
    module = BLOCKS[MODULE]
    start, end = module.index("def convert("), module.index("def same_order(")
    (folder / MODULE).write_text(module[:start] + module[end:])
    command = [sys.executable, "-c", BLOCKS["capture.py"]]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run(command, cwd=folder, env=environment, check=True)
    run_commands(folder, "chain", ["dataset.clean", "dataset.split"])
    captured = list(read_jsonl(folder / "data/processed/helpdesk/clean.jsonl", Example))
    assert len(captured) > 280
    assert all(example.id.startswith("call-") and example.metadata["captured_at"] for example in captured)


def test_the_levels_of_the_page_do_what_it_says(written: Path):
    check = (
        "from potstill import workload\n"
        "levels = workload.load('helpdesk').levels\n"
        "def passed(name, *values): return levels[name](*values, prompt='The Lamp smells').passed\n"
        "assert passed('same_order', '482-113', '482113') and not passed('same_order', '482-113', '482-114')\n"
        "assert passed('in_mail', 'x', 'the lamp') and not passed('in_mail', 'x', 'the kettle')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    subprocess.run([sys.executable, "-c", check], cwd=written, env=environment, check=True)


MISTAKES = [
    (None, "dataset.clean", "helpdsk", "no workload 'helpdsk'", USAGE),
    ((MODULE, None, None), "dataset.clean", "helpdesk", "helpdesk.py is not", USAGE),
    ((CONFIG, "  ticket:", "  tickets:"), "dataset.clean", "helpdesk", "want the same", USAGE),
    ((CONFIG, "calls_per_day", "calls_a_day"), "dataset.clean", "helpdesk", "Did you mean", USAGE),
    (
        ("data/raw/dataset.duckdb", None, None),
        "dataset.clean",
        "helpdesk",
        "Run fab dataset.convert, or",
        DATA,
    ),
    ((SYSTEM, None, None), "dataset.clean", "helpdesk", "names it as system_prompt", USAGE),
    ((CONFIG, "level: exact", "level: exakt"), "dataset.clean", "helpdesk", "no level", USAGE),
]


@pytest.mark.parametrize(("change", "step", "name", "message", "code"), MISTAKES)
def test_a_mistake_gets_the_message_the_page_explains(written, tmp_path, change, step, name, message, code):
    folder = copy(written, tmp_path)
    if change is not None:
        path, old, new = change
        text = (folder / path).read_text() if old else ""
        assert old is None or old in text
        (folder / path).unlink() if old is None else (folder / path).write_text(text.replace(old, new))
    refused = run_script(folder, step, "-w", name, check=code)
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert f"`{message}`" in PAGE


def test_a_slot_and_a_level_that_do_not_exist_are_named(written: Path, tmp_path: Path):
    folder = copy(written, tmp_path)
    settings = BLOCKS[CONFIG].replace("      fault: {level: exact}", "      faults: {level: exact}")
    (folder / CONFIG).write_text(settings)
    run_script(folder, "dataset.clean", "-w", "helpdesk")
    reasons = {row.reason for row in read_jsonl(folder / "data/processed/helpdesk/rejected.jsonl", Reject)}
    assert reasons == {"unknown_slot"}
    for quoted in ("unknown_slot", "schema_violation", "has the level", "no row fits into max_length"):
        assert f"`{quoted}`" in PAGE
