"""Blazed deals' pages as dataset.clean leaves them: what stays, what goes, how long they are, and hostile ones."""

import json
import re
from collections import Counter, defaultdict
from functools import cache

import pytest

from potstill import workload
from potstill.cleaning import REASONS, clean_row, reduced
from potstill.files import canonical_json
from potstill.records import Example, Exemplar, Reject
from potstill.workloads import blazed_deals as blazed
from potstill.workloads import blazed_deals_shops as shops
from potstill.workloads import blazed_deals_words as vocabulary
from potstill.workloads.blazed_deals_captures import framed
from projects import REPO

SAMPLES = REPO / "data/samples/blazed_deals"
JOB = workload.load("blazed_deals")
KEY = b"k" * 32
CONSENT = {language: speech.consent[:30] for language, speech in vocabulary.read_words(SAMPLES).languages.items()}
FOUND = ("exact", "normalised", "typed")
MAIL = re.compile(r"[\w.]+@example\.(?:com|org|net)")
PHONE = re.compile(r"\(\d{3}\) 555-01\d\d")

HANDWRITTEN = """<!DOCTYPE html>
<html lang="en-US"><head><title>Harbor Lights Live Rosin | Tidewater Dispensary</title>
<meta name="description" content="Order online, pick up today."><link rel="stylesheet" href="/a.css">
<script>window.dataLayer=[];dataLayer.push({"price":"99.99","name":"not this"})</script></head>
<body><div id="onetrust-consent-sdk"><p>We use cookies on this site. Accept all?</p></div>
<nav style="display:none"><a href="/menu/flower">Flower</a><a href="/menu/vapes">Vapes</a></nav>
<div class="breadcrumbs"><a href="/">Menu</a> / <a href="/menu/concentrates">Concentrates</a> / Harbor Lights</div>
<main><div class="pdp"><img src="/photos/harbor-lights.webp" alt="jar">
<h1>Harbor Lights Live Rosin</h1><a class="brand" href="/brands/tide-pool">Tide Pool Extracts</a>
<div class="pills"><span>THC: 71.4%</span> <span>CBD: 0.2%</span></div>
<p class="price"><s>$60.00</s> <strong>$48.00</strong> / 1 g</p>
<p>Only 4 left</p><div>Item no. TP-20931</div>
<p>Cold cured rosin with notes of grapefruit. Best kept in the fridge.</p>
<div>4.8 out of 5 (37 reviews)</div><button>Add to bag</button>
<p>Questions? Write to nora.hale@example.com or call (415) 555-0142.</p></div></main>
<div hidden><h2>Ghost Product</h2><p class="price">$1.00</p></div>
<section class="related"><h2>You may also like</h2><ul><li><a href="/p/reef">Reef Break Badder</a> $35.00</li></ul>
</section><footer><p>&copy; Tidewater. All rights reserved.</p></footer></body></html>"""
ANSWER = {
    "name": "Harbor Lights Live Rosin",
    "brand": "Tide Pool Extracts",
    "price": 60.0,
    "sale_price": 48.0,
    "currency": "USD",
    "size": "1 g",
    "thc": "71.4%",
    "cbd": "0.2%",
    "availability": "low_stock",
    "sku": "TP-20931",
    "rating": 4.8,
    "images": ["/photos/harbor-lights.webp"],
    "description": "Cold cured rosin with notes of grapefruit.",
    "categories": ["Concentrates"],
}


@cache
def cleaned() -> list[tuple[Exemplar, Example]]:
    """Two pages of every shop, raw and cleaned."""
    pairs = [(row, clean_row(JOB, row, KEY)) for row in blazed.pages(SAMPLES, 2 * shops.SHOPS, 11)]
    assert all(isinstance(example, Example) for _, example in pairs)
    return pairs


def capture(html: str, answer: dict | None = None, task: str = "productpage") -> Exemplar:
    return Exemplar(
        id="own", task=task, prompt_text=framed(task, html), response_strong=canonical_json(answer or ANSWER)
    )


def test_the_reduction_keeps_the_answers():
    kept: dict[str, Counter[bool]] = defaultdict(Counter)
    for _, example in cleaned():
        if not example.metadata.get("teacher_error"):
            states = [state for state in example.metadata["grounded"].values() if state != "none"]
            kept[example.metadata["template"]].update(state in FOUND for state in states)
    total = sum(kept.values(), Counter())
    assert total[True] / total.total() >= 0.97
    assert {template: count for template, count in kept.items() if count[True] / count.total() < 0.9} == {}
    assert len(kept) == len(shops.TEMPLATES) + len(shops.UNSEEN_TEMPLATES)


def test_prompts_and_answers_are_short_for_the_nano_base():
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(REPO / "models/nano/tokenizer.json"))

    def counts(texts):
        return sorted(len(found.ids) for found in tokenizer.encode_batch(list(texts), add_special_tokens=False))

    prompts = counts(example.prompt for _, example in cleaned())
    answers = counts(example.response for _, example in cleaned())
    both = counts(example.system + example.prompt + example.response for _, example in cleaned())
    middle = len(prompts) // 2
    assert prompts[middle] <= 330
    assert prompts[int(0.95 * len(prompts))] < 420
    assert answers[middle] <= 115
    assert both[-1] < 620
    assert min(len(row.prompt_text) for row, _ in cleaned()) > 10 * prompts[middle]


def test_the_first_line_says_the_task_and_the_page_follows():
    for row, example in cleaned():
        assert example.prompt.startswith(f"{row.task}\n")
        assert "<" not in re.sub(r"<+ ", "", example.prompt), row.id


def test_nothing_that_the_markup_hides_is_in_a_prompt():
    hidden = 0
    for row, example in cleaned():
        for sku in re.findall(r"<p hidden>SKU: ([^<]+)</p>", row.prompt_text):
            hidden += 1
            name = re.search(r"<template><h1>([^<]+)</h1>", row.prompt_text)[1]
            assert sku not in example.prompt
            # the box, the template and the comment
            assert row.prompt_text.count(name) > 3 or name not in example.prompt
        for script in ("dataLayer", "_paq", "klaviyo", "{margin"):
            assert script not in example.prompt
        # a banner whose names say "cookie block" is a block like others to the reducer
        if row.metadata["template"] != "magento":
            assert CONSENT[row.metadata["language"]] not in example.prompt
    assert hidden > 100


def test_personal_data_goes_while_prices_skus_and_gtins_stay():
    replaced = Counter()
    for row, example in cleaned():
        assert json.loads(example.response) == json.loads(row.response_strong)
        for pattern in (MAIL, PHONE):
            for written in set(pattern.findall(row.prompt_text)):
                assert written not in example.prompt
        replaced.update(example.metadata.get("pii", {}).keys())
        raw = reduced(row.prompt_text, JOB.settings.html)
        for kept in (r"952\d{10}", r"\d+[.,]\d\d"):
            assert re.findall(kept, MAIL.sub("", example.prompt)) == re.findall(kept, MAIL.sub("", raw))
        answer = json.loads(example.response)
        if answer.get("sku") and example.metadata["grounded"]["sku"] in FOUND:
            assert answer["sku"] in example.prompt
    assert set(replaced) == {"email", "phone"}
    assert min(replaced.values()) > 20


def test_a_page_written_by_hand_gives_its_answer_and_the_demos_message():
    example = clean_row(JOB, capture(HANDWRITTEN), KEY)
    assert isinstance(example, Example)
    assert [slot for slot, state in example.metadata["grounded"].items() if state not in FOUND] == []
    for absent in ("99.99", "Ghost Product", "nora.hale", "555-0142", "cookies", "Flower"):
        assert absent not in example.prompt
    shown = reduced(framed("productpage", HANDWRITTEN), JOB.settings.html)
    without_contact = "\n".join(line for line in shown.split("\n") if "@" not in line)
    assert JOB.settings.demo_message.strip() == without_contact


@pytest.mark.parametrize(
    "html",
    [
        "<div><h1>Jar<p><b>$5.00<i>" * 400,
        "<b>" * 1_700_000,
        "<a href='/x'>" * 400_000,
        "<p>" + "<!-- " + "x" * 5_000_000 + "-->",
        "<h1>" + "Ã¼\x00\x1b[31m\ud800" * 50 + "</h1>",
        "\x89PNG\r\n\x1a\n" + "\x00\x01\x02\xff" * 5000 + "<p>",
        "<h1>مصباح</h1><p>12,50 €</p>\u202e\u200b",
        "<script>while(true){}</script>" * 2000,
        "{{ 7 * 7 }}{% for x in y %}<h1>${jndi:ldap://x}</h1>",
        "",
    ],
    ids=[
        "unclosed",
        "one tag",
        "links",
        "comment",
        "encoding",
        "binary",
        "other script",
        "scripts",
        "template",
        "empty",
    ],
)
def test_a_hostile_page_is_cleaned_or_refused_by_name(html):
    result = clean_row(JOB, capture(html), KEY)
    if isinstance(result, Reject):
        assert result.reason in REASONS
    else:
        assert result.prompt.startswith("productpage")
        assert len(result.prompt) < 4000
        assert not re.search(r"[\x00\x1b\ud800]", result.prompt)
        result.model_dump_json()
