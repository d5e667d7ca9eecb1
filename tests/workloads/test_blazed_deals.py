"""Blazed deals: shops, answers, teacher's mistakes, captures, and the chain from convert to split."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from potstill import grading, grounding, leaves, slots, workload
from potstill.cleaning import clean_row
from potstill.files import canonical_json, sha256_text
from potstill.pages import page_text
from potstill.records import Example, Exemplar, read_jsonl
from potstill.stop import DATA, USAGE, Stop
from potstill.typed import parse_price
from potstill.workloads import blazed_deals as blazed
from potstill.workloads import blazed_deals_captures as captures
from potstill.workloads import blazed_deals_errors as errors
from potstill.workloads import blazed_deals_items as items
from potstill.workloads import blazed_deals_shops as shops
from potstill.workloads import blazed_deals_words as vocabulary
from projects import REPO, run_script
from scripts.eval.generate import null_prediction

SAMPLES = REPO / "data/samples/blazed_deals"
JOB = workload.load("blazed_deals")
KEY = b"k" * 32
NOWHERE = Path("nowhere")
LEVELS = slots.load_levels(REPO / "configs/judge_slots.yaml")
SHOPS = shops.make_shops(SAMPLES)


@cache
def drawn() -> list[Exemplar]:
    """Ten pages of every shop."""
    return list(blazed.pages(SAMPLES, 4 * shops.SHOPS, 5))


@pytest.fixture(autouse=True)
def _no_folder_of_the_users(monkeypatch):
    monkeypatch.delenv("BLAZED_DEALS_PAGES_DIR", raising=False)


def answer_of(row: Exemplar) -> dict:
    return json.loads(row.response_strong)


# --- shops


def test_there_are_enough_shops_families_languages_and_currencies():
    assert len({shop.domain for shop in SHOPS}) == len(SHOPS) == shops.SHOPS >= 60
    assert all(shop.domain.endswith(".example") for shop in SHOPS)
    assert len({shop.template for shop in SHOPS}) >= 14
    assert {shop.language for shop in SHOPS} == {"en", "de", "fr", "es"}
    assert {shop.currency for shop in SHOPS} == set(shops.MONEY)
    themes = {path.stem for path in (SAMPLES / "themes").glob("[!_]*.html")}
    assert themes == {shop.template for shop in SHOPS}
    for template in themes:
        assert {shop.language for shop in SHOPS if shop.template == template} == {"en", "de", "fr", "es"}


def test_held_back_families_are_a_slice_and_logged_shops_are_in_train():
    for shop in SHOPS:
        assert (shop.slice == shops.UNSEEN) == (shop.template in shops.UNSEEN_TEMPLATES)
        assert not (shop.slice and shop.logged)
    assert sum(shop.logged for shop in SHOPS) == errors.LOGGED_SHOPS
    # each language has shops to learn from that are free to be split, too
    assert {shop.language for shop in SHOPS if not shop.logged and not shop.slice} == {"en", "de", "fr", "es"}
    by_domain = {shop.domain: shop for shop in SHOPS}
    for row in drawn():
        shop = by_domain[row.metadata["domain"]]
        assert row.metadata.get("split") == ("train" if shop.logged else None)
        assert row.metadata.get("slice") == shop.slice


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHOPS), st.integers(1, 200_000))
def test_a_price_as_a_shop_writes_it_is_read_as_the_price_it_is(shop, cents):
    assert float(parse_price(shop.price(cents / 100)).amount) == cents / 100


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHOPS), st.randoms(use_true_random=False))
def test_what_is_drawn_keeps_its_rules(shop, rng):
    words = vocabulary.read_words(SAMPLES)
    item = items.draw_product(shop, words, rng)
    assert item.sale is None or 0 < item.sale < item.amount
    assert (item.was is None) == (item.sale is None)
    gtin = [int(digit) for digit in items.draw_gtin(rng)]
    assert sum(digit * (3 if place % 2 else 1) for place, digit in enumerate(gtin)) % 10 == 0
    assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", vocabulary.slug(item.name))


def test_a_misspelt_key_of_the_vocabulary_is_named(tmp_path):
    text = (SAMPLES / "vocabulary.yaml").read_text(encoding="utf-8")
    (tmp_path / "vocabulary.yaml").write_text(text.replace("\npeople:", "\npeoples:"), encoding="utf-8")
    with pytest.raises(Stop, match="people") as stopped:
        vocabulary.read_words(tmp_path)
    assert stopped.value.code == USAGE


# --- pages and answers


def test_the_same_seed_gives_the_same_pages_in_any_process():
    code = (
        "import sys; from pathlib import Path; from potstill.files import sha256_text\n"
        "from potstill.workloads import blazed_deals as b\n"
        "rows = b.pages(Path(sys.argv[1]), 120, 5)\n"
        "print(sha256_text(''.join(r.model_dump_json() for r in rows)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SAMPLES)],
        env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == sha256_text("".join(row.model_dump_json() for row in drawn()[:120]))


def test_another_seed_gives_other_pages_of_the_same_shops():
    other = list(blazed.pages(SAMPLES, shops.SHOPS, 6))
    assert {row.metadata["domain"] for row in other} == {shop.domain for shop in SHOPS}
    assert not {row.id for row in other} & {row.id for row in drawn()}
    assert not {row.prompt_text for row in other} & {row.prompt_text for row in drawn()}
    with pytest.raises(Stop, match="want a number from 0"):
        list(blazed.pages(SAMPLES, -1, 1))


def test_both_tasks_come_for_every_shop_and_no_row_twice():
    rows = drawn()
    assert len({row.id for row in rows}) == len({row.prompt_text for row in rows}) == len(rows)
    for domain in {shop.domain for shop in SHOPS}:
        assert Counter(row.task for row in rows if row.metadata["domain"] == domain) == {
            blazed.NAVPAGE: 2,
            blazed.PRODUCTPAGE: 2,
        }
    assert {row.metadata["page_type"] for row in rows} == {
        "product",
        *get_args(vocabulary.PageType),
    }


def test_every_answer_is_valid_canonical_and_said_by_its_page():
    for row in [*drawn(), *captures.read(SAMPLES / "pages", blazed.SCHEMAS, "1")]:
        answer = answer_of(row)
        assert canonical_json(blazed.SCHEMAS[row.task].model_validate_json(row.response_strong).model_dump()) == (
            row.response_strong
        )
        if row.metadata.get("teacher_error"):
            continue
        asked = {
            name: spec
            for name, spec in JOB.settings.tasks[row.task].slots.items()
            if name not in JOB.settings.grounding.skip
        }
        found = grounding.ground(answer, asked, page_text(row.prompt_text), locale=row.metadata["language"])
        assert "missing" not in found.values(), (row.id, found)


def test_every_slot_is_filled_often_and_guessing_null_is_worth_little():
    filled: dict[str, list[bool]] = {}
    passed: dict[str, list[bool]] = {}
    for row in drawn():
        answer = answer_of(row)
        for key, value in answer.items():
            filled.setdefault(f"{row.task}.{key}", []).append(value not in (None, []))
        example = example_of(row)
        for grade in grading.grade(example, null_prediction(JOB, example), LEVELS, {}):
            if grade.decided and grade.decided.status == "scored":
                passed.setdefault(row.task, []).append(bool(grade.decided.passed))
    rates = {slot: sum(values) / len(values) for slot, values in filled.items()}
    assert min(rates.values()) > 0.2, rates
    for task, values in passed.items():
        assert 0.1 < sum(values) / len(values) < 0.35, task


def example_of(row: Exemplar) -> Example:
    return Example(
        id=row.id,
        task=row.task,
        system="",
        prompt="",
        response=row.response_strong,
        slots=JOB.settings.tasks[row.task].slots,
        metadata=row.metadata,
        schema_version="1",
        source_sha256="",
    )


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("productpage", {"price": -1}),
        ("productpage", {"price": "12.50"}),
        ("productpage", {"currency": "$"}),
        ("productpage", {"availability": "yes"}),
        ("productpage", {"images": ["/a.jpg", "/b.jpg", "/c.jpg"]}),
        ("productpage", {"name": ""}),
        ("productpage", {"rating": "4.5"}),
        ("productpage", {"colour": "green"}),
        ("navpage", {"page_type": "product"}),
        ("navpage", {"page": 0}),
        ("navpage", {"products": None}),
    ],
)
def test_the_schemas_refuse(task, changes):
    answer = answer_of(next(row for row in drawn() if row.task == task))
    with pytest.raises(ValidationError):
        blazed.SCHEMAS[task].model_validate_json(json.dumps({**answer, **changes}))


def test_the_slots_of_the_yaml_are_the_leaves_of_the_schemas():
    for task, schema in blazed.SCHEMAS.items():
        named = [name.removesuffix("[]") for name in JOB.settings.tasks[task].slots]
        assert named == list(schema.model_fields)
        row = next(row for row in drawn() if row.task == task)
        for name, spec in JOB.settings.tasks[task].slots.items():
            assert leaves.leaf(answer_of(row), leaves.place(name, spec)) is not leaves.ABSENT


def test_the_document_has_valid_answers_and_every_slot():
    text = (REPO / "docs/workloads/blazed_deals.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```json\n(.*?)\n```", text)
    assert len(blocks) == 2
    for task, block in zip((blazed.PRODUCTPAGE, blazed.NAVPAGE), blocks, strict=True):
        assert JOB.check(task, json.loads(block))[0] is not None
        assert canonical_json(json.loads(block)) == block
        for name in JOB.settings.tasks[task].slots:
            assert f"`{name}`" in text
    assert JOB.settings.demo_message in text


# --- the teacher's mistakes


def test_mistakes_come_at_the_rate_that_is_said_and_only_in_train():
    rows = list(blazed.pages(SAMPLES, 12 * shops.SHOPS, 9))
    wrong = [row for row in rows if row.metadata.get("teacher_error")]
    assert abs(len(wrong) / len(rows) - errors.ERROR_RATE) < 0.006
    assert {row.metadata["split"] for row in wrong} == {"train"}
    kinds = {row.metadata["teacher_error"] for row in wrong}
    assert kinds <= set(errors.PRODUCT_ERRORS) | set(errors.LISTING_ERRORS)
    assert len(kinds) >= 7


def test_grounding_finds_what_was_invented_and_only_that():
    invented = {"sku_invented", "link_invented", "next_invented", "description_reworded"}
    found = Counter()
    for row in blazed.pages(SAMPLES, 5 * shops.SHOPS, 9):
        if error := row.metadata.get("teacher_error"):
            cleaned = clean_row(JOB, row, KEY)
            assert isinstance(cleaned, Example)
            unfounded = "unfounded" in cleaned.metadata["grounded"].values()
            assert unfounded == (error in invented), (row.id, error)
            found[unfounded] += 1
    assert found[True]
    assert found[False]


# --- the committed pages and captures


def test_the_committed_pages_are_what_their_seed_gives(tmp_path):
    shutil.copytree(SAMPLES / "themes", tmp_path / "themes")
    for name in ("vocabulary.yaml", "manifest.yaml"):
        shutil.copy(SAMPLES / name, tmp_path)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/older.jsonl").write_text("{}")
    written = blazed.make_samples(tmp_path, 17)
    committed = sorted((SAMPLES / "pages").glob("*.jsonl"))
    assert sorted((tmp_path / "pages").iterdir()) == written
    assert [path.name for path in written] == [path.name for path in committed]
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in committed]
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*.*")) < 3_000_000


def test_convert_yields_the_committed_pages_then_as_many_as_asked_for():
    rows = list(blazed.convert(SAMPLES, count=30, seed=3))
    committed = [row for row in rows if row.id.startswith("sample-")]
    assert {(row.metadata["template"], row.metadata["language"]) for row in committed} == {
        (shop.template, shop.language) for shop in SHOPS
    }
    assert Counter(row.task for row in committed) == {blazed.NAVPAGE: 36, blazed.PRODUCTPAGE: 36}
    assert rows[len(committed) :] == list(blazed.pages(SAMPLES, 30, 3))
    assert len({row.id for row in rows}) == len(rows)


@pytest.fixture
def pages_dir(tmp_path):
    """A folder for captures, and a function that writes one file there."""
    good = {
        "url": "https://www.hillside.example/p/1",
        "task": "productpage",
        "html": "<h1>Jar</h1>",
        "response": {"name": "Jar"},
    }

    def write(*rows, name="mine.jsonl"):
        lines = [row if isinstance(row, str) else json.dumps({**good, **row}) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path

    return write


def test_captures_of_ones_own_come_instead(pages_dir, monkeypatch, capsys):
    folder = pages_dir(
        {"metadata": {"language": "en", "consent": True}},
        {"url": "https://hillside.example/p/2", "response": json.dumps({"name": "Lid", "images": ["a", "b", "c"]})},
        {"url": "https://hillside.example/p/3", "response": None},
        {
            "url": "https://hillside.example/",
            "task": "navpage",
            "response": {"page_type": "home", "products": ["/x"] * 9},
        },
        {"url": "https://hillside.example/p/5", "response": "no JSON", "html": "<h1>\ud800</h1>"},
    )
    rows = list(blazed.convert(SAMPLES, pages_dir=folder))
    assert "1 pages without a response" in capsys.readouterr().err
    assert [row.metadata["domain"] for row in rows] == ["hillside.example"] * 4
    assert rows[0].prompt_text == "productpage\n<h1>Jar</h1>"
    assert rows[0].metadata["page_type"] == "product"
    assert rows[0].metadata["consent"] is True
    assert answer_of(rows[1]) == {"name": "Lid", "images": ["a", "b"]}
    assert len(answer_of(rows[2])["products"]) == 8
    assert rows[2].metadata["page_type"] == "home"
    assert rows[3].response_strong == "no JSON"
    assert rows[3].prompt_text == "productpage\n<h1>?</h1>"
    monkeypatch.setenv("BLAZED_DEALS_PAGES_DIR", str(folder))
    assert list(blazed.convert(SAMPLES)) == rows
    mixed = list(blazed.convert(SAMPLES, count=2))
    assert mixed[:4] == rows
    assert len(mixed) == 6


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["{"], "line 1: not JSON"),
        ([{"colour": 1}], "line 1: colour"),
        ([{"task": "product"}], "page 1: no task 'product'"),
        ([{"url": "p/1"}], "page 1: url is no address"),
        ([{"url": "https://[::1"}], "page 1: url is no address"),
        ([{}, {}], "page 2: id .* is already taken by .*page 1"),
        ([{"response": None}], "none with a response"),
        ([{"response": {"name": "Jar", "price": float("nan")}}], "page 1: the response holds NaN"),
    ],
)
def test_a_capture_that_cannot_be_read_is_named(rows, said, pages_dir):
    with pytest.raises(Stop, match=said) as stopped:
        list(blazed.convert(SAMPLES, pages_dir=pages_dir(*rows)))
    assert stopped.value.code == DATA


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(Stop, match="--pages-dir names nowhere, where no folder is"):
        list(blazed.convert(SAMPLES, pages_dir=NOWHERE))


def test_a_capture_of_an_exemplar_gives_the_exemplar_back(tmp_path):
    rows = drawn()[:4]
    lines = [canonical_json(captures.Capture.of(row).model_dump(exclude_none=True)) for row in rows]
    (tmp_path / "pages.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert [row.model_dump() for row in captures.read(tmp_path, blazed.SCHEMAS, "1")] == [
        row.model_dump() for row in rows
    ]


# --- the chain


def test_from_convert_to_split_in_a_project(project_folder):
    run_script(project_folder, "dataset.convert", "-w", "blazed_deals", "--count", "90", "--seed", "2")
    run_script(project_folder, "dataset.generate", "-w", "blazed_deals", "--count", "20", "--seed", "3")
    run_script(project_folder, "dataset.clean", "-w", "blazed_deals")
    run_script(project_folder, "dataset.split", "-w", "blazed_deals")
    folder = project_folder / "data/processed/blazed_deals"
    assert (folder / "rejected.jsonl").read_text() == ""
    rows = {split: list(read_jsonl(folder / f"{split}.v1.jsonl", Example)) for split in ("train", "val", "test")}
    assert sum(map(len, rows.values())) == 90 + 72 + 20
    domains = {split: {row.metadata["domain"] for row in found} for split, found in rows.items()}
    assert not domains["train"] & (domains["val"] | domains["test"])
    for split in ("val", "test"):
        assert {row.task for row in rows[split] if not row.metadata.get("slice")} == set(blazed.SCHEMAS)
        assert not any(row.metadata.get("teacher_error") for row in rows[split])
    unseen = [row for row in rows["test"] if row.metadata.get("slice") == shops.UNSEEN]
    assert {row.metadata["template"] for row in unseen} == set(shops.UNSEEN_TEMPLATES)
    assert not any(row.metadata["template"] in shops.UNSEEN_TEMPLATES for row in [*rows["train"], *rows["val"]])
