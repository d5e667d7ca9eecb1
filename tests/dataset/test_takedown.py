import json
import shutil
from pathlib import Path

import duckdb
import handmade
import pytest
from handmade import example, exemplar, ids, processed, variant
from hypothesis import given
from hypothesis import strategies as st

from potstill import database, project, removal, snapshots, tombstones
from potstill.files import sha256_text, stage_lock
from potstill.records import Reject, write_jsonl
from potstill.snapshots import SPLITS
from potstill.stop import BUSY, DATA, USAGE, Stop
from scripts.dataset import takedown

MARK = "zebra-crossing-marmalade-8841"


@pytest.fixture
def shop(project_folder: Path) -> Path:
    """Ten rows, `gone` among them in train, with a variant; another row of its domain is in test."""
    rows = [example(f"r{n}", tenant="acme" if n == 2 else "other") for n in range(8)]
    gone = example("gone", MARK, domain="shop.example", tenant="other")
    sibling = example("sibling", source_url="https://www.shop.example:8443/x", tenant="other")
    made = variant(gone)
    write_jsonl(processed("clean.jsonl"), [*rows, gone, sibling])
    write_jsonl(processed("augmented.jsonl"), [made, variant(rows[0])])
    reject = {"task": "t1_parse", "stage": "dedupe", "reason": "duplicate", "detail": "equal to gone"}
    write_jsonl(processed("rejected.jsonl"), [Reject(id="bad", **reject), Reject(id="copy", **reject)])
    handmade.snapshot("v1", [*rows[:5], gone, made], rows[5:6], [*rows[6:], sibling])
    logged = [exemplar(row.id, **row.metadata) for row in (*rows, sibling)]
    logged += [exemplar("gone", MARK, **gone.metadata), exemplar("copy", MARK)]
    # another workload's row
    logged.append(exemplar("cricket", task="line", domain="shop.example"))
    database.write(project.database(), logged)
    return project_folder


def take_down(*arguments: str) -> dict:
    takedown.main(["-w", "batfit", *arguments])
    return json.loads(max(project.reports("batfit").glob("takedown_*.json")).read_text())


def everything(folder: Path) -> bytes:
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and "reports" not in path.parts]
    return b"".join(path.read_bytes() for path in kept if not path.is_symlink() and "samples" not in path.parts)


def state(folder: Path) -> dict[str, bytes]:
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}
    return {name: path.read_bytes() for name, path in files.items() if not name.endswith((".lock", ".duckdb"))}


def test_a_row_goes_from_every_place_and_every_other_row_stays_where_it_was(shop: Path):
    before = {split: ids(processed(f"{split}.v1.jsonl")) for split in SPLITS}
    assert MARK.encode() in (shop / "data/raw/dataset.duckdb").read_bytes()
    report = take_down("--id", "gone", "--reason", "asked by letter")

    assert "gone" not in ids(processed("clean.jsonl"))
    assert ids(processed("augmented.jsonl")) == ["r0~typos"]
    name, version = snapshots.newest("batfit")
    assert name == "v2"
    after = {split: ids(snapshots.checked(entry)) for split, entry in version.files().items()}
    assert after == {split: [id for id in found if not id.startswith("gone")] for split, found in before.items()}
    assert version.train.rows == 5
    assert set(version.parents) == {f"{split}.v1.jsonl" for split in SPLITS}
    assert [e.id for e in database.read(project.database(), ["t1_parse"])] == [f"r{n}" for n in range(8)] + ["sibling"]
    # the bytes themselves, not only the rows
    assert MARK.encode() not in everything(shop)
    assert report["removed"]["database"] == 2
    assert report["withdrawn"] == {"v1": {"train": 2, "val": 0, "test": 0}}
    assert report["newest"] == "v2"


def test_the_same_content_under_another_id_goes_too(shop: Path):
    take_down("--id", "gone")
    assert ids(processed("rejected.jsonl")) == ["bad"]
    again = exemplar("new-id", MARK)
    assert tombstones.load("batfit").matches(again)
    assert not tombstones.load("batfit").matches(exemplar("new-id", MARK + "."))


def test_a_withdrawn_snapshot_is_refused_even_when_its_file_is_put_back(shop: Path):
    train = processed("train.v1.jsonl")
    kept = train.read_bytes()
    take_down("--id", "gone")
    assert not any(processed(f"{split}.v1.jsonl").exists() for split in SPLITS)
    train.write_bytes(kept)
    with pytest.raises(Stop, match=r"train\.v1\.jsonl was withdrawn") as stop:
        tombstones.refuse_withdrawn(train)
    assert stop.value.code == DATA
    tombstones.refuse_withdrawn(processed("train.v2.jsonl"))
    # the registry keeps the entry, so a run's checksums still mean something
    assert set(snapshots.registry()["batfit"]) == {"v1", "v2"}


def test_the_tombstone_names_no_content_and_no_id(shop: Path):
    take_down("--id", "gone", "--reason", "asked by letter")
    (stone,) = tombstones.read()
    assert stone.ids == [sha256_text("gone")]
    assert stone.reason == "asked by letter"
    text = tombstones.FILE.read_text()
    assert MARK not in text
    assert '"gone"' not in text


def test_a_row_pulled_again_is_known_and_its_neighbours_are_not(shop: Path):
    take_down("--domain", "shop.example")
    gone = tombstones.load("batfit")
    assert gone.matches(exemplar("x", domain="SHOP.example."))
    assert gone.matches(exemplar("x", source_url="http://www.shop.example/page"))
    assert gone.matches(example("x", domain="shop.example"))
    assert not gone.matches(exemplar("x", domain="myshop.example"))
    assert not gone.matches(exemplar("x", domain="example"))
    assert not gone.matches(exemplar("x", source_url="http://[broken"))
    # a tombstone is of one workload
    assert not tombstones.load("cricket").matches(exemplar("x", domain="shop.example"))


def test_the_database_that_a_pull_replaced_loses_the_rows_too(shop: Path):
    previous = project.previous_database()
    # a row that the newer database no longer has, and one that both have
    database.write(previous, [exemplar("r1", domain="shop.example"), exemplar("gone", domain="shop.example")])
    database.write(previous, [exemplar("kept", domain="elsewhere.example")])
    takedown.main(["-w", "batfit", "--domain", "shop.example"])
    assert [row.id for row in database.read(previous, ["t1_parse"])] == ["kept"]


def test_a_domain_takes_what_is_below_it_and_leaves_other_workloads_alone(shop: Path, capsys):
    report = take_down("--domain", "shop.example")
    assert ids(processed("clean.jsonl")) == [f"r{n}" for n in range(8)]
    assert report["withdrawn"]["v1"] == {"train": 2, "val": 0, "test": 1}
    assert report["other_workloads"] == {"line": 1}
    assert "cricket" in [row.id for row in database.read(project.database(), ["line"])]


def test_a_tenant_goes(shop: Path):
    report = take_down("--tenant", "acme")
    assert report["ids"] == ["r2"]
    assert "r2" not in ids(processed("train.v2.jsonl"))


def test_consent_withdrawn_in_the_database_reaches_rows_cleaned_before(shop: Path):
    database.write(project.database(), [exemplar("r3", consent=False)])
    report = take_down("--no-consent")
    assert report["ids"] == ["r3"]
    assert "r3" not in ids(processed("clean.jsonl"))
    assert "r3" not in ids(processed("train.v2.jsonl"))
    # an old copy of the row still says nothing of consent
    assert tombstones.load().matches(exemplar("r3"))


def test_without_a_row_nothing_is_written(shop: Path, capsys):
    before = state(shop)
    with pytest.raises(Stop, match="names no row of batfit") as stop:
        takedown.main(["-w", "batfit", "--id", "nobody"])
    assert stop.value.code == DATA
    takedown.main(["-w", "batfit", "--no-consent"])
    assert "nothing to take down" in capsys.readouterr().out
    with pytest.raises(Stop, match="tasks line are"):
        takedown.main(["-w", "batfit", "--id", "cricket"])
    assert state(shop) == before


def test_a_dry_run_says_what_would_go_and_writes_nothing(shop: Path, capsys):
    before = state(shop)
    takedown.main(["-w", "batfit", "--id", "gone", "--dry-run"])
    out = capsys.readouterr().out
    assert "snapshot v1, withdrawn: train 2" in out
    assert "nothing was written" in out
    assert state(shop) == before


@pytest.mark.parametrize("value", ["com", "https://shop.example/x", ""])
def test_a_domain_that_is_none_is_refused(shop: Path, value: str):
    with pytest.raises(Stop, match="want a domain") as stop:
        takedown.main(["-w", "batfit", "--domain", value])
    assert stop.value.code == USAGE


def test_a_variant_is_refused_because_it_would_be_made_again(shop: Path):
    with pytest.raises(Stop, match="take down its parent"):
        takedown.main(["-w", "batfit", "--id", "gone~typos"])


def test_an_edited_snapshot_is_named_and_nothing_goes(shop: Path):
    with open(processed("val.v1.jsonl"), "a") as file:
        file.write("\n")
    before = state(shop)
    with pytest.raises(Stop, match=r"val\.v1\.jsonl was changed"):
        takedown.main(["-w", "batfit", "--id", "gone"])
    assert state(shop) == before


def test_a_split_left_without_rows_gets_no_successor(shop: Path, capsys):
    takedown.main(["-w", "batfit", "--id", "r5"])
    assert "no row of data/processed/batfit/val.v1.jsonl is left" in capsys.readouterr().out
    assert set(snapshots.registry()["batfit"]) == {"v1"}
    assert not processed("val.v1.jsonl").exists()


def test_a_newest_snapshot_without_the_rows_stays_the_newest(shop: Path):
    handmade.snapshot("v2", [example("a")], [example("b")], [example("c")])
    report = take_down("--id", "gone")
    assert report["newest"] == "v2"
    assert list(report["withdrawn"]) == ["v1"]
    assert set(snapshots.registry()["batfit"]) == {"v1", "v2"}
    assert not processed("train.v1.jsonl").exists()
    assert processed("train.v2.jsonl").exists()


def test_other_tables_and_user_columns_survive_the_rewritten_database(shop: Path):
    path = project.database()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 7 AS n")
        connection.execute("ALTER TABLE examples ADD COLUMN extra INTEGER DEFAULT 5")
    take_down("--id", "gone")
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT n FROM notes").fetchall() == [(7,)]
        assert connection.execute("SELECT DISTINCT extra FROM examples").fetchall() == [(5,)]
    # the primary key too: an upsert replaces
    database.write(path, [exemplar("r1", "new")])
    assert [row.prompt_text for row in database.read(path, ["t1_parse"]) if row.id == "r1"] == ["new"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["dataset.duckdb"]


def test_what_a_killed_step_left_and_old_diffs_go_too(shop: Path):
    for path in (processed(".clean.jsonl.a1b2"), project.reports("batfit") / "diff_v0_v1.md"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(MARK)
    take_down("--id", "gone")
    assert MARK.encode() not in everything(shop)
    assert not (project.reports("batfit") / "diff_v0_v1.md").exists()


def test_a_running_step_is_not_disturbed(shop: Path):
    with (
        stage_lock(project.processed("batfit"), "clean"),
        pytest.raises(Stop, match="clean is already running") as stop,
    ):
        takedown.main(["-w", "batfit", "--id", "gone"])
    assert stop.value.code == BUSY


class Killed(BaseException):
    pass


STEPS = [
    (removal, "without", 2),  # clean.jsonl and the others
    (removal, "without", 5),  # the new snapshot
    (snapshots, "register", 1),
    (takedown, "write_json", 1),
    (takedown, "leftovers", 1),
    (removal.os, "replace", 1),  # the database
]


def test_killed_at_any_step_the_same_command_completes_it(tmp_path_factory, shop: Path, monkeypatch):
    original = tmp_path_factory.mktemp("original") / "shop"
    shutil.copytree(shop, original, symlinks=True)
    takedown.main(["-w", "batfit", "--id", "gone"])

    def outcome() -> dict[str, bytes]:
        found = {
            n: data for n, data in state(shop).items() if "takedown_" not in n and not n.endswith("tombstones.jsonl")
        }
        found["rows"] = repr(sorted(r.id for r in database.read(project.database(), ["t1_parse", "line"]))).encode()
        (stone,) = tombstones.read()
        found["stone"] = stone.model_copy(update={"created_at": ""}).model_dump_json().encode()
        return found

    wanted = outcome()
    for module, name, which in STEPS:
        for item in shop.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        shutil.copytree(original, shop, symlinks=True, dirs_exist_ok=True)
        real, calls = getattr(module, name), []

        def dying(*arguments, real=real, calls=calls, which=which, **options):
            calls.append(1)
            if len(calls) == which:
                raise Killed
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dying)
            with pytest.raises(Killed):
                takedown.main(["-w", "batfit", "--id", "gone"])
        takedown.main(["-w", "batfit", "--id", "gone"])
        assert outcome() == wanted, f"{name} {which}"
        assert MARK.encode() not in everything(shop)


def test_the_report_of_a_killed_takedown_is_complete(shop: Path, monkeypatch):
    """Once the database is purged, nothing knows any more which answers were to rows of the domain."""
    answers = shop / "reports/some-run/predictions.jsonl"
    answers.parent.mkdir(parents=True)
    answers.write_text('{"id":"sibling"}\n')
    with monkeypatch.context() as patch:
        patch.setattr(takedown, "show", lambda report: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            takedown.main(["-w", "batfit", "--domain", "shop.example"])
    (path,) = project.reports("batfit").glob("takedown_*.json")
    assert json.loads(path.read_text())["reports"] == {"reports/some-run/predictions.jsonl": 1}


def test_runs_packages_and_reports_of_the_rows_are_listed(shop: Path, capsys):
    write_run("seen", "v1")
    write_run("on-top", "v9", base="models/seen/model")
    write_run("unseen", "v9")
    (shop / "models/seen/package").mkdir()
    (shop / "models/seen/package/manifest.json").write_text("{}")
    (shop / "models/broken").mkdir()
    (shop / "models/broken/run.json").write_text("{")
    reports = shop / "reports/seen"
    reports.mkdir(parents=True)
    (reports / "predictions.jsonl").write_text('{"id":"gone"}\n{"id":"r1"}\nnot json\n[]\n')
    (reports / "report.html").write_text(MARK)
    (shop / "reports/unseen").mkdir()
    (shop / "reports/unseen/predictions.jsonl").write_text('{"id":"r1"}\n')
    report = take_down("--id", "gone")
    assert [(run["run"], run["based_on"]) for run in report["runs"]] == [("on-top", "seen"), ("seen", None)]
    assert report["runs"][1]["rows"]["train"] == 2
    assert report["runs"][1]["package"] == "models/seen/package"
    assert report["reports"] == {"reports/seen/predictions.jsonl": 1, "reports/seen/report.html": None}
    assert len(report["runs_unreadable"]) == 1
    assert "run seen, prepared with v1" in capsys.readouterr().out


def write_run(name: str, version: str, base: str = "models/nano") -> None:
    folder = project.run_folder(name)
    folder.mkdir()
    record = {"run": name, "workload": "batfit", "created_at": "", "train_config": "nano", "mode": "full"}
    record |= {"base": {"name": "nano", "path": base, "revision": None, "sha256": ""}, "snapshot": version}
    record |= {"snapshots": {}, "git_commit": None, "git_dirty": False, "lock_sha256": None, "seed": 1, "device": "cpu"}
    (folder / "run.json").write_text(json.dumps(record))


values = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=3), max_size=2)
KEYS = st.sampled_from(["domain", "tenant", "source_url", "parent", "consent", "x"])


@given(st.dictionaries(KEYS, values), st.text(max_size=5))
def test_hostile_metadata_neither_crashes_the_matcher_nor_is_it_matched(metadata, id):
    gone = tombstones.Tombstones(
        frozenset([sha256_text("a row of another name")]),
        frozenset(["0" * 64]),
        frozenset(["a.bc"]),
        frozenset(["acme"]),
    )
    assert not gone.matches(exemplar(id, **metadata))
    assert gone.matches(exemplar(id, **{**metadata, "tenant": "acme"}))
    assert gone.matches(exemplar(id, **{**metadata, "domain": "x.A.bc"}))
    assert gone.matches(exemplar("a row of another name", **metadata))


def test_a_damaged_tombstone_file_stops_everything(shop: Path):
    take_down("--id", "gone")
    tombstones.FILE.write_text(tombstones.FILE.read_text()[:-9])
    with pytest.raises(Stop, match=r"tombstones\.jsonl line 1"):
        tombstones.load()
