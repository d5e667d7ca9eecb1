"""dataset.split as a user runs it: near-duplicates, leaks, variants, and snapshots that nobody may change."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from potstill import snapshots, workload
from potstill.files import canonical_json
from potstill.records import Example, read_jsonl, write_jsonl
from potstill.stop import DATA, Stop
from scripts.dataset import split

FOLDER = Path("data/processed/batfit")
REPORT = Path("reports/batfit/leakage.json")
NAMES = [
    a + b for a in ("ker", "mon", "tal", "bri", "sno", "vel") for b in ("dim", "pot", "rash", "lune", "gar", "wix")
]


def product(n: int, price: float, group: str, **more) -> Example:
    """A product page of its own words; the same `n` at another price is the same page but for the price."""
    words = " ".join(f"{NAMES[(n * 7 + i * (n % 5 + 1)) % 36]}{n}" for i in range(30))
    answer = {"name": f"product {n}", "brand": NAMES[n % 36], "sku": f"S-{n}", "price": price}
    id = more.pop("id", f"p{n}-{price}")
    metadata = {"group": group, **more}
    return example(id, f"{words}. Price: {price} EUR, in stock.", answer, metadata)


def example(id: str, prompt: str, answer: object, metadata: dict, task: str = "t1_parse") -> Example:
    return Example(
        id=id, task=task, system="", prompt=prompt, response=canonical_json(answer), slots={}, metadata=metadata,
        schema_version="1", source_sha256="",
    )  # fmt: skip


def repairs() -> list[Example]:
    """The workload's other task, in all three splits whatever happens to the first."""
    return [
        example(f"t{n}", f"repair {NAMES[n]} {NAMES[n + 9]}", {"n": n}, {"group": f"t{n}"}, "t2_repair")
        for n in range(9)
    ]


def run(rows: Iterable[Example], near: bool = True, **settings: str) -> dict[str, list[Example]]:
    """Writes clean.jsonl, splits it, and returns the rows of the newest snapshot."""
    config = Path("configs/workloads/batfit.yaml")
    lines = [line for line in config.read_text().splitlines() if not line.startswith("near_duplicates")]
    text = "\n".join([*lines, *(["near_duplicates: {threshold: 0.85}"] if near else [])]) + "\n"
    for key, value in settings.items():
        text = "\n".join(f"  {key}: {value}" if line.startswith(f"  {key}:") else line for line in text.split("\n"))
    config.write_text(text)
    workload.load.cache_clear()
    write_jsonl(FOLDER / "clean.jsonl", [*rows, *repairs()])
    split.main(["-w", "batfit"])
    return newest()


def newest() -> dict[str, list[Example]]:
    _, version = snapshots.newest("batfit")
    return {name: list(snapshots.read(snapshot)) for name, snapshot in version.files().items()}


def sides(found: dict[str, list[Example]]) -> dict[str, str]:
    return {row.id: name for name, rows in found.items() for row in rows}


def counts() -> dict[str, int]:
    return json.loads(REPORT.read_text())["counts"]


def files() -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in [*FOLDER.glob("*"), *Path("configs").glob("data*")] if path.is_file()
    }


def test_pages_that_differ_only_in_price_are_on_one_side_whatever_their_groups(project_folder):
    rows = [product(n, price, f"shop{n}-{price}") for n in range(24) for price in (19.99, 24.5)]
    for seed in range(5):
        found = sides(run(rows, seed=str(seed)))
        assert all(found[f"p{n}-19.99"] == found[f"p{n}-24.5"] for n in range(24))
        assert {found[row.id] for row in rows} == {"train", "val", "test"}
        assert counts() == {"exact": 0, "near_duplicate": 0, "group": 0, "conflict": 0}
    # and without the setting some pair is parted, or the test above could not fail
    found = sides(run(rows, near=False))
    assert any(found[f"p{n}-19.99"] != found[f"p{n}-24.5"] for n in range(24))


def test_short_prompts_that_differ_only_in_price_are_on_one_side_too(project_folder):
    def short(n: int, price: str) -> Example:
        answer = {"name": NAMES[n], "kind": "kettle", "price": float(price)}
        return example(
            f"k{n}-{price}", f"{NAMES[n]} kettle, steel, now {price} EUR", answer, {"group": f"g{n}-{price}"}
        )

    found = sides(run([short(n, price) for n in range(24) for price in ("19.99", "24.5")]))
    assert all(found[f"k{n}-19.99"] == found[f"k{n}-24.5"] for n in range(24))


def test_a_template_does_not_chain_a_task_into_one_group(project_folder):
    def broken(n: int) -> Example:
        pairs = {
            "pitch": NAMES[n % 36],
            "pickup": NAMES[n * 5 % 36],
            "profile": NAMES[n * 11 % 36],
            "goal": NAMES[-n % 36],
        }
        wrapping = 'Here is the object that you asked for, as JSON, with every key that the form has: {"context":{'
        return example(f"b{n}", wrapping + ",".join(f'"{k}":{v}' for k, v in pairs.items()), pairs, {"group": f"g{n}"})

    found = run([broken(n) for n in range(72)])
    sizes = {name: sum(row.task == "t1_parse" for row in rows) for name, rows in found.items()}
    assert sizes["train"] >= 48
    assert min(sizes.values()) >= 3
    assert counts()["conflict"] > 0, "the template is near itself, or the test could not fail"
    [pair, *_] = json.loads(REPORT.read_text())["pairs"]["conflict"]
    assert pair["splits"][0] != pair["splits"][1]
    assert set(pair["slots"]) <= {"pitch", "pickup", "profile", "goal"}
    assert pair["jaccard"] >= 0.85


def test_a_near_pair_pinned_to_two_splits_stops_the_split(project_folder):
    rows = [product(n, 5.0, f"g{n}") for n in range(20)]
    pinned = [product(30, 1.0, "a", split="train"), product(30, 2.0, "b", split="test")]
    with pytest.raises(Stop, match="1 near-duplicate pairs") as stop:
        run([*rows, *pinned])
    assert stop.value.code == DATA
    [pair] = json.loads(REPORT.read_text())["pairs"]["near_duplicate"]
    assert (pair["first"], pair["second"], pair["splits"]) == ("p30-1.0", "p30-2.0", ["train", "test"])
    assert pair["slots"] == ["price"]
    assert not snapshots.REGISTRY.exists()
    assert list(FOLDER.glob("*.v*.jsonl")) == []


def test_a_pin_that_comes_after_its_near_duplicate_is_followed(project_folder):
    rows = [product(n, 5.0, f"g{n}") for n in range(20)] + [product(3, 6.0, "late", split="test")]
    assert sides(run(rows))["p3-5.0"] == "test"


@pytest.mark.parametrize("near", [False, True])
def test_equal_prompts_in_two_splits_stop_the_split(project_folder, near: bool):
    rows = [product(n, 5.0, f"g{n}") for n in range(20)]
    twins = [
        example(f"twin-{split}", prompt, {"n": n}, {"group": split, "split": split})
        for n, (split, prompt) in enumerate([("train", "One Small Bat"), ("val", "one  small bat")])
    ]
    with pytest.raises(Stop, match="1 prompts, 0 near-duplicate pairs and 0 groups"):
        run([*rows, *twins], near)
    [pair] = json.loads(REPORT.read_text())["pairs"]["exact"]
    assert {pair["first"], pair["second"]} == {"twin-train", "twin-val"}


def test_an_edited_snapshot_is_refused_by_name_and_can_be_written_again(project_folder):
    rows = [product(n, 5.0, f"g{n}") for n in range(20)]
    run(rows)
    run([*rows, product(40, 1.0, "new")])
    before = files()
    for name in ("test.v1.jsonl", "train.v2.jsonl"):
        path = FOLDER / name
        data = bytearray(path.read_bytes())
        data[7] ^= 1
        path.write_bytes(data)
        with pytest.raises(Stop, match=f"{name} was changed after the split") as stop:
            split.main(["-w", "batfit"])
        assert stop.value.code == DATA
        assert path.read_bytes() == bytes(data), "an edited snapshot is evidence, not ours to overwrite"
        path.write_bytes(before[name])
    (FOLDER / "train.v2.jsonl").unlink()
    split.main(["-w", "batfit"])
    assert files() == before


def test_variants_go_to_train_with_their_parents_and_nowhere_else(project_folder, capsys):
    rows = [product(n, 5.0, f"g{n}") for n in range(20)]
    first = sides(run(rows))
    variants = [
        product(100 + n, 5.0, "any", id=f"variant-{n}", parent=row.id, augmented="typos") for n, row in enumerate(rows)
    ]
    held_out = next(row for row in rows if first[row.id] == "test")
    in_train = next(row for row in rows if first[row.id] == "train")
    twin = held_out.model_copy(
        update={
            "id": "twin",
            "metadata": {"parent": in_train.id, "augmented": "typos"},
            "prompt": held_out.prompt + "!",
        }
    )
    orphan = product(300, 5.0, "any", id="orphan", parent="gone", augmented="typos")
    write_jsonl(FOLDER / "augmented.jsonl", [*variants, twin, orphan])
    capsys.readouterr()
    found = run(rows)
    told = capsys.readouterr().out
    side = sides(found)
    assert {id: side[id] for id in first} == first, "variants must not move the rows they were made of"
    trained = {row.metadata["parent"] for row in found["train"] if "parent" in row.metadata}
    assert trained == {row.id for row in rows if first[row.id] == "train"}
    assert not any("parent" in row.metadata for name in ("val", "test") for row in found[name])
    assert not {"twin", "orphan"} & side.keys()
    left_out = json.loads(REPORT.read_text())["augmented"]["left_out"]
    assert left_out["near a row of val or test"] == left_out["parent is not in clean.jsonl"] == 1
    assert left_out["parent is in test"] == sum(first[row.id] == "test" for row in rows)
    assert f"train also gets {len(trained)} augmented rows; {sum(left_out.values())} left out" in told
    name, version = snapshots.newest("batfit")
    assert name == "v2"
    assert version.parents.keys() == {"clean.jsonl", "augmented.jsonl"}
    assert version.train.rows == len(found["train"])


def test_a_variant_that_names_no_parent_is_refused(project_folder):
    FOLDER.mkdir(parents=True)
    write_jsonl(FOLDER / "augmented.jsonl", [product(1, 1.0, "g", id="v", augmented="typos")])
    with pytest.raises(Stop, match=r"row v has no metadata\.parent"):
        run([product(n, 5.0, f"g{n}") for n in range(20)])


def test_groups_too_coarse_for_the_drift_bound_are_named_and_still_divided(project_folder, capsys):
    rows = [product(n, 5.0, f"shop{n % 3}", language=["en", "de", "fr"][n % 3]) for n in range(30)]
    run(rows, stratify="[language]")
    assert "of val and" in capsys.readouterr().err.replace("test", "val")
    drift = json.loads(REPORT.read_text())["drift"]
    assert drift["max_drift"] == 0.2 < abs(drift["largest"]["share"] - drift["largest"]["free_share"])


def test_near_duplicates_that_join_nearly_everything_are_told_of(project_folder, capsys):
    # every page is in two groups, so that pages and groups make one chain
    rows = [product(n, price, f"shop{n + side}") for n in range(30) for side, price in enumerate((1.0, 2.0))]
    rows += [product(50 + n, 1.0, f"alone{n}") for n in range(2)]
    found = sides(run(rows))
    assert len({found[row.id] for row in rows[:60]}) == 1
    told = capsys.readouterr()
    assert "near-duplicates joined groups into 1 larger ones, of at most 60 rows" in told.out
    assert "warning: test got" in told.err
    assert "has 60 of 71 rows" in told.err


def test_a_group_that_no_row_has_is_told_of(project_folder, capsys):
    run(repairs())
    assert "no row has metadata" not in capsys.readouterr().err
    run([], group="shop")
    assert "no row has metadata.shop, so each is a group of its own" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(project_folder, capsys):
    run([product(n, 5.0, f"g{n}") for n in range(20)])
    shutil.rmtree("reports")
    snapshots.REGISTRY.unlink()
    before = files()
    split.main(["-w", "batfit", "--dry-run"])
    assert "rows in" in capsys.readouterr().out
    assert files() == before
    assert not REPORT.exists()


def test_no_rows_is_an_error(project_folder):
    with pytest.raises(Stop, match=r"clean\.jsonl is not there\. Run fab dataset.clean -w batfit"):
        split.main(["-w", "batfit"])
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "clean.jsonl").write_text("")
    with pytest.raises(Stop, match=r"clean\.jsonl has no rows"):
        split.main(["-w", "batfit"])


def test_rows_are_written_as_they_were_read(project_folder):
    rows = [product(n, 5.0, f"g{n}") for n in range(20)]
    found = run(rows)
    assert sorted(row.id for part in found.values() for row in part) == sorted(row.id for row in [*rows, *repairs()])
    order = [row.id for row in read_jsonl(FOLDER / "clean.jsonl", Example)]
    assert all(
        [row.id for row in part] == [id for id in order if id in {r.id for r in part}] for part in found.values()
    )
