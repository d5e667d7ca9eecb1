from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import models, rows
from potstill.records import Example
from potstill.stop import DATA, Stop
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


WEIGHTS = st.one_of(st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0, 2.5]), st.floats(0, 5))
MIXES = st.lists(st.tuples(WEIGHTS, st.sampled_from(["", "wolf"]), st.integers(1, 40)), min_size=1, max_size=4)


def mixed(mix: list[tuple[float, str, int]]) -> list[Example]:
    labels = [(weight, {"tenant": tenant} if tenant else {}) for weight, tenant, rows in mix for _ in range(rows)]
    return [example(str(n), weight=weight, **label) for n, (weight, label) in enumerate(labels)]


@given(mix=MIXES, seed=st.integers(0, 9))
def test_every_stratum_counts_within_one_of_weight_times_rows(mix, seed):
    examples = mixed(mix)
    found = Counter(rows.stratum(e) for e in rows.weighted(examples, seed))
    counts = rows.effective_counts(Counter(map(rows.stratum, examples)))
    assert sum(count.rows for count in counts) == len(examples)
    for group, n, effective in counts:
        assert found[group] == effective
        assert abs(effective - group.weight * n) < 1 + 1e-9
        assert effective == 0 or group.weight > 0
        if (group.weight * n).is_integer():
            assert effective == group.weight * n


@given(mix=MIXES, seed=st.integers(0, 9), rng=st.randoms())
def test_which_rows_count_follows_from_seed_and_id_whatever_the_order(mix, seed, rng):
    examples = mixed(mix)
    shuffled = rng.sample(examples, len(examples))
    chosen = [e.id for e in rows.weighted(examples, seed)]
    assert chosen == sorted(chosen, key=int)
    assert Counter(chosen) == Counter(e.id for e in rows.weighted(shuffled, seed))


@given(n=st.integers(1, 60), weight=st.floats(0, 3), seed=st.integers(0, 9))
def test_a_new_row_moves_at_most_one_other_in_or_out(n, weight, seed):
    examples = [example(str(i), weight=weight) for i in range(n + 1)]
    before = Counter(e.id for e in rows.weighted(examples[:n], seed))
    after = Counter(e.id for e in rows.weighted(examples, seed))
    del after[str(n)]
    assert sum(((before - after) + (after - before)).values()) <= 1


def test_other_tenants_and_variants_do_not_change_which_rows_count():
    own = [example(str(n), weight=0.4) for n in range(50)]
    others = [example(f"w{n}", weight=0.4, tenant="wolf") for n in range(33)]
    variants = [example(f"{n}~typos", weight=0.4, parent=str(n), augmented="typos") for n in range(33)]
    chosen = [e.id for e in rows.weighted(own, 1)]
    assert [e.id for e in rows.weighted(own + others + variants, 1) if e.id.isdigit()] == chosen
    assert [e.id for e in rows.weighted(own, 2)] != chosen


def test_single_rows_with_small_weights_count_on_average():
    examples = [example(str(n), weight=0.25, tenant=f"t{n}") for n in range(2_000)]
    assert len(rows.weighted(examples, 1)) == pytest.approx(500, abs=60)


@pytest.mark.parametrize("weight", [-0.5, float("nan"), 101, "1", True, None])
def test_a_weight_that_is_none_is_one_clear_line(weight):
    with pytest.raises(Stop, match=r"row r7: metadata\.weight must be a number from 0 to 100") as caught:
        rows.weighted([example("r7", weight=weight)], 1)
    assert caught.value.code == DATA


def test_the_mix_table_shows_what_counts_and_what_is_held_out():
    examples = [example(str(n), weight=0.5, tenant="wolf") for n in range(10)]
    examples += [example("v", split="val", weight=0.5), example("s", slice="hard"), example("t", split="train")]
    lines = rows.mix_table(rows.effective_counts(Counter(map(rows.stratum, examples))))
    assert [line.split() for line in lines] == [
        ["task", "tenant", "rows", "weight", "count", "as"],
        ["t", "-", "1", "0.5", "1", "val", "or", "test", "only"],
        ["t", "-", "1", "1", "1"],
        ["t", "-", "1", "1", "1", "val", "or", "test", "only"],
        ["t", "wolf", "10", "0.5", "5"],
        ["all", "13", "8"],
    ]


def test_a_repair_row_is_trained_on_its_right_answer_and_not_on_the_broken_one(tokenizer):
    broken = '{"a":1,"b":'
    repair = example("1~repair", prompt=f"mend {broken}", response='{"a":1,"b":null}', parent="1", augmented="repair")
    (chosen,) = rows.weighted([repair], 1)
    ((row,), refused) = rows.training_rows([chosen], tokenizer, 512)
    trained = tokenizer.decode([label for label in row["labels"] if label != rows.IGNORED])
    assert trained == '{"a":1,"b":null}<end_of_turn>'
    assert broken in tokenizer.decode(row["input_ids"])
    assert refused == []


def test_lengths_count_every_row_once(tokenizer):
    kept, _ = rows.training_rows([example(str(n), prompt="deck " * n) for n in range(1, 90)], tokenizer, 512)
    found = rows.lengths(kept)
    assert found.rows == sum(count for _, count in found.histogram) == 89
    assert found.longest == max(len(row["input_ids"]) for row in kept) <= found.histogram[-1][0]
    assert found.trained_tokens == 89 * sum(label != rows.IGNORED for label in kept[0]["labels"])
    assert len(found.histogram) <= rows.BINS
    assert len(rows.histogram_lines(found)) == len(found.histogram)
