import json
from pathlib import Path

import pytest

from potstill import corpus, database
from potstill.records import Exemplar
from potstill.stop import DATA, USAGE, Stop

PAIR = {"input": "skiddy deck", "output": {"a": 1.5}}


def read(folder: Path, rows: list, manifest: str | None = None) -> list[Exemplar]:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "system.txt").write_text("Answer in JSON.\n", encoding="utf-8")
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    listed = manifest or "system_prompt: system.txt\ntasks: {t1: {files: [rows.jsonl]}}\n"
    (folder / "manifest.yaml").write_text(listed, encoding="utf-8")
    return list(corpus.read(folder, ["t1", "t2"], "3"))


def test_both_layouts_give_the_same_exemplar(tmp_path):
    chat = {"messages": [{"role": "user", "content": "skiddy deck"}], "output_json": {"a": 1.5}}
    (one,), (other,) = read(tmp_path, [PAIR]), read(tmp_path, [chat])
    assert one == other
    assert one.prompt_text == "skiddy deck"
    assert one.response_strong == '{"a":1.5}'
    assert one.system_prompt == "Answer in JSON."
    assert one.metadata == {"schema_version": "3"}


def test_last_user_message_and_the_rows_own_system_text_count(tmp_path):
    talk = [("system", "Be brief."), ("user", "first"), ("user", "last")]
    messages = [{"role": role, "content": content} for role, content in talk]
    (exemplar,) = read(tmp_path, [{"messages": messages, "output_json": "{}"}])
    assert (exemplar.prompt_text, exemplar.system_prompt) == ("last", "Be brief.")


def test_an_answer_given_as_text_is_passed_on_as_it_is(tmp_path):
    assert read(tmp_path, [{**PAIR, "output": '{ "a": 1,}'}])[0].response_strong == '{ "a": 1,}'


def test_ids_are_the_rows_own_or_stable(tmp_path):
    first, second = read(tmp_path, [PAIR, {**PAIR, "input": "other", "id": "mine"}])
    assert second.id == "mine"
    assert read(tmp_path, [PAIR])[0].id == first.id
    assert read(tmp_path, [{**PAIR, "output": {}}])[0].id != first.id


def test_labels_reach_the_metadata(tmp_path):
    rows = [{**PAIR, "group": "g", "slice": "hard"}, {**PAIR, "input": "two", "family": "f"}]
    one, two = read(tmp_path, rows)
    assert one.metadata == {"schema_version": "3", "group": "g", "slice": "hard"}
    assert two.metadata["group"] == "f"


def test_weights_tenants_and_val_files(tmp_path):
    (tmp_path / "val.jsonl").write_text(json.dumps({**PAIR, "input": "held out"}), encoding="utf-8")
    (tmp_path / "wolf.jsonl").write_text(json.dumps({**PAIR, "input": "howl"}), encoding="utf-8")
    manifest = """
system_prompt: system.txt
tasks: {t1: {files: [rows.jsonl, val.jsonl]}, t2: {files: [rows.jsonl], weight: 0}}
tenants: {wolf: {files: {t1: [wolf.jsonl]}, weight: 0.25}, gone: {files: {t1: [rows.jsonl]}, weight: 0.0}}
"""
    plain, held_out, howl = read(tmp_path, [PAIR], manifest)
    assert {row.task for row in (plain, held_out, howl)} == {"t1"}
    assert "weight" not in plain.metadata
    assert held_out.metadata["split"] == "val"
    assert howl.metadata == {"tenant": "wolf", "weight": 0.25, "schema_version": "3"}


def test_a_tenant_whose_folder_is_misspelt_is_answered_with_the_nearest_file(tmp_path):
    (tmp_path / "tenants/timberwolf").mkdir(parents=True)
    (tmp_path / "tenants/timberwolf/t1.jsonl").write_text(json.dumps(PAIR), encoding="utf-8")
    manifest = "system_prompt: system.txt\ntasks: {}\ntenants: {wolf: {files: {t1: [tenants/timberwulf/t1.jsonl]}}}"
    with pytest.raises(Stop, match=r"timberwulf/t1\.jsonl is not there; .*Did you mean 'tenants/timberwolf/t1\.jsonl'"):
        read(tmp_path, [], manifest)
    # what counts for nothing is not read, so it need not be there
    assert read(tmp_path, [], manifest.replace("}}}", "}, weight: 0}}")) == []


def test_a_tenant_set_to_zero_leaves_the_database_with_the_next_conversion(tmp_path):
    manifest = """
system_prompt: system.txt
tasks: {t1: {files: [rows.jsonl]}}
tenants: {wolf: {files: {t1: [wolf.jsonl]}, weight: WEIGHT}}
"""
    howls = [json.dumps({**PAIR, "input": f"howl {n}"}) for n in range(8)]
    (tmp_path / "wolf.jsonl").write_text("\n".join(howls), encoding="utf-8")
    tenants = []
    for weight in ("2.5", "0"):
        exemplars = [
            exemplar.model_copy(update={"metadata": {**exemplar.metadata, "converted_by": "w"}})
            for exemplar in read(tmp_path, [PAIR], manifest.replace("WEIGHT", weight))
        ]
        database.write(tmp_path / "d.duckdb", exemplars, replace_workload="w")
        tenants.append([row.metadata.get("tenant") for row in database.read(tmp_path / "d.duckdb", ["t1"])])
    assert sorted(map(str, tenants[0])) == ["None"] + ["wolf"] * 8
    assert tenants[1] == [None]


def test_a_repeated_row_comes_once_but_an_id_names_one_row(tmp_path):
    assert len(read(tmp_path, [PAIR, PAIR])) == 1
    with pytest.raises(Stop, match=r"rows\.jsonl line 2: id 'x' is already taken by another row, .*line 1"):
        read(tmp_path, [{**PAIR, "id": "x"}, {**PAIR, "id": "x", "input": "other"}])


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("{not json", "not JSON"),
        ("[1]", "the row"),
        ({"input": "x"}, "output"),
        ({**PAIR, "outptu": 1}, "outptu"),
        ({"input": 4, "output": {}}, "input"),
        ({"input": "x", "output": [1]}, "output"),
        ({"messages": [], "output_json": {}}, "no message of role 'user'"),
        ({"messages": [{"role": "robot", "content": "x"}], "output_json": {}}, r"messages\.0\.role"),
        ({"messages": [{"role": "user", "content": "x"}], "output": {}}, "output_json"),
        ('{"input": "x", "output": {"a": NaN}}', "NaN"),
    ],
)
def test_a_malformed_row_is_one_clear_line(tmp_path, row, named):
    with pytest.raises(Stop, match=rf"rows\.jsonl line 2: .*{named}") as caught:
        read(tmp_path, [PAIR, row])
    assert caught.value.code == DATA
    assert "\n" not in str(caught.value)
    assert "Mend the row" in str(caught.value)


@pytest.mark.parametrize(
    ("manifest", "named", "code"),
    [
        ("system_prompt: system.txt\ntasks: {t1: {files: [gone.jsonl]}}", r"gone\.jsonl is not there", DATA),
        ("system_prompt: gone.txt\ntasks: {}", r"gone\.txt is not there", DATA),
        ("system_prompt: system.txt\ntasks: {t9: {files: []}}", "no task 't9'", USAGE),
        ("system_prompt: system.txt\ntasks: {t9: {files: [rows.jsonl]}}", "no task 't9'", USAGE),
        (
            "system_prompt: system.txt\ntasks: {t1: {files: [rows.jsonl], wieght: 1}}",
            r"unknown key 'tasks\.t1\.wieght'",
            USAGE,
        ),
        ("system_prompt: system.txt\ntasks: {t1: {files: [rows.jsonl], weight: -1}}", "weight", USAGE),
        ("system_prompt: system.txt\ntasks: {t1: {files: [rows.jsonl], weight: .nan}}", "weight", USAGE),
        ("system_prompt: system.txt\ntasks: {t1: {files: [rows.jsonl], weight: 101}}", "tasks.t1.weight", USAGE),
        ("system_prompt: system.txt\ntasks: {t1: {files: [rowz.jsonl]}}", r"Did you mean 'rows\.jsonl'", DATA),
        (
            "system_prompt: system.txt\ntasks: {}\ntenants: {wolf: {files: {t1: []}, weigth: 1}}",
            r"unknown key 'tenants\.wolf\.weigth'\. Did you mean 'weight'",
            USAGE,
        ),
        ("system_prompt: system.txt\ntasks: {}\ntenants: {w: {files: {t3: []}, weight: 0}}", "no task 't3'", USAGE),
    ],
)
def test_a_wrong_manifest_is_one_clear_line(tmp_path, manifest, named, code):
    with pytest.raises(Stop, match=named) as caught:
        read(tmp_path, [PAIR], manifest)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    read(tmp_path, [PAIR])
    (tmp_path / "rows.jsonl").write_bytes(b'{"input": "\xff"}')
    with pytest.raises(Stop, match=r"rows\.jsonl: byte 11 is not UTF-8"):
        list(corpus.read(tmp_path, ["t1"], "1"))


TENANTS = """
system_prompt: system.txt
tasks: {t1: {files: [rows.jsonl]}}
tenants:
  wolf: {files: {t1: [wolf.jsonl]}, weight: 0.5}
  bear: {files: {t1: [bear.jsonl]}}
  gone: {files: {t1: [gone.jsonl]}, weight: 0}
"""


@pytest.fixture
def two_tenants(tmp_path):
    for name in ("wolf", "bear"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({**PAIR, "input": name}), encoding="utf-8")
    assert len(read(tmp_path, [PAIR], TENANTS)) == 3
    return tmp_path


def test_a_build_for_a_tenant_is_the_global_rows_and_its_own_as_they_are_in_the_whole_mix(two_tenants):
    whole = list(corpus.read(two_tenants, ["t1"], "3"))
    for tenant in ("wolf", "bear", "none"):
        (two_tenants / f"{'bear' if tenant == 'wolf' else 'wolf'}.jsonl").rename(two_tenants / "away")
        built = list(corpus.read(two_tenants, ["t1"], "3", tenant=tenant))
        (two_tenants / "away").rename(two_tenants / f"{'bear' if tenant == 'wolf' else 'wolf'}.jsonl")
        assert built == [row for row in whole if row.metadata.get("tenant") in (None, tenant)], tenant


@pytest.mark.parametrize(
    ("tenant", "named"),
    [
        ("wulf", r"manifest\.yaml: no tenant 'wulf'\. Did you mean 'wolf'\? Known: bear, gone, wolf, none\."),
        ("None", r"Did you mean 'none'"),
        ("", r"no tenant ''"),
        ("gone", r"tenant 'gone' has weight 0\. Give it a weight, or build with tenant=none"),
    ],
)
def test_a_tenant_that_cannot_be_built_for_is_one_clear_line(two_tenants, tenant, named):
    with pytest.raises(Stop, match=named) as caught:
        list(corpus.read(two_tenants, ["t1"], "3", tenant=tenant))
    assert caught.value.code == USAGE


def test_no_tenant_is_called_none(tmp_path):
    with pytest.raises(Stop, match=r"manifest\.yaml: .*no tenant can be called none"):
        read(tmp_path, [PAIR], TENANTS.replace("wolf:", "none:"))


def test_another_manifest_names_files_of_the_samples_folder(tmp_path):
    read(tmp_path, [PAIR, {**PAIR, "input": "two"}])
    (tmp_path / "half.jsonl").write_text(json.dumps({**PAIR, "input": "half"}), encoding="utf-8")
    other = tmp_path / "elsewhere" / "mine.yaml"
    other.parent.mkdir()
    other.write_text("system_prompt: system.txt\ntasks: {t1: {files: [half.jsonl]}}", encoding="utf-8")
    (row,) = corpus.read(tmp_path, ["t1"], "3", manifest=other)
    assert row.prompt_text == "half"
    other.write_text("system_prompt: system.txt\ntasks: {t1: {files: [halve.jsonl]}}", encoding="utf-8")
    with pytest.raises(Stop, match=r"halve\.jsonl is not there; .*mine\.yaml names it\. Did you mean 'half\.jsonl'"):
        list(corpus.read(tmp_path, ["t1"], "3", manifest=other))


def test_another_system_text_takes_the_manifests_place_and_leaves_a_rows_own(tmp_path):
    def chat(prompt: str, system: str) -> dict:
        talk = [("system", system), ("user", prompt)]
        return {"messages": [{"role": r, "content": c} for r, c in talk], "output_json": {}}

    rows = [PAIR, chat("repeats it", "Answer in JSON.\n"), chat("has its own", "Be brief.")]
    before = read(tmp_path, rows)
    (tmp_path / "other.txt").write_text("Cricket to JSON.\n", encoding="utf-8")
    after = list(corpus.read(tmp_path, ["t1"], "3", system_prompt=tmp_path / "other.txt"))
    assert [row.system_prompt for row in before] == ["Answer in JSON.", "Answer in JSON.\n", "Be brief."]
    assert [row.system_prompt for row in after] == ["Cricket to JSON.", "Cricket to JSON.", "Be brief."]
    # an id stands for what a row says, its system text too
    assert [old.id == new.id for old, new in zip(before, after, strict=True)] == [False, False, True]
    (tmp_path / "other.txt").write_bytes(b"\xff")
    with pytest.raises(Stop, match=r"other\.txt: byte 0 is not UTF-8"):
        list(corpus.read(tmp_path, ["t1"], "3", system_prompt=tmp_path / "other.txt"))
