import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import lsh, minhash, near
from potstill.records import Example
from projects import REPO

WORDS = [
    a + b for a in ("ker", "mon", "tal", "bri", "sno", "vel") for b in ("dim", "pot", "rash", "lune", "gar", "wix")
]
PAGE = " ".join(WORDS) + " in stock, free delivery over 40 EUR, price {price} EUR, item number {sku}"


def example(id: str, prompt: str, response: str = '{"name":"kettle","price":1.0}', task: str = "parse") -> Example:
    return Example(
        id=id, task=task, system="", prompt=prompt, response=response, slots={}, metadata={}, schema_version="1",
        source_sha256="",
    )  # fmt: skip


def check(seen: near.Deduplicator, *row: str) -> str | None:
    made = example(*row)
    reject = seen.check(made, near.signature(made.prompt))
    return reject and f"{reject.reason}: {reject.detail}"


def exact_jaccard(a: str, b: str) -> float:
    sets = [{text[i : i + minhash.SHINGLE] for i in range(len(text) - minhash.SHINGLE + 1)} for text in (a, b)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def edited(words: list[str], edits: int, rng: random.Random) -> str:
    changed = list(words)
    for at in rng.sample(range(len(words)), edits):
        changed[at] = f"edit{rng.randrange(10**6)}"
    return " ".join(changed)


def pairs(count: int, edits: range, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        words = [f"{rng.choice(WORDS)}{rng.randrange(1000)}" for _ in range(120)]
        made.append((" ".join(words), edited(words, rng.choice(edits), rng)))
    return made


def test_a_signature_is_the_same_in_every_process():
    code = "from potstill import near; print(near.signature('Zürich, 12.50 and 北京: one pitch, one bat').hex())"
    found = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPO)}
        found.add(subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip())
    assert found == {near.signature("Zürich, 12.50 and 北京: one pitch, one bat").hex()}


@given(st.text(max_size=60))
def test_case_and_spacing_make_no_new_prompt(text: str):
    spaced = "  " + text.lower().replace(" ", " \n ")
    assert near.signature(spaced) == near.signature(" ".join(text.lower().split()))
    assert len(near.signature(text)) % 8 == 0


def test_the_estimate_is_within_its_standard_error_of_the_truth():
    errors = [
        near.jaccard(near.signature(a), near.signature(b)) - exact_jaccard(a, b) for a, b in pairs(150, range(25), 1)
    ]
    assert abs(np.mean(errors)) < 0.01
    assert np.sqrt(np.mean(np.square(errors))) < 0.045


def test_as_good_an_estimate_as_datasketch():
    from datasketch import MinHash

    def peer(text: str) -> MinHash:
        made = MinHash(num_perm=minhash.PERMUTATIONS)
        made.update_batch([text[i : i + minhash.SHINGLE].encode() for i in range(len(text) - minhash.SHINGLE + 1)])
        return made

    ours, theirs = [], []
    for a, b in pairs(80, range(25), 2):
        truth = exact_jaccard(a, b)
        ours.append(near.jaccard(near.signature(a), near.signature(b)) - truth)
        theirs.append(peer(a).jaccard(peer(b)) - truth)
    assert np.mean(np.square(ours)) < 1.5 * np.mean(np.square(theirs))


@pytest.mark.parametrize("fine", [False, True])
def test_near_rows_are_found_among_others(fine: bool):
    index = lsh.Index(0.8, fine)
    made = pairs(300, range(1, 12), 3)
    for text, _ in made:
        index.add(near.signature(text))
    near_enough = [n for n, (a, b) in enumerate(made) if exact_jaccard(a, b) >= 0.86]
    found = [n for n in near_enough if n in {match.row for match in index.near(near.signature(made[n][1]))}]
    assert len(near_enough) > 100
    assert len(found) >= 0.98 * len(near_enough)
    # nothing else is near: every pair is of its own words
    assert all(match.row == n for n, pair in enumerate(made) for match in index.near(near.signature(pair[1])))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=80))
def test_an_equal_row_is_always_found_however_the_index_grows(numbers: list[int]):
    index = lsh.Index(0.9)
    sketches = np.random.default_rng(5).integers(0, 2**16, (41, minhash.PERMUTATIONS), dtype=np.uint16)
    for row, number in enumerate(numbers):
        signature = sketches[number].tobytes()
        assert [m.row for m in index.near(signature)] == [r for r in range(row) if numbers[r] == number]
        assert index.add(signature) == row


def test_the_index_grows_past_its_first_arrays_and_stays_small():
    index = lsh.Index(0.85, fine=True)
    sketches = np.random.default_rng(6).integers(0, 2**16, (3000, minhash.PERMUTATIONS), dtype=np.uint16)
    for sketch in sketches:
        index.add(sketch.tobytes(), ("a",))
    assert all([m.row for m in index.near(sketches[n].tobytes(), "a")] == [n] for n in range(0, 3000, 7))
    assert index.near(sketches[0].tobytes(), "b") == []
    assert index.nbytes / len(index) < 1500


def test_short_texts_that_differ_in_one_number_only_are_found():
    index = lsh.Index(0.85)
    index.add(near.signature("Acme kettle, steel. Now 19.99 EUR, was 29.99 EUR. Yours for 19.99."))
    match = index.near(near.signature("Acme kettle, steel. Now 24.5 EUR, was 29.99 EUR. Yours for 24.5."))[0]
    assert match.one_number
    assert match.jaccard < 0.85
    assert index.near(near.signature("Acme kettle, steel. Now 24.5 EUR, was 39.99 EUR. Yours for 24.5.")) == []
    # next to nothing but numbers is said: any two would differ in one number
    assert len(near.signature("7 8 9")) == 256


def test_texts_of_few_shingles_are_near_only_what_they_equal():
    assert near.jaccard(near.signature("four runs"), near.signature("Four  runs")) == 1
    assert near.jaccard(near.signature("four runs"), near.signature("four run")) < 0.1
    assert near.jaccard(near.signature(""), near.signature("")) == 1


def test_a_near_prompt_with_the_same_answer_is_dropped_and_names_the_first():
    seen = near.Deduplicator(0.85)
    assert check(seen, "a", PAGE.format(price="19.99", sku="A-1")) is None
    assert check(seen, "b", PAGE.format(price="19.99", sku="A-2")).startswith("near_duplicate: near a (Jaccard 0.9")
    assert check(seen, "c", "Something else altogether, about umbrellas and rain") is None
    assert seen.conflicts.count == 0


def test_two_products_at_different_prices_are_both_kept_and_reported():
    seen = near.Deduplicator(0.85)
    assert check(seen, "a", PAGE.format(price="19.99", sku="A-1"), '{"name":"k","price":19.99,"sku":null}') is None
    assert check(seen, "b", PAGE.format(price="24.50", sku="A-1"), '{"name":"k","price":24.5,"sku":null}') is None
    [conflict] = seen.conflicts.pairs
    assert (conflict.first, conflict.second, conflict.slots) == ("a", "b", ["price"])
    assert conflict.jaccard >= 0.85


def test_a_short_prompt_with_another_number_is_never_dropped():
    seen = near.Deduplicator(0.85)
    assert check(seen, "a", "Score 120 for three after 15 overs", '{"action":"attack"}') is None
    assert check(seen, "b", "Score 121 for three after 15 overs", '{"action":"attack"}') is None
    assert check(seen, "c", "Score 129 for three after 15 overs", '{"action":"defend"}') is None
    assert [(c.first, c.second, c.slots) for c in seen.conflicts.pairs] == [
        ("a", "c", ["action"]),
        ("b", "c", ["action"]),
    ]


@pytest.mark.parametrize("threshold", [None, 0.85])
def test_equal_prompts_are_duplicates_or_conflicting(threshold: float | None):
    seen = near.Deduplicator(threshold)
    assert check(seen, "a", "a small one", '{"size":"small"}') is None
    assert check(seen, "b", "a small one", '{"size":"small"}') == "duplicate: equal to a"
    assert check(seen, "c", "a small one", '{"size":"large"}') == "conflicting_answer: same prompt as a"
    assert check(seen, "d", "a small one", '{"size":"small"}', "repair") is None
    # parts must not run into each other
    assert seen.check(example("e", "", task="parsea small one"), None) is None


def test_without_a_threshold_near_prompts_are_kept():
    seen = near.Deduplicator(None)
    assert check(seen, "a", PAGE.format(price=1, sku=1)) is None
    assert check(seen, "b", PAGE.format(price=1, sku=2)) is None


def test_a_template_with_thousands_of_answers_still_finds_the_row_it_repeats():
    seen = near.Deduplicator(0.85)
    for n in range(400):
        assert check(seen, f"r{n}", PAGE.format(price=f"{n}.00", sku=n), f'{{"price":{n}}}') is None
    assert check(seen, "again", PAGE.format(price="7.00", sku="7 "), '{"price":7}').startswith(
        "near_duplicate: near r7 "
    )


def test_conflicts_are_counted_and_only_the_first_are_kept():
    seen = near.Deduplicator(0.85)
    for n in range(60):
        check(seen, f"r{n}", PAGE.format(price="1", sku=n), f'{{"n":{n}}}')
    assert seen.conflicts.count > near.MAX_CONFLICTS == len(seen.conflicts.pairs)


def test_slots_name_what_differs_and_ignore_empty_values():
    slots = near.Slots()
    a = slots.pack('{"item":{"price":2.0,"sku":null},"tags":["x"],"note":""}')
    b = slots.pack('{"item":{"price":3.0},"tags":["x","y"],"note":null}')
    assert slots.differing(a, b) == ["item.price", "tags"]
    assert slots.differing(a, slots.pack("Four. Lovely.")) == ["item.price", "response", "tags"]
    assert slots.differing(a, a) == []


def test_one_example_needs_agreement_in_most_slots_or_nearly_equal_prompts():
    slots = near.Slots()
    product = [slots.pack(f'{{"name":"k","brand":"b","price":{price},"sku":null}}') for price in (1, 2)]
    events = [slots.pack(f'{{"line":"{line}"}}') for line in ("Four!", "Out!")]
    assert near.one_example(*product, jaccard=0.86, threshold=0.85)
    assert not near.one_example(*events, jaccard=0.9, threshold=0.85)
    assert near.one_example(*events, jaccard=0.95, threshold=0.85)
    assert not near.one_example(product[0], events[0], jaccard=0.99, threshold=0.85)
