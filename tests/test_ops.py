"""ops.doctor and ops.project_tokens on small projects."""

import json
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.files import sha256_file, write_json
from potstill.records import Example, Prediction, write_jsonl
from potstill.snapshots import SPLITS, Snapshot, Version, path_of, register
from potstill.stop import Stop
from scripts.ops import doctor, project_tokens


def states(checks) -> dict[str, str]:
    return {check.what: check.state for check in checks}


def nano(folder: Path, card: str) -> None:
    (folder / "models/nano").unlink()
    (folder / "models/nano").mkdir()
    (folder / "models/nano/model.safetensors").write_bytes(b"weights")
    (folder / "models/nano/README.md").write_text(card)


def test_doctor_knows_the_nano_base_by_its_checksum(project_folder: Path) -> None:
    nano(project_folder, "no checksum")
    assert doctor.nano_base().state == "fail"
    right = sha256_file(Path("models/nano/model.safetensors"))
    Path("models/nano/README.md").write_text(f"sha256 of model.safetensors: `{right}`\n")
    assert doctor.nano_base().state == "ok"
    Path("models/nano/model.safetensors").write_bytes(b"weightz")
    assert doctor.nano_base() == (
        "fail", "nano base", "models/nano/model.safetensors has another checksum than models/nano/README.md names",
        "git checkout models/nano",
    )  # fmt: skip


def test_doctor_ends_in_69_and_names_what_failed(project_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nano(project_folder, "no checksum")
    with pytest.raises(Stop, match="nano base") as stopped:
        doctor.main(["-w", "batfit"])
    assert stopped.value.code == 69
    Path("models/nano/README.md").write_text(sha256_file(Path("models/nano/model.safetensors")))
    assert doctor.main(["-w", "batfit"]) == 0
    assert "next: fab dataset.convert -w batfit" in capsys.readouterr().out
    with pytest.raises(Stop, match="workload"):
        doctor.main(["-w", "batfitt"])


def test_doctor_reads_the_database(project_folder: Path) -> None:
    assert doctor.exemplars().state == "ok"
    path = Path("data/raw/dataset.duckdb")
    path.parent.mkdir()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE examples (id TEXT, task TEXT, prompt_text TEXT)")
    assert doctor.exemplars().state == "fail"
    assert "lacks the column 'response_strong'" in doctor.exemplars().advice
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE examples ADD COLUMN response_strong JSON")
        connection.execute("INSERT INTO examples VALUES ('1', 't1_parse', 'slow deck', '{}')")
    assert doctor.exemplars() == ("ok", "database", f"{path}: 1 exemplars of 1 tasks", "")
    path.write_bytes(b"no database at all" * 1000)
    assert doctor.exemplars().state == "fail"


def test_doctor_minds_who_can_read_env(project_folder: Path) -> None:
    assert doctor.secrets().state == "ok"
    Path(".env").write_text("KEY=1")
    Path(".env").chmod(0o644)
    assert doctor.secrets().state == "fail"
    Path(".env").chmod(0o600)
    assert doctor.secrets().state == "ok"


def test_doctor_without_ssh_and_rsync_only_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert states(doctor.programs()) == {"ssh": "warn", "rsync": "warn"}


def predictions(folder: Path, tokens: dict[str, list[tuple[int, int]]]) -> None:
    """The newest run's answers, `tokens` being (prompt, completion) of every call by task."""
    run = folder / "models/batfit-x-1"
    run.mkdir()
    write_json(run / "run.json", {"run": run.name, "workload": "batfit"})
    rows = [
        Prediction(
            id=f"{task}{number}", task=task, output="{}", parsed={}, valid_json=True, valid_schema=True, repaired=False,
            prompt_tokens=prompt, completion_tokens=completion, latency_ms=1.0, finish_reason="stop", backend="merged",
        )
        for task, calls in tokens.items() for number, (prompt, completion) in enumerate(calls)
    ]  # fmt: skip
    write_jsonl(folder / "reports" / run.name / "predictions.jsonl", rows)


def budget(folder: Path, tokens: int) -> None:
    path = folder / "configs/project.yaml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("daily_token_budget")]
    path.write_text("\n".join([*lines, f"daily_token_budget: {tokens}\n"]))


def test_tokens_within_and_over_the_budget(project_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 20,000 calls of 150 tokens and 1,000 of 250: 3,250,000 a day
    predictions(project_folder, {"t1_parse": [(90, 10), (190, 10)], "t2_repair": [(200, 50)]})
    budget(project_folder, 3_250_000)
    assert project_tokens.main([]) == 0
    result = json.loads(Path("reports/project_tokens.json").read_text())
    assert result["tokens_per_day"] == 3_250_000
    assert (result["share_of_budget"], result["verdict"]) == (1.0, "within")
    parse, repair = result["tasks"]
    assert parse["prompt_tokens"] == {"mean": 140.0, "p50": 90, "p95": 190}
    assert (repair["tokens_per_day"], repair["headroom_calls"]) == (250_000, 0)
    budget(project_folder, 3_249_999)
    assert project_tokens.main(["-w", "batfit"]) == 100
    assert "3,250,000 of 3,249,999" in capsys.readouterr().out


def test_a_task_without_measurements_is_not_called_free(project_folder: Path) -> None:
    predictions(project_folder, {"t1_parse": [(90, 10)]})
    assert project_tokens.main(["-w", "batfit"]) == 101
    repair = json.loads(Path("reports/project_tokens.json").read_text())["tasks"][1]
    assert (repair["n"], repair["tokens_per_day"], repair["headroom_calls"]) == (0, None, None)


def test_nothing_measured(project_folder: Path) -> None:
    with pytest.raises(Stop, match="nothing is measured yet") as stopped:
        project_tokens.main([])
    assert stopped.value.code == 65
    assert not Path("reports/project_tokens.json").exists()


def test_tokens_of_a_snapshot_are_the_base_tokenizers(project_folder: Path) -> None:
    rows = [
        Example(
            id=f"{task}{number}", task=task, system="Parse.", prompt="slow pitches " * (number + 1), response='{"a":1}',
            slots={}, metadata={}, schema_version="1", source_sha256="0" * 64,
        )
        for task in ("t1_parse", "t2_repair") for number in range(2)
    ]  # fmt: skip
    files = {}
    for split in SPLITS:
        path = path_of("batfit", split, "v1")
        files[split] = Snapshot(file=path.as_posix(), rows=write_jsonl(path, rows), sha256=sha256_file(path))
    register("batfit", "v1", Version(**files, seed=1, parents={}))
    assert project_tokens.main(["-w", "batfit"]) == 0
    from transformers import AutoTokenizer

    from potstill import prompt

    tokenizer = AutoTokenizer.from_pretrained("models/nano", local_files_only=True)
    rendered = [prompt.render(row, tokenizer) for row in rows[:2]]
    task = json.loads(Path("reports/project_tokens.json").read_text())["tasks"][0]
    assert task["n"] == 2
    assert task["prompt_tokens"]["p95"] == len(rendered[1].prompt_ids) > len(rendered[0].prompt_ids)
    assert task["completion_tokens"]["p50"] == len(rendered[0].completion_ids)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50))
def test_figures_are_values_that_were_seen_and_in_order(values: list[int]) -> None:
    found = project_tokens.figures(values)
    assert found["p50"] in values
    assert found["p95"] in values
    assert min(values) <= found["p50"] <= found["p95"] <= max(values)
    assert sum(value <= found["p95"] for value in values) >= 0.95 * len(values)
    assert sum(value <= found["p50"] for value in values) >= 0.5 * len(values)


@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.integers(0, 10**5), st.lists(st.integers(1, 5000), min_size=1, max_size=5)), min_size=1),
)
def test_headroom_fits_and_one_call_more_does_not(budget: int, tasks: list[tuple[int, list[int]]]) -> None:
    rows = [
        project_tokens.project_task("w", f"t{number}", calls, "s", [(tokens, 0) for tokens in counts])
        for number, (calls, counts) in enumerate(tasks)
    ]
    result = project_tokens.against(budget, rows)
    assert (result["verdict"] == "over") == (result["tokens_per_day"] > budget)
    left = budget - result["tokens_per_day"]
    for row in result["tasks"]:
        if left >= 0:
            mean = row["tokens"]["mean"]
            # a hair's breadth for floating point
            assert row["headroom_calls"] * mean <= left + 1e-6
            assert left < (row["headroom_calls"] + 1) * mean + 1e-6
        else:
            assert row["headroom_calls"] == 0
