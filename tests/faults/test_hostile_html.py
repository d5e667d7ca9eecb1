"""Pages made to hurt: none may crash the reduction, hang it, or take it past its memory; each is reduced or refused."""

import json
import resource
import subprocess
import sys

import pytest

from costs import cpu_s
from potstill.html import Unreducible, page_place, reduce_html
from projects import REPO

MIB = 1 << 20
CPU_S = 120  # a guard against a hang, for all pages of a child together
MEMORY_MIB = 300
MUTATED = 1000

CHILD = """
import json, sys
sys.path[:0] = ["tests/faults", "tests"]
import test_hostile_html as hostile
from potstill.html import Unreducible, reduce_html
outcomes = {}

def peak_mib():
    # not ru_maxrss: a child begins with that of the process that started it
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024

for name, page in getattr(hostile, sys.argv[1])():
    try:
        outcome = "reduced" if reduce_html(page, 1200).strip() else "empty"
    except Unreducible as refusal:
        outcome = refusal.reason
    outcomes[name] = [outcome, peak_mib()]
print(json.dumps(outcomes))
"""

REFUSED = {
    "ten_megabytes": "page_too_large",
    "nested_100000": "page_too_deep",
    "nested_and_closed": "page_too_deep",
    "nested_tables": "page_too_deep",
    "end_tags_in_comments": "page_too_deep",
    "end_tags_in_attributes": "page_too_deep",
    "end_tags_in_scripts": "page_too_deep",
    "end_tags_out_of_scope": "page_too_deep",
    "formatting_left_open": "page_too_deep",
    "formatting_reopened": "tangled_markup",
    "million_attributes": "page_too_large",
    "attributes_without_values": "too_many_attributes",
    "attributes_with_brackets": "too_many_attributes",
    "attributes_on_bodies": "page_too_deep",
    "flat_200000": "too_many_tags",
    "all_nul": "not_text",
    "utf16_as_latin1": "not_text",
    "utf16_bytes_swapped": "not_text",
    "an_image": "not_text",
    "nothing": "no_text",
    "only_brackets": "no_text",
    "only_comments": "no_text",
}
REDUCED = (
    "data_uri_5_megabytes",
    "a_nul_here_and_there",
    "mojibake",
    "surrogates",
    "long_text",
    "one_long_word",
    "long_title",
    "entities",
    "options_20000",
    "open_cells",
    "open_headings",
    "open_strikes",
    "menus_in_menus",
    "deep_and_wide",
    "brackets_only_text",
    "long_class",
    "deep_json_state",
    "long_json_state",
)


def hostile_pages():
    """(name, page), made one at a time: together they would not fit the memory that is measured."""
    unique = "".join(f"<b a={n}>" for n in range(200))
    price = "<p>Price: 5 €</p>"
    makers = {
        "ten_megabytes": lambda: "<p>" + "word " * 2_000_000,
        "nested_100000": lambda: "<div>" * 100_000,
        "nested_and_closed": lambda: "<div>" * 100_000 + "x" + "</div>" * 100_000,
        "nested_tables": lambda: "<table><tr><td>" * 30_000,
        "end_tags_in_comments": lambda: "<div><!-- </div> -->" * 20_000,
        "end_tags_in_attributes": lambda: '<div title="</div>">' * 20_000,
        "end_tags_in_scripts": lambda: "<div><script></div></script>" * 20_000,
        "end_tags_out_of_scope": lambda: "<div><marquee></div></marquee>" * 10_000,
        "formatting_left_open": lambda: "<p>" + unique * 3 + "</p>" + "<p>x" * 10_000,
        "formatting_reopened": lambda: "<p>" + unique + "</p>" + "<p>x</p>" * 10_000,
        "million_attributes": lambda: "<p " + " ".join(f"a{n}=1" for n in range(1_000_000)) + ">x",
        "attributes_without_values": lambda: "<p " + " ".join(f"a{n}" for n in range(300_000)) + ">x",
        "attributes_with_brackets": lambda: "<p " + " ".join(f'a{n}="<>"' for n in range(100_000)) + ">x",
        "attributes_on_bodies": lambda: "".join(f"<body a{n}=1>" for n in range(50_000)),
        "flat_200000": lambda: "<p>x</p>" * 100_000,
        "all_nul": lambda: "\0" * MIB,
        "utf16_as_latin1": lambda: (price * 500).encode("utf-16").decode("latin-1"),
        "utf16_bytes_swapped": lambda: (price * 500).encode("utf-16-le").decode("utf-16-be", "replace"),
        "an_image": lambda: bytes(n * 7919 % 256 for n in range(200_000)).decode("utf-8", "replace"),
        "nothing": lambda: "",
        "only_brackets": lambda: "<a" * 1_500_000,
        "only_comments": lambda: "<!--" * 900_000,
        "data_uri_5_megabytes": lambda: f'<img src="data:image/png;base64,{"QUJD" * 1_300_000}">{price}',
        "a_nul_here_and_there": lambda: "<p>Price:\0 5 €</p>" * 20 + price * 200,
        "mojibake": lambda: (price * 500).encode().decode("latin-1"),
        "surrogates": lambda: "<p>\ud800 Price 5 \udfff</p>",
        "long_text": lambda: "<p>" + "word " * 700_000,
        "one_long_word": lambda: "<p>" + "x" * 3_500_000,
        "long_title": lambda: "<title>" + "x " * 1_500_000,
        "entities": lambda: "&notit;&amp" * 300_000,
        "options_20000": lambda: "<select>" + "<option>x" * 20_000,
        "open_cells": lambda: "<table>" + "<tr><td>x<td>y" * 15_000,
        "open_headings": lambda: "<h1>x" * 20_000,
        "open_strikes": lambda: "<del>x<br>" * 400 + "x<br>" * 30_000,
        "menus_in_menus": lambda: "<nav>" * 400 + "<a href=/x>a link to somewhere</a>" * 20_000,
        "deep_and_wide": lambda: "<div>" * 480 + "<p>x</p>" * 25_000,
        "brackets_only_text": lambda: "<" * 2_000_000,
        "long_class": lambda: '<div class="' + "related " * 300_000 + '">x</div>',
        "deep_json_state": lambda: f"{price}<script>window.__STATE__ = {'[' * 500_000}</script>",
        "long_json_state": lambda: (
            "<p>x</p><script>state = [" + ",".join(f'{{"name":"n{n}"}}' for n in range(80_000)) + "]</script>"
        ),
    }
    for name, make in makers.items():
        yield name, make()


def mutated_pages():
    """1,000 seeded mutations of ordinary pages: pieces lost, doubled, moved, cut off, re-encoded, tags left open."""
    import random

    from dataset.test_html import PAGES

    random_source = random.Random(7)
    pages = list(PAGES.values())
    for number in range(MUTATED):
        page = random_source.choice(pages)
        for _ in range(random_source.randint(1, 12)):
            page = mutate(page, random_source)
        yield str(number), page


def mutate(page, random_source):
    start = random_source.randrange(len(page) + 1)
    end = min(len(page), start + random_source.choice((1, 3, 20, 400)))
    piece = page[start:end]
    kind = random_source.randrange(8)
    if kind == 0:
        return page[:start] + page[end:]
    if kind == 1:
        return page[:end] + piece * random_source.choice((1, 5, 300)) + page[end:]
    if kind == 2:
        other = random_source.randrange(len(page) + 1)
        return page[:other] + piece + page[other:]
    if kind == 3:
        return page[:start]
    if kind == 4:
        return page[:start] + piece.encode("utf-8", "surrogatepass").decode("latin-1") + page[end:]
    if kind == 5:
        return (
            page[:start]
            + random_source.choice(("\0", "<", ">", '"', "<!--", "</", "&#0;", "\ufffd", "\ud83d"))
            + page[start:]
        )
    if kind == 6:
        return (
            page[:start]
            + random_source.choice(("<div>", "<b>", "<table>", "<svg>", "<script>", "<a href=")) * 40
            + page[start:]
        )
    return page[:start] + piece.swapcase()[::-1] + page[end:]


def limit():
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (1024 * MIB, 1024 * MIB))


def run_child(maker):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, maker], cwd=REPO, preexec_fn=limit, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def outcomes():
    return run_child("hostile_pages")


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_reason(outcomes, name):
    assert outcomes[name][0] == REFUSED[name]


@pytest.mark.parametrize("name", REDUCED)
def test_what_is_only_odd_is_reduced(outcomes, name):
    assert outcomes[name][0] == "reduced"


def test_no_page_takes_the_process_past_its_memory(outcomes):
    assert max(peak_mib for _, peak_mib in outcomes.values()) <= MEMORY_MIB


def test_mutated_pages_are_reduced_or_refused():
    found = run_child("mutated_pages")
    assert len(found) == MUTATED
    assert {outcome for outcome, _ in found.values()} <= {
        "reduced",
        "not_text",
        "no_text",
        "page_too_deep",
        "tangled_markup",
    }
    assert sum(outcome == "reduced" for outcome, _ in found.values()) > 0.8 * MUTATED
    assert max(peak_mib for _, peak_mib in found.values()) <= MEMORY_MIB


def reduce_it(page):
    try:
        reduce_html(page, 1200)
    except Unreducible:
        pytest.fail("the page is to be reduced, so that its time counts")


@pytest.mark.parametrize(
    "piece",
    [
        "<p>x y z</p>",
        "<option>x",
        "x<br>",
        '<div class="c"><a href="/p">name</a> <span>$5</span></div>',
        "<b>x</b> ",
        "<table><tr><td>x</td></tr></table>",
        "<li>x",
        '<a href="#i">x</a>',
        "<i><div>x</i></div>",
    ],
)
def test_time_grows_with_the_page_and_not_with_its_square(piece):
    count = 3_000 // piece.count("<")
    prefix = "<select>" if piece == "<option>x" else "<h1>x</h1>"
    small, large = prefix + piece * count, prefix + piece * 8 * count
    assert cpu_s(lambda: reduce_it(large)) < 30 * cpu_s(lambda: reduce_it(small))


@pytest.mark.parametrize(
    "boxes", ["<div class=social><footer>", "<nav><div id=pagination>", "<nav><p aria-label=bread>"]
)
def test_menus_in_menus_are_not_searched_over_and_over(boxes):
    flat, nested = (boxes * count + "<p>x</p>" * 10_000 + "<a hidden>x</a>" for count in (3, 240))
    assert cpu_s(lambda: reduce_it(nested)) < 3 * cpu_s(lambda: reduce_it(flat))


@pytest.mark.parametrize("piece", ["<!-- ", "<a ", "<a b='", "<script> ", "<p>x ", "> ", "</p> x", "<a-"])
def test_the_page_of_a_prompt_is_found_in_linear_time(piece):
    small, large = (f"<p>{piece * count} tail" for count in (30_000, 240_000))
    assert cpu_s(lambda: page_place(large)) < 30 * max(cpu_s(lambda: page_place(small)), 1e-4)
