import json
import re
import weakref
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import handmade
import pytest
from handmade import example
from hypothesis import given
from hypothesis import strategies as st

from potstill import describe, plots, project, shown, workload
from potstill.stop import DATA, Stop
from projects import make_project
from scripts.dataset import stats

HOSTILE = "<script>alert(1)</script>|$\\frac$ \x1b[31m\u202e`"


def make_snapshot() -> None:
    train = [
        example("a", size=None, language="en", domain="a.example", tenant="acme", weight=3),
        example("b", prices=(1, None), language="en", domain=HOSTILE, raw_tokens=1000, reduced_tokens=250),
        example("c", size="", prices=(None,), language="de", reduction={"raw_chars": 200, "reduced_chars": 100}),
        example("d", prompt="long " * 400, grounded={"size": "exact", "items[].price": "lost"}),
    ]
    handmade.snapshot("v1", train, [example("e", language="en", weight=2)], [example("f", slice="hard")])


def run() -> dict[str, str]:
    """The three files by their suffix."""
    stats.main(["-w", "batfit", "-o", "sft.max_length=128"])
    return {path.suffix: path.read_text() for path in project.reports("batfit").glob("dataset_stats.*")}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(make_project(tmp_path_factory.mktemp("stats") / "project"))
        workload.load.cache_clear()
        make_snapshot()
        return run()


@pytest.fixture(scope="module")
def found(made) -> dict:
    return json.loads(made[".json"])


def test_what_is_counted_is_what_the_rows_say(found: dict):
    train = found["splits"]["train"]
    assert (found["workload"], found["snapshot"], found["base"], found["max_length"]) == ("batfit", "v1", "nano", 128)
    assert (train["rows"], train["groups"], train["tasks"], train["tenants"]) == (4, 4, {"t1_parse": 4}, {"acme": 1})
    assert found["splits"]["test"]["slices"] == {"hard": 1}
    assert train["over_max_length"] == 1
    assert train["tokens"]["prompt"]["p100"] > 400 > train["tokens"]["prompt"]["p50"] > 10
    assert train["slot_states"]["size"] == {"filled": 0.5, "null": 0.25, "empty": 0.25, "absent": 0.0}
    # one list of prices has a null in it, one nothing but nulls, two are empty
    assert train["slot_states"]["items[].price"] == {"filled": 0.25, "null": 0.25, "empty": 0.5, "absent": 0.0}
    assert train["slot_coverage"] == {"size": 0.5, "items[].price": 0.25}
    assert train["facets"]["language"] == {"values": {"en": 2, "de": 1}, "distinct": 2, "other_rows": 0, "rows": 3}
    assert train["grounded"] == {"items[].price": {"lost": 1.0}, "size": {"exact": 1.0}}


def test_weights_make_the_effective_rows_of_train_alone(found: dict):
    splits = found["splits"]
    assert splits["train"]["effective"] == {"rows": 6, "tasks": {"t1_parse": 6}, "tenants": {"-": 3, "acme": 3}}
    assert splits["val"]["effective"]["rows"] == 1


def test_the_reduction_is_in_tokens_where_a_row_has_them(found: dict):
    reduction = found["splits"]["train"]["reduction"]
    assert (reduction["rows"], reduction["kept_percent_p50"], reduction["kept_percent_p100"]) == (2, 25, 50)
    assert (reduction["raw_tokens"], reduction["reduced_chars"]) == (1000, 100)


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.attributes += [(name, value or "") for name, value in attributes]

    handle_startendtag = handle_starttag


def test_the_page_is_one_file_that_runs_nothing_and_asks_nobody(made: dict[str, str]):
    text = made[".html"]
    page = Page(text)
    assert page.tags.count("svg") >= 8
    assert "script" not in page.tags
    assert "&lt;script&gt;" in text
    assert not re.search(r"(?:https?:)?//", text)
    links = [value for name, value in page.attributes if name in ("href", "xlink:href", "src")]
    assert all(value.startswith(("#", "data:,")) for value in links)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    # every plot refers to its own parts
    assert len(page.ids) == len(set(page.ids))
    assert {value[1:] for value in links if value.startswith("#")} <= set(page.ids)
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_plots_take_their_colours_from_the_page(made: dict[str, str]):
    text = made[".html"]
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-fA-F]{6}\b", drawings)
    assert not re.search(r"(?:fill|stroke): (?!none|currentColor|var)", drawings)
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", text))
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", text))
    assert "prefers-color-scheme: dark" in text
    # text of 9 in a plot 270 wide is still about 11 pixels on a phone of 390
    sizes = [float(size) for size in re.findall(r"font-size: ([0-9.]+)px", drawings)]
    assert min(sizes) * (390 - 2 * 20) / plots.WIDTH > 10


def test_max_length_is_marked_where_the_rows_come_near_it(made: dict[str, str]):
    assert "var(--mark)" in re.findall(r"<svg.*</svg>", made[".html"], re.DOTALL)[0]
    assert "var(--mark)" not in plots.histogram("x", 1, {"train": [1, 1]}, 5, "tokens")


def test_the_markdown_holds_the_same_figures_and_no_markup_of_the_data(made: dict[str, str]):
    text = made[".md"]
    assert "| rows | 4 | 1 | 1 |" in text
    assert "| effective rows | 6 | 1 | 1 |" in text
    assert "<script>" not in text
    assert "\x1b" not in text


def test_the_same_snapshot_gives_the_same_bytes(made: dict[str, str], project_folder: Path):
    make_snapshot()
    assert run() == made
    assert set(made) == {".json", ".md", ".html"}


def test_rows_are_counted_as_they_stream_by(project_folder: Path, monkeypatch):
    """No more than one example is alive at a time, whatever the split's size."""
    handmade.snapshot("v1", [example(f"r{n}") for n in range(50)], [example("v")], [example("t")])
    seen, most = [], 0
    real = stats.describe.add

    def add(tally, example, *rest):
        nonlocal most
        seen.append(weakref.ref(example))
        most = max(most, sum(ref() is not None for ref in seen))
        return real(tally, example, *rest)

    monkeypatch.setattr(stats.describe, "add", add)
    run()
    assert len(seen) == 52
    assert most <= 3


def test_an_edited_snapshot_is_refused(project_folder: Path):
    make_snapshot()
    with open(handmade.processed("val.v1.jsonl"), "a") as file:
        file.write("\n")
    with pytest.raises(Stop, match=r"val\.v1\.jsonl was changed") as stop:
        stats.main(["-w", "batfit"])
    assert stop.value.code == DATA


@given(st.lists(st.integers(0, 500), min_size=1), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_of_counts_is_that_of_the_list(values: list[int], percent: int):
    ordered = sorted(values)
    wanted = ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
    assert describe.percentile(Counter(values), percent) == wanted


@given(st.lists(st.integers(0, 10_000)), st.lists(st.integers(0, 10_000)))
def test_every_row_is_in_one_bar(train: list[int], test: list[int]):
    found = describe.histogram({"train": Counter(train), "test": Counter(test)})
    assert sum(found["counts"]["train"]) == len(train)
    assert sum(found["counts"]["test"]) == len(test)
    assert len(found["counts"]["train"]) == len(found["counts"]["test"]) <= describe.BINS
    longest = max([*train, *test], default=0)
    assert found["open_end"] == (longest >= found["width"] * len(found["counts"]["train"]))


def test_a_flood_of_values_is_counted_without_being_kept(monkeypatch):
    monkeypatch.setattr(describe, "MAX_VALUES", 10)
    tally = describe.Tally()
    for n in range(100):
        describe._facet(tally, "domain", f"d{n}")
    describe._facet(tally, "domain", "d1")
    (counted,) = describe.summary(tally, describe.commonest([tally]))["facets"].values()
    assert (counted["rows"], counted["distinct"], counted["values"]["d1"]) == (101, 10, 2)
    assert counted["other_rows"] == 101 - sum(counted["values"].values())


@given(st.text())
def test_what_a_terminal_is_shown_cannot_move_its_cursor(text: str):
    safe = shown.terminal(text)
    acting = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ud800-\udfff]"
    assert not re.search(acting, safe)
    assert "\n" not in shown.line(text)
    safe.encode("utf-8")


@given(st.text())
def test_a_code_span_cannot_be_left(text: str):
    span = shown.code(text)
    fence = re.match(r"`+", span)[0]
    inner = span[len(fence) : -len(fence)]
    assert span.endswith(fence)
    assert fence not in re.findall(r"`+", inner)
    assert "\n" not in span
