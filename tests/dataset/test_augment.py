import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import augment, corrupt, disturb, holds, siblings, workload
from potstill.augment import Discarded
from potstill.files import canonical_json, sha256_text
from potstill.records import Example, SlotSpec, read_jsonl, write_jsonl
from potstill.stop import DATA, USAGE, Stop
from potstill.workload import Augment, Workload
from projects import REPO
from scripts.dataset import augment as script

KINDS = list(disturb.KINDS)
TALK = "Please send me the Nikon D3400 kit, price 499.50 euros; never the black one. Is it still available today?"
PAGE = """# Nikon D3400 Kit
Price: 499.50
## Description
A small camera for people who are about to start.
- 24 megapixels
- bluetooth
- two years of warranty
## Reviews
Somebody wrote that it is a very good camera indeed.
| shop | price |
| one | 512.00 |
## Delivery
We ship to every country of the world within two days."""
HTML = """<div class="main"><h1 id="t">Nikon D3400 Kit</h1><p>499.50</p><ul class="facts"><li>24 megapixels</li>
<li><b>bluetooth</b></li><li>two years of warranty</li></ul><img src="/a/b.png" alt="front"></div>"""


KEEP_NOTHING = disturb.Keep(frozenset(), bytearray(1_000), bytearray(1_000))


def example(prompt: str = TALK, answer: object = None, id: str = "r1", **metadata) -> Example:
    answer = {"title": "Nikon D3400", "price": 499.5, "brand": None} if answer is None else answer
    return Example(
        id=id,
        task="page",
        system="Be brief.",
        prompt=prompt,
        response=canonical_json(answer),
        slots={},
        metadata=metadata,
        schema_version="1",
        source_sha256="",
    )


def disturbed(kind: str, row: Example, seed: int) -> str:
    held = holds.Held(row)
    keep = disturb.Keep(held.words, held.spans, held.cased)
    return disturb.KINDS[kind](row.prompt, random.Random(seed), keep)


def batfit(**block) -> Workload:
    """BatFit as it ships, with an augment block."""
    shipped = workload.load("batfit")
    values = {"per_row": 1, "kinds": ["typos"], **block}
    changed = shipped.settings.model_copy(update={"augment": Augment.model_validate(values)})
    return Workload("batfit", changed, shipped.module)


def made(job: Workload, row: Example) -> list[Example]:
    return [variant for variant in augment.variants(job, row) if isinstance(variant, Example)]


def talk(
    id: str = "t1", prompt: str = "Dead slow and low pitches, around 2.8 lb please, pickup whatever suits you best."
):
    answer = batfit().check(
        "t1_parse",
        {
            "context": {
                "pitch_type": "low",
                "preferred_pickup": None,
                "target_weight_lb": 2.8,
                "profile_pref": None,
                "playing_style": None,
                "pickup_goal": None,
            },
            "interaction": {"asked": ["pitch_type"], "skipped": ["preferred_pickup"], "why_next_question": None},
        },
    )[0]
    return example(prompt, answer, id).model_copy(update={"task": "t1_parse"})


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPO)
    workload.load.cache_clear()


# ---- the kinds


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 10_000), prompt=st.sampled_from([TALK, PAGE, HTML]))
def test_no_kind_loses_a_value_a_number_or_the_seed(kind, seed, prompt):
    row = example(prompt)
    text = disturbed(kind, row, seed)
    assert text == disturbed(kind, row, seed)
    assert augment.still_holds(row, text)
    before, after = (re.findall(r"\d+(?:\.\d+)*", disturb.TAG.sub(" ", page)) for page in (prompt, text))
    assert Counter(after) == Counter(before)


@pytest.mark.parametrize(
    ("kind", "prompt"), [(kind, TALK) for kind in KINDS[3:]] + [(kind, HTML) for kind in KINDS[:4]]
)
def test_every_kind_changes_what_it_is_for(kind, prompt):
    assert len({disturbed(kind, example(prompt), seed) for seed in range(8)} - {prompt}) > 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["", "5", "?", "<", "a", "{}", "<a", "\n\n", "<b></b>", "…"])
def test_texts_with_next_to_nothing_in_them_are_no_trouble(kind, prompt):
    for seed in range(5):
        disturbed(kind, example(prompt), seed)


@settings(max_examples=80, deadline=None)
@given(text=st.text(st.sampled_from(list("ab low.,;?!\n\t<>/=\"'|-#*:{}[]é3")), max_size=120), seed=st.integers(0, 99))
def test_any_text_at_all_keeps_its_numbers_and_its_words_in_the_kinds_that_promise_it(text, seed):
    row = example(text, {"a": "low", "b": 3})
    words = re.findall(r"\w+", re.sub(disturb.TAG, " ", text))
    for kind in ("whitespace", "punctuation", "malformed_tags", "attribute_noise"):
        assert re.findall(r"\w+", re.sub(disturb.TAG, " ", disturbed(kind, row, seed))) == words
    assert re.findall(r"\w+", disturbed("casing", row, seed).casefold()) == re.findall(r"\w+", text.casefold())
    assert Counter(disturbed("dom_shuffle", row, seed)) == Counter(text)


@given(seed=st.integers(0, 500))
def test_a_typo_leaves_values_numbers_and_negations_and_makes_no_other_known_word(seed):
    row = example(
        "Slower decks never suit seven players: three ordinary lower pickups without balance, available tomorrow"
    )
    keep = disturb.Keep(frozenset({"lower", "slow", "balance"}), bytearray(200), bytearray(200))
    text = disturb.typos(row.prompt, random.Random(seed), keep)
    before, after = (re.findall(r"\w+", t) for t in (row.prompt, text))
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert 1 <= len(changed) <= 2 or text == row.prompt
    for old, new in changed:
        assert old.lower() not in {"never", "seven", "three", "lower", "without", "balance"}
        assert new.lower() not in {"lower", "slow", "balance", *(word.lower() for word in before)}
        assert new[0] == old[0]
        assert abs(len(new) - len(old)) <= 1


@given(seed=st.integers(0, 200))
def test_casing_leaves_values_with_capitals_and_changes_nothing_else_but_case(seed):
    row = example("ask for the Nikon D3400 in black or LOW light", {"title": "Nikon D3400", "light": "low"})
    text = disturbed("casing", row, seed)
    assert text.lower() == row.prompt.lower()
    assert "Nikon D3400" in text


@given(seed=st.integers(0, 200))
def test_whitespace_and_punctuation_leave_the_insides_of_values_alone(seed):
    row = example("Title: Dr. No, the book. Price, as ever: 5.", {"title": "Dr. No, the book", "price": 5})
    for kind in ("whitespace", "punctuation"):
        assert "Dr. No, the book" in disturbed(kind, row, seed)


@given(seed=st.integers(0, 300), prompt=st.sampled_from([HTML, PAGE]))
def test_malformed_tags_and_attribute_noise_touch_nothing_but_markup(seed, prompt):
    plain = " ".join(disturb.TAG.sub(" ", prompt).split())
    for kind in ("malformed_tags", "attribute_noise"):
        text = disturbed(kind, example(prompt), seed)
        assert " ".join(disturb.TAG.sub(" ", text).split()) == plain
        assert {"/a/b.png", "front"} <= set(re.findall(r"/a/b\.png|front", text)) or prompt == PAGE


def test_malformed_tags_writes_what_browsers_forgive():
    texts = [disturbed("malformed_tags", example(HTML), seed) for seed in range(40)]
    assert any("</li></li>" in text for text in texts)
    assert any("</ul>" not in text for text in texts)
    assert any("class=facts>" in text for text in texts)
    # a slash after an unquoted value would be part of it
    assert "<img src=/a.png />" in {
        disturbed("malformed_tags", example('<img src="/a.png"/>'), seed) for seed in range(5)
    }


@given(seed=st.integers(0, 200))
def test_short_words_and_words_that_turn_into_others_are_left_alone(seed):
    assert disturbed("typos", example("No way is it not on at 5 or so, big lad"), seed) == (
        "No way is it not on at 5 or so, big lad"
    )
    reachable = {disturb.typos("form", random.Random(n), KEEP_NOTHING) for n in range(300)} - {"form"}
    assert {"frm", "fform", "forn"} & reachable
    keep = disturb.Keep(frozenset(reachable), bytearray(4), bytearray(4))
    assert disturb.typos("form", random.Random(seed), keep) == "form"


@given(seed=st.integers(0, 200))
def test_gaps_in_quotes_and_between_table_rows_and_marks_before_numbers_stay(seed):
    text = disturbed("whitespace", example('he said "one two three four" and left the room'), seed)
    assert '"one two three four"' in text
    text = disturbed("whitespace", example("some words\na | b\nc | d\nmore words"), seed)
    assert re.search(r"a\s+\|\s+b\nc\s+\|\s+d", text)
    assert "See No. 5" in disturbed("punctuation", example("See No. 5 of it. Then go on. And on"), seed)


# ---- dom_shuffle


def units(text: str) -> Counter[str]:
    return Counter(text.split("\n"))


@given(seed=st.integers(0, 300))
def test_sections_move_as_a_whole_below_the_title_and_tables_stay_together(seed):
    text = disturbed("dom_shuffle", example(PAGE), seed)
    assert units(text) == units(PAGE)
    assert text.startswith("# Nikon D3400 Kit\nPrice: 499.50\n## ")
    assert "| shop | price |\n| one | 512.00 |" in text
    assert "## Delivery\nWe ship to every country" in text
    assert "## Description\nA small camera" in text


def test_items_of_a_list_move_with_what_is_below_them_and_numbered_steps_do_not():
    page = "- one\n  more of one\n- two\n- three\n1. first\n2. second\n3. third"
    texts = {disturbed("dom_shuffle", example(page), seed) for seed in range(30)}
    assert len(texts) == 6
    for text in texts:
        assert "- one\n  more of one" in text
        assert text.endswith("1. first\n2. second\n3. third")


def test_lines_near_a_value_and_labels_with_their_values_stay_together():
    noise = [f"A long line about nothing of interest, number {word}" for word in ("A", "B", "C", "D", "E", "F")]
    page = "\n".join(
        ["Head of this page, long enough", *noise[:3], "Old price", "512.00", "Our price today:", "499.50"]
    )
    page += "\n" + "\n".join(["In stock", *noise[3:], "Weight:", "2 kg", noise[0] + "!"])
    moved = 0
    for seed in range(30):
        text = disturbed("dom_shuffle", example(page), seed)
        assert units(text) == units(page)
        assert "Old price\n512.00\nOur price today:\n499.50\nIn stock" in text
        assert "Weight:\n2 kg\n" in text
        moved += text != page
    assert moved > 15


def test_what_is_around_a_value_the_first_line_and_long_labels_with_their_values_stay():
    filler = [f"This is a rather long line of filler {word}" for word in ("A", "B", "C", "D", "E", "F")]
    near = ["The lamp that you see here", "costs you no more today than", "499.50", "and that for two", "weeks"]
    near[3:] = ["and that is for a week", "after which it costs more money"]
    label = ["What our customers say about this:", "They say that it is bright and good"]
    page = "\n".join(["The first line of all these lines", *filler[:3], *near, *filler[3:], *label])
    texts = {disturbed("dom_shuffle", example(page), seed) for seed in range(40)}
    assert len(texts) > 20
    for text in texts:
        assert text.startswith("The first line of all these lines\n")
        assert "\n".join(near) in text
        assert "\n".join(label) in text


def test_elements_move_but_for_ordered_lists_and_breadcrumbs():
    items = "<li>a</li> <li>b</li>\n<li>c</li>"
    found = {disturbed("dom_shuffle", example(f"<ul>{items}</ul>"), seed) for seed in range(60)}
    assert len(found) == 6
    for text in found:
        assert re.sub(r"[abc]", "x", text) == re.sub(r"[abc]", "x", f"<ul>{items}</ul>")
    for page in (
        f"<ol>{items}</ol>",
        f"<nav><ul>{items}</ul></nav>",
        f"<ul>{items}",
        "<dl><li>a</li><h2>b</h2><li>c</li></dl>",
    ):
        assert {disturbed("dom_shuffle", example(page), seed) for seed in range(10)} == {page}


def test_talk_and_json_are_no_pages():
    said = "First I wanted the heavy one for my son\nBut then again, make that the light one please"
    said = (
        said + "\n" + "\n".join(f"And another thing that I wanted to say, {word}" for word in ("a", "b", "c", "d", "e"))
    )
    state = json.dumps({"board": [1, 2, 3], "players": {"one": 4, "two": 5}, "turns": [1] * 5}, indent=1)
    for text in (said, state):
        assert {disturbed("dom_shuffle", example(text), seed) for seed in range(10)} == {text}


@pytest.mark.parametrize(
    "text", ["weight: 2.8 lb, style: bold", "Hello, note: it's 'ok', fine: yes", "a < b and c > d"]
)
def test_prose_with_colons_is_not_taken_for_data(text):
    assert not disturb.is_data(text)
    assert not disturb.is_markup(text)


@given(st.sampled_from(sorted(corrupt.TEXTS)), st.integers(0, 50))
def test_broken_json_is_taken_for_data(fault, seed):
    value = {"context": {"pitch_type": "low", "weight": 2.5}, "asked": ["one"]}
    assert disturb.is_data("Repair: " + corrupt.TEXTS[fault](value, random.Random(seed)))


# ---- the check


@pytest.mark.parametrize(
    ("prompt", "holds"),
    [
        ("NIKON  d3400 for 499.50", False),  # its capitals were there
        ("Nikon\nD3400 for 499.5", True),
        ("Nikon D34000 for 499.50", False),
        ("Nikon D3400 for 499.51", False),
        ("499,50 for a Nikon D3400", True),
        ("Nikon-D3400 for 499.50", False),
        ("xNikon D3400 for 499.50", False),
    ],
)
def test_a_value_the_parent_has_must_be_there_as_whole_words(prompt, holds):
    assert augment.still_holds(example(), prompt) is holds


def test_values_the_parent_never_had_are_not_asked_for():
    assert augment.still_holds(example("no such thing"), "nothing")


def test_items_of_a_list_must_keep_the_order_of_the_answer():
    answer = {"items": [{"name": "ash", "price": 3}, {"name": "oak", "price": 4}], "shop": "zed"}
    row = example("zed: ash 3, oak 4", answer)
    assert augment.still_holds(row, "ash 3, oak 4 at zed")
    assert not augment.still_holds(row, "zed: oak 4, ash 3")
    assert not augment.still_holds(row, "zed: ash 4, oak 3")


def test_a_shuffle_that_would_reorder_the_answer_is_never_made():
    answer = {"items": ["ash wood", "oak wood", "elm wood"]}
    page = "<ul><li>ash wood</li><li>oak wood</li><li>elm wood</li></ul><ul>"
    page += "<li>imprint</li><li>contact</li><li>careers</li><li>press</li></ul>"
    job = batfit(kinds=["dom_shuffle"])
    rows = [example(page, answer, f"r{n}").model_copy(update={"task": "t1_parse"}) for n in range(30)]
    results = [result for row in rows for result in augment.variants(job, row)]
    texts = [result.prompt for result in results if isinstance(result, Example)]
    # only every sixth free shuffle leaves the answer's items in order; one that spares them does
    assert len(texts) > 25
    for text in texts:
        assert text.index("ash wood") < text.index("oak wood") < text.index("elm wood")


# ---- variants of a row


def test_a_variant_names_its_parent_and_has_its_own_checksum():
    row = talk()
    row = row.model_copy(update={"metadata": {"group": "g", "tenant": "wolf", "weight": 0.5}})
    first, second = made(batfit(per_row=2, kinds=["typos"]), row)
    assert (first.id, second.id) == ("t1~typos", "t1~typos2")
    for variant in (first, second):
        assert variant.metadata == {**row.metadata, "parent": "t1", "augmented": "typos"}
        assert variant.response == row.response
        assert variant.source_sha256 == sha256_text(canonical_json([row.system, variant.prompt, row.response]))
    assert len({row.prompt, first.prompt, second.prompt}) == 3


def test_the_words_of_the_schema_are_never_misspelt_nor_made():
    words = augment.task_words(batfit(), "t1_parse")
    assert {"pitch", "lb", "low", "mid", "aggressive", "all", "round", "skipped"} <= words


def test_a_kind_more_does_not_change_the_variants_of_the_others():
    rows = [talk(f"t{n}") for n in range(12)]
    few = {v.id: v for row in rows for v in made(batfit(per_row=9, kinds=["typos", "casing"]), row)}
    more = {v.id: v for row in rows for v in made(batfit(per_row=9, kinds=["whitespace", "casing", "typos"]), row)}
    shared = few.keys() & more.keys()
    assert len(shared) > 30
    # a later variant that equals an earlier one of another kind is the one exception
    assert all(few[id].prompt == more[id].prompt for id in shared)


def test_every_kind_has_its_turn_and_no_more_than_per_row_are_made():
    job = batfit(per_row=2, kinds=["typos", "casing", "whitespace", "punctuation"])
    kinds = Counter(v.metadata["augmented"] for n in range(60) for v in made(job, talk(f"t{n}")))
    assert kinds.total() == 120
    assert min(kinds.values()) > 15
    assert made(batfit(per_row=0), talk()) == []


def test_what_is_not_made_has_a_reason():
    def reason(kind: str, row: Example) -> list[Discarded]:
        return [result for result in augment.variants(batfit(kinds=[kind]), row) if isinstance(result, Discarded)]

    assert reason("attribute_noise", talk()) == [("attribute_noise", "nothing_to_change")]
    several = augment.variants(batfit(per_row=3, kinds=["attribute_noise", "typos"]), talk())
    assert [r.kind for r in several if isinstance(r, Discarded)] == ["attribute_noise"]
    assert reason("typos", talk(prompt='Repair: {"a": 1}')) == [("typos", "not_free_text")]
    assert reason("casing", talk(prompt="<b>hello</b> everybody")) == [("casing", "not_free_text")]
    assert reason("typos", talk(prompt="word " * 50_000)) == [("typos", "prompt_too_long")]
    repeats = [r for r in augment.variants(batfit(per_row=9, kinds=["whitespace"]), talk(prompt="so low"))]
    assert repeats[-1] == ("whitespace", "equal_to_variant")
    assert {"equal_to_row", "answer_lost", "order_changed"} < set(augment.REASONS)


def test_rows_that_are_held_out_are_not_trainable():
    assert augment.trainable(example())
    assert augment.trainable(example(split="train"))
    assert not any(augment.trainable(example(**m)) for m in ({"split": "val"}, {"split": "test"}, {"slice": "hard"}))


# ---- repair rows


@pytest.fixture
def mends(monkeypatch):
    shipped = workload.load("batfit").module
    monkeypatch.setattr(shipped, "REPAIR_TASK", "t2_repair", raising=False)
    monkeypatch.setattr(shipped, "REPAIR_PREFIX", "Repair: ", raising=False)


def test_a_repair_row_has_broken_json_in_and_the_parents_answer_out(mends):
    job = batfit(kinds=["broken_json"])
    for n in range(100):
        row = talk(f"t{n}").model_copy(update={"metadata": {"group": "g", "grounded": {"a": "exact"}}})
        (variant,) = made(job, row)
        assert (variant.task, variant.response) == ("t2_repair", row.response)
        assert variant.slots == job.settings.tasks["t2_repair"].slots
        assert variant.metadata == {"group": "g", "parent": row.id, "augmented": "broken_json"}
        assert variant.prompt.startswith("Repair: ")
        broken = variant.prompt.removeprefix("Repair: ")
        assert not isinstance(parsed(broken), dict)
        assert all(word in broken for word in ("low", "2.8", "preferred_pickup"))


def test_a_fault_that_would_cut_into_a_value_is_not_used(mends):
    job = batfit(kinds=["broken_json"])
    answer = json.loads(talk().response)
    answer["interaction"]["why_next_question"] = "which one?}]}]}]"
    answers = [
        result
        for n in range(150)
        for result in augment.variants(job, talk(f"c{n}").model_copy(update={"response": canonical_json(answer)}))
    ]
    assert all("which one?}]}]}]" in row.prompt for row in answers if isinstance(row, Example))
    assert sum(isinstance(row, Example) for row in answers) > 140


def parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_answers_that_are_no_objects_or_of_another_schema_make_no_repair_rows(mends):
    job = batfit(kinds=["broken_json"])
    for answer, reason in (([1], "not_json"), ({}, "not_json"), ({"title": "x"}, "other_schema")):
        assert list(augment.variants(job, example(answer=answer).model_copy(update={"task": "t1_parse"}))) == [
            ("broken_json", reason)
        ]
    turned = talk()
    answer = json.dumps(dict(reversed(json.loads(turned.response).items())))
    assert list(augment.variants(job, turned.model_copy(update={"response": answer}))) == [
        ("broken_json", "other_schema")
    ]
    said = example().model_copy(update={"task": "t1_parse", "response": "Four runs!"})
    assert list(augment.variants(job, said)) == [("broken_json", "not_json")]


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"kinds": ["tipos"]}, r"augment\.kinds names 'tipos'\. Did you mean 'typos'\?"),
        ({"kinds": ["broken_json"]}, r'potstill/workloads/batfit\.py does not say .* add REPAIR_TASK = "<task>"'),
        ({"kinds": []}, r"batfit\.yaml says nothing of variants\. Add a block such as augment: \{per_row: 1, kinds:"),
    ],
)
def test_a_wrong_block_is_one_clear_line(block, named):
    with pytest.raises(Stop, match=named) as caught:
        augment.settings(batfit(**block))
    assert caught.value.code == USAGE
    assert "\n" not in str(caught.value)


def test_a_repair_task_that_is_no_task_is_named(mends, monkeypatch):
    monkeypatch.setattr(workload.load("batfit").module, "REPAIR_TASK", "t2_repare")
    with pytest.raises(Stop, match=r"REPAIR_TASK is 't2_repare'\. Did you mean 't2_repair'\?"):
        augment.settings(batfit(kinds=["broken_json"]))


# ---- hostile texts


@pytest.mark.parametrize(
    "text",
    [
        "<" + "a" * 100_000,
        "<a " * 30_000,
        "<li>" * 30_000,
        "<ul><li>" * 10_000 + "</li></ul>" * 10_000,
        "\n" * 100_000,
        " " * 100_000 + "x",
        "- a\n" * 25_000,
        '"' * 100_000,
        "(" * 100_000,
        "a-" * 50_000,
        "a, " * 30_000,
        "{" * 100_000,
        "'a" * 50_000,
        "# a\n## b\n" * 10_000,
        "x |\n" * 25_000,
        "A\u0301\u202e\u0000\ud800 " * 10_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_texts_take_linear_time(text):
    # a quadratic pass over any of these takes minutes
    row = example(text, {"a": "zz", "b": 7})
    for kind in KINDS:
        disturbed(kind, row, 1)
    disturb.is_data(text)


# ---- the program


@pytest.fixture
def clean_rows(project_folder: Path) -> list[Example]:
    """Twenty talks, two of them held out, in clean.jsonl of a BatFit with an augment block."""
    path = project_folder / "configs/workloads/batfit.yaml"
    kinds = "[typos, casing, whitespace, dom_shuffle]"
    path.write_text(path.read_text() + f"augment: {{per_row: 2, kinds: {kinds}, seed: 3}}\n")
    workload.load.cache_clear()
    rows = [talk(f"t{n}", f"Slow and low tracks at ground {n}, around 2.8 lb, any pickup will do.") for n in range(20)]
    rows[3] = rows[3].model_copy(update={"metadata": {"split": "val"}})
    rows[4] = rows[4].model_copy(update={"metadata": {"slice": "hard"}})
    write_jsonl(project_folder / "data/processed/batfit/clean.jsonl", rows)
    return rows


def test_the_program_writes_two_variants_of_every_row_that_may_be_trained_on(clean_rows, project_folder, capsys):
    script.main(["-w", "batfit"])
    folder = project_folder / "data/processed/batfit"
    rows = list(read_jsonl(folder / "augmented.jsonl", Example))
    parents = Counter(row.metadata["parent"] for row in rows)
    assert parents == {f"t{n}": 2 for n in range(20) if n not in (3, 4)}
    assert len({row.id for row in rows}) == 36
    out = capsys.readouterr().out
    assert "20 rows, 2 held out, 36 variants" in out
    assert re.search(r"^dom_shuffle +0 +\d+  nothing_to_change \d+$", out, re.MULTILINE)
    assert "wrote data/processed/batfit/augmented.jsonl\nnext: fab dataset.split -w batfit" in out
    assert sorted(p.name for p in folder.iterdir()) == [".augment.lock", "augmented.jsonl", "clean.jsonl"]


def test_the_order_of_the_rows_is_of_no_account_and_the_seed_is(clean_rows, project_folder):
    clean = project_folder / "data/processed/batfit/clean.jsonl"
    # two parents with one prompt: whichever comes first, the same of their equal variants stays
    twin = clean_rows[0].model_copy(update={"id": "twin"})
    found = []
    for rows in ([*clean_rows, twin], [twin, *reversed(clean_rows)]):
        write_jsonl(clean, rows)
        script.main(["-w", "batfit"])
        found.append(sorted((clean.parent / "augmented.jsonl").read_text().splitlines()))
    assert found[0] == found[1]
    config = project_folder / "configs/workloads/batfit.yaml"
    config.write_text(config.read_text().replace("seed: 3", "seed: 4"))
    workload.load.cache_clear()
    script.main(["-w", "batfit"])
    assert sorted((clean.parent / "augmented.jsonl").read_text().splitlines()) != found[0]


def test_equal_variants_of_different_rows_come_once_and_none_equals_a_row(clean_rows, project_folder, capsys):
    config = project_folder / "configs/workloads/batfit.yaml"
    config.write_text(config.read_text().replace("[typos, casing, whitespace, dom_shuffle]", "[whitespace, typos]"))
    workload.load.cache_clear()
    rows = [talk(f"s{n}", "so low") for n in range(6)]
    # "woodn" is one typo away from "wood", in as many rows as it takes for the draw to fall on it
    rows += [talk(f"w{n}", f"wooden {n}") for n in range(40)]
    typos = {disturb.typos(f"wooden {n}", random.Random(s), KEEP_NOTHING) for n in range(40) for s in range(60)}
    rows += [
        talk(f"x{n}", prompt.upper()).model_copy(update={"metadata": {"split": "test"}})
        for n, prompt in enumerate(sorted(typos - {f"wooden {n}" for n in range(40)}))
    ]
    clean = project_folder / "data/processed/batfit/clean.jsonl"
    write_jsonl(clean, rows)
    script.main(["-w", "batfit"])
    written = list(read_jsonl(clean.parent / "augmented.jsonl", Example))
    prompts = Counter(row.prompt for row in written)
    assert set(prompts.values()) == {1}
    held = {" ".join(row.prompt.lower().split()) for row in rows if row.metadata}
    assert not held & {" ".join(prompt.lower().split()) for prompt in prompts}
    write_jsonl(clean, reversed(rows))
    script.main(["-w", "batfit"])
    assert {row.id for row in read_jsonl(clean.parent / "augmented.jsonl", Example)} == {row.id for row in written}
    out = capsys.readouterr().out
    assert "equal_to_variant" in out
    assert "equal_to_row" in out
    assert f"{len(written)} variants" in out


def test_a_dry_run_counts_and_writes_nothing(clean_rows, project_folder, capsys):
    script.main(["-w", "batfit", "--dry-run"])
    assert "36 variants" in capsys.readouterr().out
    assert not (project_folder / "data/processed/batfit/augmented.jsonl").exists()


def test_no_block_and_no_clean_rows_are_one_clear_line(project_folder):
    with pytest.raises(Stop, match=r"batfit\.yaml says nothing of variants\. Add a block") as caught:
        script.main(["-w", "batfit"])
    assert caught.value.code == USAGE
    config = project_folder / "configs/workloads/batfit.yaml"
    config.write_text(config.read_text() + "augment: {kinds: [typos]}\n")
    workload.load.cache_clear()
    with pytest.raises(Stop, match=r"clean\.jsonl is not there\. Run fab dataset\.clean -w batfit") as caught:
        script.main(["-w", "batfit"])
    assert caught.value.code == DATA


def test_siblings_need_no_values():
    assert siblings.dom_shuffle("plain", random.Random(1), bytearray(5)) == "plain"


@given(seed=st.integers(0, 200))
def test_noise_on_the_links_of_a_reduced_page_leaves_their_text_and_target(seed):
    page = "# Lamp\n[Buy it](/cart?id=5) or [look](/b) ![a lamp](/lamp.png)"
    text = disturbed("attribute_noise", example(page, {"image": "/lamp.png"}), seed)
    assert text != page
    assert re.sub(r' "[bcdfghjklmnpqrstvwxz]{6}"\)', ")", text) == page


def test_the_first_section_of_a_page_with_one_level_of_headings_stays_first():
    page = "title: Lamp\n# Lamp\nEUR 5\n# Reviews\nGood.\n# Delivery\nSoon."
    texts = {disturbed("dom_shuffle", example(page), seed) for seed in range(20)}
    assert texts == {page, "title: Lamp\n# Lamp\nEUR 5\n# Delivery\nSoon.\n# Reviews\nGood."}


def test_a_price_or_a_day_in_another_form_than_the_answers_must_hold_too():
    slots = {"day": SlotSpec(level="date_norm"), "price": SlotSpec(level="numeric_tol")}
    row = example("On 5 March 2024 for EUR 1.299,00", {"day": "2024-03-05", "price": "1299.00 EUR"})
    row = row.model_copy(update={"slots": slots})
    assert augment.still_holds(row, "on  5 March 2024, for EUR 1.299,00")
    assert not augment.still_holds(row, "on 5 Mrach 2024 for EUR 1.299,00")
    assert not augment.still_holds(row, "on 5 March 2024 for EUR 1.298,00")
