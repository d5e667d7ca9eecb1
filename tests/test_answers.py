import json

from hypothesis import given
from hypothesis import strategies as st

from potstill import answers

plain = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | plain
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(plain, inner), max_leaves=10)


@given(values)
def test_strict_json_is_read_as_json_reads_it(value):
    answer = answers.parse(json.dumps(value))
    assert (answer.parsed, answer.valid_json, answer.repaired) == (value, True, False)


@given(st.text())
def test_no_text_is_beyond_parsing(text):
    answer = answers.parse(text)
    assert not (answer.valid_json and answer.repaired)


def test_prose_around_json_is_repaired_and_not_valid():
    answer = answers.parse('Sure! {"a": 1}')
    assert (answer.parsed, answer.valid_json, answer.repaired) == ({"a": 1}, False, True)


def test_a_repeated_key_and_nan_are_not_strict_json():
    assert not answers.parse('{"a":1,"a":2}').valid_json
    assert not answers.parse('{"a":NaN}').valid_json


def test_deep_nesting_is_refused_before_it_is_parsed():
    assert answers.parse("[" * 100_000).parsed is None


def test_what_no_file_can_hold_is_not_valid():
    for output in ('{"a":"\\ud800"}', '{"a":1e400}'):
        answer = answers.parse(output)
        assert not answer.valid_json
        json.dumps(answer.parsed, allow_nan=False).encode()
