import ast
import json
import random

from hypothesis import given
from hypothesis import strategies as st

from potstill import corrupt

LEAF = st.one_of(
    st.none(),
    st.floats(2, 4).map(lambda x: round(x, 2)),
    st.text("abc_", max_size=6),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
)
VALUE = st.fixed_dictionaries(
    {
        "the_context": st.dictionaries(st.sampled_from(["pitch_type", "weight_lb"]), LEAF, min_size=1),
        "rest": st.fixed_dictionaries({"why_next": LEAF}),
    }
)
SEEDS = st.integers(0, 10_000).map(random.Random)


@given(VALUE)
def test_write_without_faults_is_json(value):
    assert json.loads(corrupt.write(value)) == json.loads(corrupt.write(value, indent=1)) == value


@given(VALUE, SEEDS, st.sampled_from(sorted(corrupt.TEXTS)))
def test_every_text_fault_breaks_the_object_and_keeps_the_value_handed_in(value, rng, kind):
    before = json.dumps(value)
    text = corrupt.TEXTS[kind](value, rng)
    assert json.dumps(value) == before
    try:
        parsed = json.loads(text)
    except ValueError:
        return
    assert parsed != value
    assert kind == "as_text"


@given(VALUE, SEEDS)
def test_faults_can_be_undone(value, rng):
    assert ast.literal_eval(corrupt.single_quotes(value, rng)) == value
    assert json.loads(json.loads(corrupt.as_text(value, rng))) == value
    assert json.loads(corrupt.fenced(value, rng).split("```")[1].removeprefix("json")) == value
    lines = [line.split(" // ")[0] for line in corrupt.comments(value, rng).split("\n")]
    assert json.loads("\n".join(lines)) == value
    cut = corrupt.cut_end(value, rng)
    full = corrupt.write(value)
    assert full.startswith(cut)
    assert set(full[len(cut) :]) <= set('}]"')


@given(VALUE, SEEDS)
def test_key_faults_keep_every_leaf(value, rng):
    def leaves(item):
        return [leaf for inner in item.values() for leaf in leaves(inner)] if isinstance(item, dict) else [repr(item)]

    for change in corrupt.KEYS.values():
        assert sorted(leaves(change(value, rng))) == sorted(leaves(value))


@given(VALUE, SEEDS)
def test_only_empty_members_are_left_out(value, rng):
    changed = corrupt.without_empty(value, rng)
    empty = [leaf for inner in value.values() for leaf in inner.values() if leaf in (None, [])]
    assert (changed is None) == (not empty)
    if changed is not None:
        assert changed != value
        for key, inner in value.items():
            assert all(leaf in changed[key] or inner[leaf] in (None, []) for leaf in inner)


def test_misspellings_differ_from_the_word():
    assert "Mid-Low" in corrupt.misspellings("mid_low")
    assert "midLow" in corrupt.misspellings("mid_low")
    assert "low" not in corrupt.misspellings("low")
