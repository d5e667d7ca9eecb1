import itertools
import random
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


def layouts(count: int):
    """Random layouts of groups: few or many, even or lopsided, of one to three tasks, some pinned."""
    for number in range(count):
        rng = random.Random(number)
        tasks = ["a", "b", "c"][: rng.randint(1, 3)]
        rows = []
        for g in range(rng.randint(1, 7) if number % 2 else rng.randint(8, 40)):
            own = rng.sample(tasks, rng.randint(1, len(tasks)))
            pin = rng.choice([None] * 9 + ["train", "val", "test"])
            for n in range(rng.choice([1, 1, 2, 5, 30])):
                task = own[n % len(own)]
                rows.append(Row(f"{g}-{n}", task, f"g{g}", f"{task}|{rng.choice(['en', 'de', 'fr'])}", pin))
        yield number, rows


def divided_or_none(rows: list[Row], seed: int) -> dict[str, str] | None:
    try:
        return splitting.assign(rows, 0.15, 0.15, seed, 0.2)[0]
    except Stop:
        return None


def possible(rows: list[Row]) -> bool:
    """Is there a sound division at all? By trying every one; for up to seven groups."""
    groups = sorted({row.group for row in rows})
    pins = {row.group: row.pin for row in rows if row.pin}
    choices = [[pins[group]] if group in pins else list(splitting.SPLITS) for group in groups]
    return any(
        splitting.is_sound(rows, dict(zip(groups, chosen, strict=True))) for chosen in itertools.product(*choices)
    )


def test_two_hundred_layouts_share_no_group_and_leave_no_split_empty_where_one_is_possible():
    divided = refused = 0
    for number, rows in layouts(200):
        chosen = divided_or_none(rows, number)
        if chosen is None:
            if len({row.group for row in rows}) <= 7:
                assert not possible(rows), f"layout {number} has a sound division"
            refused += 1
            continue
        divided += 1
        assert set(chosen) == {row.group for row in rows}
        assert splitting.is_sound(rows, chosen), f"layout {number}"
        lent = {row.group for row in rows if row.pin == "train" and chosen[row.group] == "val"}
        assert all(row.pin in (None, chosen[row.group]) for row in rows if row.group not in lent)
    assert divided > 100
    assert refused > 20


def test_a_rare_task_gets_its_three_groups_where_chance_would_not_give_them():
    rows = [row(n, f"g{n // 5}") for n in range(500)]
    rows += [row(5_000 + n, f"g{n * 7}", task="rare") for n in range(3)]
    chosen, _ = splitting.assign(rows, 0.05, 0.05, 1)
    assert {chosen[item.group] for item in rows if item.task == "rare"} == {"train", "val", "test"}


def test_a_task_whose_rows_are_all_pinned_gets_val_rows_from_train():
    rows = [row(n, f"g{n // 5}", pin="train") for n in range(100)] + [row(200 + n, "t", pin="test") for n in range(9)]
    found = by_split(rows, splitting.assign(rows, 0.2, 0.2, 0)[0])
    assert {item.group for item in found["test"]} == {"t"}
    assert 10 <= len(found["val"]) <= 30


def test_a_stratum_drifts_no_further_than_asked_for():
    rng = random.Random(4)
    rows = [
        Row(f"{g}-{n}", "parse", f"g{g}", rng.choice(["en"] * 5 + ["de"]) if g % 3 else "fr", None)
        for g in range(30)
        for n in range(rng.choice([2, 9]))
    ]
    for seed in range(10):
        chosen, used = splitting.assign(rows, 0.15, 0.15, seed, 0.12)
        assert splitting.drift(rows, chosen).size <= 0.12
        assert used >= seed


def test_a_drift_that_no_division_avoids_is_named_and_the_least_is_taken():
    rows = [Row(f"{g}-{n}", "parse", f"g{g}", f"s{g}", None) for g in range(3) for n in range(10)]
    chosen, _ = splitting.assign(rows, 0.3, 0.3, 0, 0.1)
    found = splitting.drift(rows, chosen)
    assert found.size > 0.5
    assert {found.share, round(found.free_share, 2)} <= {0.0, 0.33, 0.5, 1.0}


def test_a_pinned_slice_does_not_count_as_drift():
    rows = [row(n, f"g{n // 5}") for n in range(100)]
    rows += [Row(f"s{n}", "parse", "slang", "parse|slang", "test", in_slice=True) for n in range(50)]
    assert splitting.drift(rows, splitting.assign(rows, 0.2, 0.2, 0)[0]).size == 0
