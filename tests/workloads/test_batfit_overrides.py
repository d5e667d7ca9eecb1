"""BatFit from other places: the four BATFIT_* variables and their options; and builds for one tenant."""

import json
from collections import Counter
from pathlib import Path

import pytest
from batfit_rows import SAMPLES, answer, samples

from potstill import database, runs, snapshots, workload
from potstill.files import canonical_json, sha256_file, sha256_text
from potstill.records import Example, write_jsonl
from potstill.snapshots import Snapshot, Version
from potstill.stop import DATA, USAGE, Stop
from potstill.workloads import batfit
from projects import REPO
from scripts.dataset import clean, convert
from scripts.train import prepare

DATABASE = Path("data/raw/dataset.duckdb")
SYSTEM = "Turn talk into BatFit JSON, and nothing else."


@pytest.fixture
def folder(project_folder):
    """A project with a small data dir `mine`, a manifest of its own and a system text."""
    mine = project_folder / "mine"
    for file in SAMPLES.rglob("*"):
        if file.suffix in (".jsonl", ".txt", ".yaml") and file.name != "grammar.yaml":
            (mine / file.relative_to(SAMPLES)).parent.mkdir(parents=True, exist_ok=True)
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            few = lines[::20] if file.suffix == ".jsonl" else lines
            (mine / file.relative_to(SAMPLES)).write_text("".join(few), encoding="utf-8")
    manifest = "system_prompt: common/prompts/system.txt\ntasks: {t2_repair: {files: [t2_repair/val.jsonl]}}\n"
    (project_folder / "repairs.yaml").write_text(manifest)
    (project_folder / "system.txt").write_text(SYSTEM + "\n")
    workload.load.cache_clear()
    yield project_folder
    workload.load.cache_clear()


def rows() -> list:
    return list(database.read(DATABASE, list(batfit.SCHEMAS)))


def test_without_options_the_rows_are_the_committed_samples_in_their_order():
    assert list(batfit.convert(SAMPLES)) == samples()
    # measured training results depend on every id, text and place
    listed = "\n".join(row.model_dump_json() for row in samples())
    assert sha256_text(listed) == "8dc47c1611551114d7db924085f720302ab6a235b9ebbc2d82ca68173ffe5fef"


@pytest.mark.parametrize("how", ["variable", "option", "override"])
def test_each_override_works_as_variable_and_as_option(folder, monkeypatch, capsys, how):
    wanted = {"data_dir": "mine", "manifest": "repairs.yaml", "system_prompt": "system.txt"}
    words = []
    for name, value in wanted.items():
        if how == "variable":
            monkeypatch.setenv(f"BATFIT_{name}".upper(), value)
        elif how == "option":
            words += [f"--{name.replace('_', '-')}", value]
        else:
            words += ["-o", f"{name}={value}"]
    convert.main(["-w", "batfit", *words])
    printed = capsys.readouterr()
    assert "batfit: data dir mine, manifest repairs.yaml, system text system.txt" in printed.err
    assert len(rows()) == len((folder / "mine/t2_repair/val.jsonl").read_text().splitlines()) == 2
    assert {(row.task, row.system_prompt) for row in rows()} == {("t2_repair", SYSTEM)}


def test_every_row_of_the_samples_gets_the_new_system_text_and_keeps_it_through_clean(folder, monkeypatch):
    monkeypatch.setenv("BATFIT_DATA_DIR", "mine")
    monkeypatch.setenv("BATFIT_SYSTEM_PROMPT", "system.txt")
    convert.main(["-w", "batfit"])
    # rows given as messages bring the manifest's text along
    assert {row.system_prompt for row in rows()} == {SYSTEM}
    clean.main(["-w", "batfit"])
    lines = (folder / "data/processed/batfit/clean.jsonl").read_text().splitlines()
    assert {json.loads(line)["system"] for line in lines} == {SYSTEM} == {workload.load("batfit").system_prompt}


@pytest.mark.parametrize("name", ["data_dir", "manifest", "system_prompt"])
def test_an_override_that_is_not_there_stops_and_changes_nothing(folder, monkeypatch, name):
    convert.main(["-w", "batfit", "--data-dir", "mine"])
    before = sha256_file(DATABASE)
    kind = "folder" if name == "data_dir" else "file"
    with pytest.raises(Stop, match=rf"--{name.replace('_', '-')} names gone, where no {kind} is") as caught:
        convert.main(["-w", "batfit", "-o", f"{name}=gone"])
    assert caught.value.code == USAGE
    monkeypatch.setenv(f"BATFIT_{name}".upper(), "gone")
    with pytest.raises(Stop, match=rf"BATFIT_{name.upper()} names gone"):
        convert.main(["-w", "batfit"])
    assert sha256_file(DATABASE) == before


def test_a_data_dir_without_a_manifest_is_named(folder):
    (folder / "empty").mkdir()
    with pytest.raises(Stop, match=r"empty/manifest\.yaml is not there"):
        convert.main(["-w", "batfit", "--data-dir", "empty"])


# --- one tenant


def test_a_tenant_build_shows_in_the_mix_table_and_takes_the_others_out_of_the_database(folder, capsys):
    for option, wanted in ((None, {"timberwolf", "harbourside"}), ("timberwolf", {"timberwolf"}), ("none", set())):
        convert.main(["-w", "batfit", "--data-dir", "mine", *(["-o", f"tenant={option}"] if option else [])])
        printed = capsys.readouterr().out
        table = [line.split() for line in printed.splitlines() if line.startswith("t1_parse")]
        assert {line[1] for line in table} == {"-", *wanted}
        # 4 rows of weight 0.5
        assert {tuple(line[2:5]) for line in table if line[1] != "-"} == ({("4", "0.5", "2")} if wanted else set())
        assert {row.metadata.get("tenant") for row in rows()} == {None, *wanted}
        assert Counter("tenant" in row.metadata for row in rows())[False] > 200


def test_a_misspelt_tenant_is_answered_with_the_nearest(folder):
    convert.main(["-w", "batfit", "--data-dir", "mine"])
    before = rows()
    with pytest.raises(Stop, match=r"no tenant 'timberwulf'\. Did you mean 'timberwolf'\?") as caught:
        convert.main(["-w", "batfit", "-o", "tenant=timberwulf"])
    assert caught.value.code == USAGE
    assert rows() == before


# --- the base


def snapshot(system: str) -> Version:
    files = {}
    for split in ("train", "val", "test"):
        path = snapshots.path_of("batfit", split, "v1")
        fields = {"task": "t1_parse", "system": system, "prompt": split, "response": canonical_json(answer())}
        row = Example(id=split, **fields, slots={}, metadata={}, schema_version="1", source_sha256="0")
        files[split] = Snapshot(file=path.as_posix(), rows=write_jsonl(path, [row]), sha256=sha256_file(path))
    version = Version(**files, seed=1, parents={})
    snapshots.register("batfit", "v1", version)
    return version


def test_the_base_of_a_run_is_what_the_variable_names_and_the_run_says_so(folder, monkeypatch, capsys):
    snapshot("s")
    (folder / "models/other").symlink_to(REPO / "models/nano")
    monkeypatch.setenv("BATFIT_BASE_MODEL", "models/other")
    prepare.main(["-w", "batfit", "-c", "nano", "-r", "a"])
    assert "base models/other: from BATFIT_BASE_MODEL" in capsys.readouterr().err
    assert (runs.read("a").base.name, runs.read("a").base.path) == ("models/other", "models/other")
    assert runs.resolved_config("a").base == "models/other"
    prepare.main(["-w", "batfit", "-c", "nano", "-r", "b", "-o", "base=nano"])
    assert runs.read("b").base.name == "nano"
    assert capsys.readouterr().err == ""


def test_another_base_goes_without_the_configs_revision(folder, monkeypatch):
    job = workload.load("batfit")

    def chosen(value: str, *given: str) -> tuple[str, str | None]:
        monkeypatch.setenv("BATFIT_BASE_MODEL", value)
        settings = prepare.with_base(runs.train_config("gemma3-270m", given), job, list(given))
        return settings.base, settings.revision

    pinned = runs.train_config("gemma3-270m")
    assert pinned.revision
    assert chosen("") == chosen(pinned.base) == (pinned.base, pinned.revision)
    assert chosen("someone/other") == ("someone/other", None)
    assert chosen("someone/other", "revision=abc") == ("someone/other", "abc")
    assert chosen("someone/other", "base=nano") == ("nano", pinned.revision)


def test_a_base_that_is_not_there_is_named_with_where_it_comes_from(folder, monkeypatch, capsys):
    snapshot("s")
    monkeypatch.setenv("BATFIT_BASE_MODEL", "no/such/base")
    with pytest.raises(Stop, match="base 'no/such/base' is neither nano, nor a folder") as caught:
        prepare.main(["-w", "batfit", "-c", "nano", "-r", "a"])
    assert caught.value.code == USAGE
    assert "from BATFIT_BASE_MODEL" in capsys.readouterr().err
    assert not Path("models/a").exists()
    (folder / "models/hollow").mkdir()
    monkeypatch.setenv("BATFIT_BASE_MODEL", "models/hollow")
    with pytest.raises(Stop, match=r"holds no config\.json") as caught:
        prepare.main(["-w", "batfit", "-c", "nano", "-r", "a"])
    assert caught.value.code == DATA


def test_a_system_text_chosen_too_late_is_a_warning(folder, monkeypatch, capsys):
    job = workload.load("batfit")
    prepare.warn_of_other_system_text(job, snapshot("an older text"))
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("BATFIT_SYSTEM_PROMPT", "system.txt")
    prepare.warn_of_other_system_text(job, snapshot(SYSTEM))
    assert capsys.readouterr().err == ""
    prepare.warn_of_other_system_text(job, snapshot("an older text"))
    said = capsys.readouterr().err
    assert "no train row has the system text of BATFIT_SYSTEM_PROMPT" in said
    assert "fab dataset.convert, dataset.clean and dataset.split -w batfit" in said
