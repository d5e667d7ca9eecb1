import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill import grammar
from potstill.grammar import Family, Grammar, Said, Slot, Style, Synonyms
from potstill.stop import Stop

SLOTS = ("size", "colour")
WORDS = {"size": {"big": ["large", "enormous"], "small": ["tiny"]}, "colour": {"red": ["scarlet", "orange-red"]}}


def tiny(case: str = "sentence", joins: tuple[str, ...] = (". ", ", ")) -> Grammar:
    family = Family(
        voice="a shopper",
        use="train",
        style=Style(case=case, joins=list(joins), end="."),
        openers=["Hello. "],
        closers=["Bye."],
        asides=["it rains in {town}", "I was in {town}"],
        frames={slot: ["the {n} is {v}", "a {v} {n}"] for slot in SLOTS},
        waves={slot: ["never mind the {n}, {w}"] for slot in SLOTS},
        corrections={slot: ["the {n} is {other}, no, {v}"] for slot in SLOTS},
    )
    slots = {
        slot: Slot(
            nouns=[slot, f"{slot} of it"], values={value: Synonyms(seen=seen) for value, seen in WORDS[slot].items()}
        )
        for slot in SLOTS
    }
    return Grammar(
        slots=slots,
        waved=Synonyms(seen=["no idea"]),
        fillers={"town": ["Leeds", "Perth"]},
        families={"shopper": family},
    )


@given(
    seed=st.integers(0, 10_000),
    case=st.sampled_from(["sentence", "lower"]),
    values=st.fixed_dictionaries(
        {}, optional={slot: st.sampled_from([w for ws in WORDS[slot].values() for w in ws]) for slot in SLOTS}
    ),
)
def test_every_clause_is_in_the_text_and_every_value_in_its_clause(seed, case, values):
    said = [Said(slot, phrase, phrase, "beige") for slot, phrase in values.items()]
    waved = [Said(slot, None, "no idea") for slot in SLOTS if slot not in values]
    talk = grammar.compose(tiny(case), "shopper", [*said, *waved], random.Random(seed))
    phrases = {item.slot: item.phrase for item in (*said, *waved)}
    assert {c.slot: c.phrase for c in talk.clauses if c.slot} == phrases
    assert {c.slot: c.value for c in talk.clauses if c.slot} == {**dict.fromkeys(SLOTS), **values}
    assert all("never mind" in c.text for c in talk.clauses if c.slot and c.value is None)
    for clause in talk.clauses:
        assert clause.text.casefold() in talk.text.casefold()
        assert clause.phrase is None or clause.phrase in clause.text
        assert clause.slot is None or clause.slot in clause.text
        assert "{" not in clause.text
    if case == "lower":
        assert talk.text == talk.text.lower()


def test_same_seed_same_talk_and_other_seeds_other_talks():
    said = [Said("size", "big", "large"), Said("colour", "red", "scarlet")]
    talks = [grammar.compose(tiny(), "shopper", said, random.Random(seed)) for seed in (3, 3, 4, 5, 6)]
    assert talks[0] == talks[1]
    assert len({talk.text for talk in talks}) > 2


def test_corrections_take_another_value_back():
    said = [Said("size", "small", "tiny", "enormous")]
    texts = [grammar.compose(tiny(), "shopper", said, random.Random(seed)).text for seed in range(200)]
    corrected = [text for text in texts if "enormous" in text]
    assert 0 < len(corrected) < 50
    assert all("enormous, no, tiny" in text for text in corrected)


def test_a_talk_with_nothing_to_say_is_not_empty():
    talk = grammar.compose(tiny(), "shopper", [], random.Random(1))
    assert len(talk.clauses) == 2
    assert all(clause.slot is None for clause in talk.clauses)


@pytest.mark.parametrize(
    ("frame", "word", "text"),
    [("a {v} one", "even", "an even one"), ("A {v}", "odd", "An odd"), ("a {v} one", "big", "a big one")],
)
def test_article_follows_the_word(frame, word, text):
    assert grammar.fill(frame, {"v": [word]}, random.Random(0)) == text


def test_sentences_start_with_a_capital():
    said = [Said("size", "big", "large"), Said("colour", "red", "scarlet")]
    for seed in range(30):
        talk = grammar.compose(tiny(joins=(". ",)), "shopper", said, random.Random(seed))
        assert all(sentence[0].isupper() for sentence in talk.text.split(". "))


def test_a_misspelt_key_is_named(tmp_path: Path):
    path = tmp_path / "grammar.yaml"
    path.write_text("slots: {}\nfillers: {}\nfamiles: {}\n", encoding="utf-8")
    with pytest.raises(Stop, match=r"grammar\.yaml.*famil"):
        grammar.load(path)
