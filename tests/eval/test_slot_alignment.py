"""potstill/alignment.py: which item is which, whatever the order of the candidate's list and however hostile it is."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_slot_docs import score_answer

from potstill.alignment import MAX_COMPARISONS, align
from potstill.leaves import ABSENT
from potstill.records import KeyAlign
from potstill.stop import Stop
from potstill.values import same

small = st.sampled_from(["red", "green", "blue", 1, 2.5, None])
items = st.lists(
    st.fixed_dictionaries({}, optional={"sku": st.sampled_from("ABC"), "n": small, "p": small}), max_size=5
)
ALIGNS = ["best", {"key": "sku"}]


def slots(how, *paths):
    return {path: {"level": "exact", "align": how} for path in paths}


def outcome(how, reference, candidate):
    paths = ("items[].sku", "items[].n", "items[].p")
    found = score_answer(slots(how, *paths), {"items": reference}, {"items": candidate})
    return [(v.slot, v.passed, v.reference, v.candidate) for v in found]


def likeness(a, b):
    return float(same(a, b)), 0.0


@given(items, items, st.randoms(use_true_random=False), st.sampled_from(ALIGNS))
@settings(max_examples=60)
def test_the_order_of_the_candidates_items_plays_no_part(reference, candidate, shuffler, how):
    shuffled = list(candidate)
    shuffler.shuffle(shuffled)
    assert outcome(how, reference, shuffled) == outcome(how, reference, candidate)


@given(items, st.randoms(use_true_random=False), st.sampled_from(ALIGNS))
@settings(max_examples=40)
def test_a_permutation_of_the_reference_passes_everywhere(reference, shuffler, how):
    shuffled = list(reference)
    shuffler.shuffle(shuffled)
    assert all(passed for _, passed, _, _ in outcome(how, reference, shuffled))


@given(st.lists(small, max_size=5), st.lists(small, max_size=5))
def test_best_match_passes_as_many_as_the_best_of_all_assignments(left, right):
    long, short = sorted((left, right), key=len, reverse=True)
    orders = itertools.permutations(range(len(long)), len(short))
    most = max(sum(same(long[i], item) for i, item in zip(order, short, strict=True)) for order in orders)
    aligned = align(left, right, "best", likeness)
    assert sum(ABSENT not in (a, b) and same(a, b) for a, b in aligned) == most
    assert [a for a, _ in aligned if a is not ABSENT] == left
    assert sorted(map(repr, (b for _, b in aligned if b is not ABSENT))) == sorted(map(repr, right))


@given(st.lists(small, max_size=5), st.lists(small, max_size=5))
def test_best_match_is_symmetric(left, right):
    def passed(a, b):
        return sum(ABSENT not in pair and same(*pair) for pair in align(a, b, "best", likeness))

    assert passed(left, right) == passed(right, left)


def test_one_missing_item_does_not_fail_all_after_it():
    reference = [{"sku": s, "n": n} for s, n in (("A", 1), ("B", 2), ("C", 3))]
    by_index = [passed for _, passed, _, _ in outcome("index", reference, reference[1:])]
    assert by_index.count(False) == 6
    for how in ALIGNS:
        failed = [slot for slot, passed, _, _ in outcome(how, reference, reference[1:]) if not passed]
        assert failed == ["items[0].sku", "items[0].n"]


def test_a_name_and_its_price_come_from_one_item():
    reference = [{"n": "bag", "p": 1}, {"n": "box", "p": 2}]
    found = outcome("best", reference, [{"n": "bag", "p": 2}, {"n": "box", "p": 1}])
    assert sorted(passed for slot, passed, _, _ in found if "sku" not in slot) == [False, False, True, True]


def test_keys_of_other_kinds_and_keys_that_are_twice_or_missing():
    by = KeyAlign(key="id")
    assert align([{"id": 1}], [{"id": True}], by, likeness) == [({"id": 1}, ABSENT), (ABSENT, {"id": True})]
    assert align([{"id": 1}], [{"id": 1.0}], by, likeness) == [({"id": 1}, {"id": 1.0})]
    twice = [{"id": 1, "v": 2}, {"id": 1, "v": 3}]
    assert align(twice, twice[::-1], by, likeness) == [(item, item) for item in twice]
    nameless = [{"v": 1}, {"id": None, "v": 1}]
    assert align(nameless, nameless[::-1], by, likeness) == [(item, item) for item in nameless]
    loose = KeyAlign(key="id.code", normalise=["lower", "nospace"])
    assert align([{"id": {"code": "ab 1"}}], [{"id": {"code": "AB1"}}], loose, likeness)[0][1] is not ABSENT


def test_free_text_is_aligned_by_likeness_and_left_for_the_judge():
    from potstill import grading

    specs = {"a[]": {"level": "llm_similarity", "align": "best"}}
    texts = ["the red canvas bag", "a wooden chair"]
    with pytest.raises(ValueError, match="was not judged"):
        score_answer(specs, {"a": texts}, {"a": ["one wooden chair", "red canvas bag"]})
    from potstill.records import SlotSpec

    match = grading.alignment.matcher(
        {"a[]": SlotSpec(level="llm_similarity", align="best")},
        lambda _, a, b: (grading.alignment.text_likeness(a, b), 0),
    )("a[]")
    assert match(0, "a", texts, ["one wooden chair", "red canvas bag"]) == [
        (texts[0], "red canvas bag"),
        (texts[1], "one wooden chair"),
    ]


def test_an_align_that_does_not_fit_the_path_is_named():
    with pytest.raises(Stop, match="slot 'a': align wants a path with a"):
        score_answer(slots("best", "a"), {"a": 1}, {"a": 1})
    with pytest.raises(Stop, match="align wants 2 values"):
        score_answer(slots(["best"], "a[][]"), {"a": [[1]]}, {"a": [[1]]})


def test_long_lists_pair_equal_items_first_and_compare_a_bounded_number():
    left = [{"sku": f"A{n}", "n": n} for n in range(3000)]
    right = [*left[1:][::-1], *({"sku": f"X{n}", "n": n} for n in range(3000))]
    calls = []

    def like(a, b):
        calls.append(1)
        return float(a == b), 0.0

    aligned = align(left, right, "best", like)
    assert sum(a == b for a, b in aligned) == 2999
    assert len(aligned) == len(right)
    strangers = [{"sku": f"Y{n}"} for n in range(3000)]
    calls.clear()
    alone = [pair for pair in align(left, strangers, "best", like, looks=7) if ABSENT in pair]
    assert 0 < len(calls) * 7 <= MAX_COMPARISONS
    # what was not compared stays alone on both sides
    assert len(alone) == 6000 - 2 * int((MAX_COMPARISONS // 7) ** 0.5)


def test_an_answer_that_is_no_list_or_has_no_items_fails_every_item_of_the_reference():
    for candidate in ({}, {"items": None}, {"items": "x"}, {"items": {"sku": "A"}}, {"items": []}, [], "x", None):
        found = score_answer(slots("best", "items[].sku"), {"items": [{"sku": "A"}, {"sku": "B"}]}, candidate)
        assert [verdict.passed for verdict in found] == [False, False]
