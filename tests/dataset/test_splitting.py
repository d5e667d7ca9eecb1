from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import splitting
from potstill.splitting import Row
from potstill.stop import DATA, Stop


def row(n: int, group: str, task: str = "parse", pin: str | None = None) -> Row:
    return Row(f"r{n}", task, group, task, pin)


def by_split(rows: list[Row], chosen: dict[str, str]) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for item in rows:
        found[chosen[item.group]].append(item)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=30), st.integers(0, 9), st.sampled_from([0.1, 0.2, 0.3]))
def test_every_group_is_on_one_side_and_no_split_is_empty(sizes, seed, fraction):
    rows = [row(n * 100 + i, f"g{n}") for n, size in enumerate(sizes) for i in range(size)]
    chosen, _ = splitting.assign(rows, fraction, fraction, seed)
    found = by_split(rows, chosen)
    assert set(found) == {"train", "val", "test"}
    assert sum(map(len, found.values())) == len(rows)
    assert set(chosen) == {f"g{n}" for n in range(len(sizes))}


def test_many_equal_groups_give_about_the_fractions_asked_for():
    rows = [row(n, f"g{n // 10}") for n in range(1_000)]
    chosen, _ = splitting.assign(rows, 0.1, 0.2, 3)
    found = by_split(rows, chosen)
    assert 180 <= len(found["test"]) <= 220
    assert 60 <= len(found["val"]) <= 100


def test_the_same_seed_gives_the_same_split():
    rows = [row(n, f"g{n % 17}") for n in range(300)]
    assert splitting.assign(rows, 0.1, 0.2, 5) == splitting.assign(rows, 0.1, 0.2, 5)
    assert splitting.assign(rows, 0.1, 0.2, 5)[0] != splitting.assign(rows, 0.1, 0.2, 6)[0]


def test_a_task_with_val_rows_of_its_own_gets_no_others():
    rows = [row(n, f"g{n % 9}") for n in range(90)] + [row(100 + n, "given", pin="val") for n in range(5)]
    chosen, _ = splitting.assign(rows, 0.2, 0.2, 0)
    assert [g for g, split in chosen.items() if split == "val"] == ["given"]
    assert "test" in chosen.values()


def test_a_slice_is_pinned_and_the_task_still_gets_test_groups():
    slice_rows = [Row(f"s{n}", "parse", "slang", "parse", "test", in_slice=True) for n in range(5)]
    chosen, _ = splitting.assign([row(n, f"g{n % 9}") for n in range(90)] + slice_rows, 0.2, 0.2, 0)
    assert chosen["slang"] == "test"
    assert sum(split == "test" for split in chosen.values()) > 1


def test_a_group_pinned_twice_is_named():
    with pytest.raises(Stop, match="group 'g' is pinned to val and, by row r2, to test") as stop:
        splitting.assign([row(1, "g", pin="val"), row(2, "g", pin="test")], 0.1, 0.1, 0)
    assert stop.value.code == DATA


def test_too_few_groups_are_an_error():
    with pytest.raises(Stop, match="2 groups are free"):
        splitting.assign([row(1, "a"), row(2, "b")], 0.1, 0.1, 0)
