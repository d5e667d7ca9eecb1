"""The order of rows follows from lengths, seed and epoch alone, and hardly any padding is computed."""

import itertools
import random

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from potstill import batches

LENGTHS = st.lists(st.integers(1, 600), max_size=300)


@given(lengths=LENGTHS, per_step=st.integers(1, 32), seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_every_row_comes_once_in_an_epoch_and_the_longest_in_its_first_step(lengths, per_step, seed, epoch):
    order = batches.epoch_order(lengths, per_step, seed, epoch)
    assert sorted(order) == list(range(len(lengths)))
    if lengths:
        assert lengths[order[0]] == max(lengths)


@given(seed=st.integers(0, 99))
def test_nothing_that_was_drawn_before_changes_the_order(seed):
    lengths = [(number * 37) % 91 + 1 for number in range(200)]
    torch.manual_seed(1)
    first = batches.epoch_order(lengths, 4, seed, 1)
    torch.rand(7)
    state = torch.random.get_rng_state()
    assert batches.epoch_order(lengths, 4, seed, 1) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert batches.epoch_order(lengths, 4, seed, 2) != first


@pytest.mark.parametrize("rows", [1500, 3000])
def test_the_first_epoch_of_many_rows_is_what_transformers_would_read(rows: int):
    draw = random.Random(3)
    lengths = [draw.randint(100, 500) for _ in range(rows)]
    torch.manual_seed(17)
    # what its data loader draws before it asks for the order
    torch.empty((), dtype=torch.int64).random_()
    assert batches.epoch_order(lengths, 8, 17, 0) == get_length_grouped_indices(lengths, 8)


@given(rows=st.integers(1, 60), per_process=st.integers(1, 8), seed=st.integers(0, 9))
def test_two_processes_read_in_a_step_what_one_with_twice_the_batch_reads(rows, per_process, seed):
    lengths = [(number * 37) % 91 + 1 for number in range(2 * per_process * rows)]
    order = batches.RowOrder(lengths, 2 * per_process, seed)
    # as accelerate deals batches out
    shares = [BatchSamplerShard(BatchSampler(order, per_process, False), 2, process) for process in (0, 1)]
    together = [[*first, *second] for first, second in zip(*shares, strict=True)]
    assert together == list(BatchSampler(order, 2 * per_process, False))


def like_pages(rows: int, tail: float) -> list[int]:
    """Lengths of HTML pages in tokens: the longer the tail, the more unlike."""
    draw = random.Random(5)
    return [int(min(4000, max(60, draw.lognormvariate(6.2, tail)))) for _ in range(rows)]


@pytest.mark.parametrize(
    ("rows", "tail", "batch", "accumulation"),
    [(2000, 0.5, 8, 1), (2000, 0.5, 8, 8), (2000, 0.9, 16, 1), (500, 0.5, 8, 1), (500, 0.5, 8, 8), (2000, 0.5, 32, 2)],
)
def test_padding_is_below_5_percent_of_rows_like_html_pages(rows: int, tail: float, batch: int, accumulation: int):
    lengths = like_pages(rows, tail)
    assert batches.padding(lengths, batch, batch * accumulation, 17) < 0.05
    # in the order in which they come it would be more than a quarter
    starts = range(0, rows, batch)
    unsorted = sum(batches.padded(max(lengths[i : i + batch])) * len(lengths[i : i + batch]) for i in starts)
    assert 1 - sum(lengths) / unsorted > 0.2


@given(lengths=LENGTHS, per_step=st.integers(1, 40), seed=st.integers(0, 9))
def test_a_small_set_is_padded_hardly_more_than_one_sorted_as_a_whole(lengths, per_step, seed):
    least = sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True)
    order = batches.epoch_order(lengths, per_step, seed, 0)
    counted = batches.padding_share(lengths, order, min(per_step, batches.COUNTED_BATCH))
    found, bound = (batches.padding_share(lengths, rows, per_step) for rows in (order, least))
    assert counted < batches.MOST_PADDING or found == pytest.approx(bound)


def test_short_rows_and_long_ones_come_in_no_order_where_the_whole_epoch_is_sorted():
    lengths = like_pages(300, 0.9)
    steps = [lengths[row] for row in batches.epoch_order(lengths, 8, 1, 0)[::8]]
    assert batches.padding(lengths, 8, 8, 1) > batches.MOST_PADDING
    downwards = sum(one > other for one, other in itertools.pairwise(steps))
    assert 0.3 < downwards / len(steps) < 0.7
    assert steps != [lengths[row] for row in batches.epoch_order(lengths, 8, 1, 1)[::8]]


def test_the_padding_counted_is_that_of_the_batches_made():
    draw = random.Random(6)
    rows = [{"input_ids": [5] * n, "labels": [5] * n} for n in (draw.randint(3, 90) for _ in range(50))]
    lengths = [len(row["input_ids"]) for row in rows]
    order, collate = batches.epoch_order(lengths, 4, 1, 0), batches.collator(0)
    made = [collate([rows[i] for i in order[start : start + 4]]) for start in range(0, 50, 4)]
    computed = sum(batch["attention_mask"].numel() for batch in made)
    read = sum(int(batch["attention_mask"].sum()) for batch in made)
    assert read == sum(lengths)
    assert batches.padding(lengths, 4, 4, 1) == pytest.approx(1 - read / computed)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40), st.integers(16, 1024))
def test_pieces_are_all_rows_in_order_and_none_is_wider_than_it_may_be(widths, most):
    cuts = batches.pieces(widths, most)
    assert [row for cut in cuts for row in range(len(widths))[cut]] == list(range(len(widths)))
    for cut in cuts:
        rows = widths[cut]
        assert len(rows) == 1 or len(rows) * batches.padded(max(rows)) <= most
    # none could have taken the next row as well
    for cut, following in itertools.pairwise(cuts):
        rows = widths[cut.start : following.start + 1]
        assert len(rows) * batches.padded(max(rows)) > most
