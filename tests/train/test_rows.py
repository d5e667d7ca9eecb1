from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import models, rows
from potstill.records import Example
from projects import REPO


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(REPO / "models/nano")


def example(id: str = "1", prompt: str = "slow deck", response: str = '{"a":null}', **metadata) -> Example:
    return Example(
        id=id,
        task="t",
        system="Be brief.",
        prompt=prompt,
        response=response,
        slots={},
        metadata=metadata,
        schema_version="1",
        source_sha256="",
    )


def test_the_loss_is_on_the_completion_and_only_there(tokenizer):
    ((row,), refused) = rows.training_rows([example()], tokenizer, 512)
    trained = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != rows.IGNORED]
    assert tokenizer.decode(trained) == '{"a":null}<end_of_turn>'
    assert trained == [label for label in row["labels"] if label != rows.IGNORED]
    assert refused == []


@settings(max_examples=40, deadline=None)
@given(words=st.integers(1, 60), limit=st.integers(8, 80))
def test_a_row_fits_whole_or_is_refused(tokenizer, words, limit):
    kept, refused = rows.training_rows([example(prompt="deck " * words)], tokenizer, limit)
    assert len(kept) + len(refused) == 1
    for row in kept:
        assert len(row["input_ids"]) <= limit
        assert tokenizer.decode(row["input_ids"]).endswith('{"a":null}<end_of_turn>')
    for reject in refused:
        assert reject.reason == "too_long"
        assert f"max_length is {limit}" in reject.detail


def test_weights_are_met_on_average_and_decided_by_id_and_seed():
    examples = [
        example(str(n), weight=w) for w in (0.0, 0.3, 1.0, 2.5) for n in range(int(w * 10_000), 2_000 + int(w * 10_000))
    ]
    counts = Counter(e.metadata["weight"] for e in rows.weighted(examples, seed=1))
    assert counts[0.0] == 0
    assert counts[1.0] == 2_000
    assert counts[0.3] == pytest.approx(600, abs=80)
    assert counts[2.5] == pytest.approx(5_000, abs=80)
    assert rows.weighted(examples, 1) == rows.weighted(examples, 1)
    assert rows.weighted(examples, 1) != rows.weighted(examples, 2)
