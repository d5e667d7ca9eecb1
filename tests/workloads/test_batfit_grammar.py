"""The grammar: families are strangers to each other, and what is said can be read back."""

import random
import re
from collections import defaultdict
from functools import cache

import pytest
from batfit_rows import BOOK, samples, says, talks
from hypothesis import given
from hypothesis import strategies as st

from potstill import grammar
from potstill.workloads import batfit_samples
from potstill.workloads.batfit_schema import WHY, Context


def frames_of(family: grammar.Family) -> set[str]:
    by_slot = [*family.frames.values(), *family.waves.values(), *family.corrections.values()]
    phrases = [phrase for group in by_slot for phrase in group]
    return {*phrases, *family.openers, *family.closers, *family.asides}


def fixed_words(frame: str) -> str:
    """The frame's own words, placeholders as one mark each."""
    return " ".join(re.sub(r"\{\w+\}", "_", frame.casefold()).split())


def test_no_frame_of_one_family_is_in_another():
    own = {name: {fixed_words(frame) for frame in frames_of(family)} for name, family in BOOK.families.items()}
    shared = defaultdict(set)
    for name, frames in own.items():
        for frame in frames:
            shared[frame].add(name)
    assert {frame: names for frame, names in shared.items() if len(names) > 1} == {}
    long = [(name, frame) for name, frames in own.items() for frame in frames if len(re.findall(r"[a-z]+", frame)) > 2]
    held = [(a, b, f) for a, f in long for b, frames in own.items() if a != b for other in frames if says(other, f)]
    assert held == []


def test_every_family_has_frames_enough_for_every_slot():
    for name, family in BOOK.families.items():
        assert set(family.frames) == set(Context.model_fields), name
        assert set(family.waves) == set(WHY), name
        assert all(len(set(frames)) >= 3 for frames in family.frames.values()), name
        assert all(len(set(frames)) >= 2 for frames in family.waves.values()), name
        for slot, frames in family.frames.items():
            assert all(frame.count("{v}") == 1 for frame in frames), (name, slot)
        for slot in ("pitch_type", "preferred_pickup", "profile_pref", "playing_style"):
            assert all("{n}" in frame for frame in family.frames[slot]), (name, slot)
        for wave in (wave for waves in family.waves.values() for wave in waves):
            assert wave.count("{n}") == wave.count("{w}") == 1, (name, wave)


def test_synonyms_are_enough_and_name_one_value_each():
    for slot, entry in BOOK.slots.items():
        assert len(entry.nouns) >= 4
        if slot == "target_weight_lb":
            continue
        assert set(entry.values) == set(batfit_samples.CHOICES[slot])
        assert all(len(set(words.seen)) >= 6 and len(set(words.unseen)) >= 2 for words in entry.values.values())
        every = [word for words in entry.values.values() for word in (*words.seen, *words.unseen)]
        assert len(every) == len(set(every))
    nouns = [noun for entry in BOOK.slots.values() for noun in entry.nouns]
    assert len(nouns) == len(set(nouns))
    assert len(set(BOOK.waved.seen)) >= 12
    assert len(set(BOOK.waved.unseen)) >= 3


def content_words(phrases: list[str]) -> set[str]:
    small = {"no", "not", "is", "me", "you", "your", "don't", "can't", "couldn't", "haven't"}
    return {word for phrase in phrases for word in phrase.split()} - small


def test_waving_phrases_name_no_value_and_share_no_word_with_the_frames_or_each_other():
    seen, unseen = content_words(BOOK.waved.seen), content_words(BOOK.waved.unseen)
    assert all(content_words([phrase]) for phrase in (*BOOK.waved.seen, *BOOK.waved.unseen))
    assert not seen & unseen
    synonyms = [w for slot in BOOK.slots.values() for v in slot.values.values() for w in (*v.seen, *v.unseen)]
    names = [*synonyms, *(noun for slot in BOOK.slots.values() for noun in slot.nouns)]
    waving = (*BOOK.waved.seen, *BOOK.waved.unseen)
    assert [(w, name) for w in waving for name in names if says(w, name) or says(name, w)] == []
    for name, family in BOOK.families.items():
        for wave in (wave for waves in family.waves.values() for wave in waves):
            assert not [word for word in seen | unseen if says(wave, word)], (name, wave)


def test_frames_speak_of_their_own_slot_only():
    entries = BOOK.slots.values()
    tables = [BOOK.waved, *(words for entry in entries for words in entry.values.values())]
    synonyms = [word for words in tables for word in (*words.seen, *words.unseen)]
    nouns = [noun for entry in entries for noun in entry.nouns]
    for name, family in BOOK.families.items():
        for kind in (family.frames, family.waves, family.corrections):
            for slot, frames in kind.items():
                strangers = [noun for other, entry in BOOK.slots.items() if other != slot for noun in entry.nouns]
                for frame in frames:
                    assert not [word for word in (*strangers, *synonyms) if says(frame, word)], (name, frame)
        for frame in (*family.asides, *family.openers, *family.closers):
            assert not [word for word in (*nouns, *synonyms) if says(frame, word)], (name, frame)
    for word in (word for words in BOOK.fillers.values() for word in words):
        assert not [phrase for phrase in (*nouns, *synonyms) if says(word, phrase)], word


@cache
def phrases_of(slot: str, unseen: bool) -> dict:
    """Every phrase of a slot's values, and of waving it off (None), the longest first."""
    table = dict.fromkeys(BOOK.waved.unseen if unseen else BOOK.waved.seen)
    if slot == "target_weight_lb":
        hundredths = [n / 100 for n in range(230, 341)]
        table |= {phrase: value for value in hundredths for phrase in batfit_samples.weight_phrases(value, unseen)}
    else:
        values = BOOK.slots[slot].values
        table |= {
            phrase: value for value, words in values.items() for phrase in (words.unseen if unseen else words.seen)
        }
    return dict(sorted(table.items(), key=lambda item: len(item[0]), reverse=True))


def values_in(text: str, slot: str, unseen: bool) -> set:
    """The values (None: waved off) whose phrases stand in `text`: an independent reading of a clause."""
    found, rest = set(), text.casefold()
    for phrase, value in phrases_of(slot, unseen).items():
        if says(rest, phrase):
            found.add(value)
            rest = rest.replace(phrase.casefold(), "#")
    return found


@pytest.mark.parametrize("family", sorted(BOOK.families))
def test_the_talk_says_what_the_answer_says(family):
    rng = random.Random(f"faithful {family}")
    unseen = BOOK.families[family].use == "unseen"
    for _ in range(25):
        talk, known = batfit_samples.talk_about(BOOK, family, rng)
        spoken = {clause.slot: clause for clause in talk.clauses if clause.slot}
        waved = {slot for slot, clause in spoken.items() if clause.value is None}
        context = known.context.model_dump()
        assert {slot: clause.value for slot, clause in spoken.items() if slot not in waved} == {
            k: v for k, v in context.items() if v is not None
        }
        assert waved == set(known.interaction.skipped)
        for slot, clause in spoken.items():
            assert clause.phrase in clause.text
            assert clause.text.casefold() in talk.text.casefold()
            found = values_in(clause.text, slot, unseen)
            assert clause.value in found, clause
            # a correction names the value it takes back, before the one that holds
            corrected = slot not in waved and BOOK.families[family].corrections.get(slot)
            assert len(found) <= 1 + bool(corrected), clause


@given(st.integers(230, 340))
def test_a_weight_is_the_same_in_every_wording(hundredths):
    value = hundredths / 100
    for phrase in batfit_samples.weight_phrases(value) + batfit_samples.weight_phrases(value, unseen=True):
        words = phrase.replace("pound", "lb").split() if "point" not in phrase else []
        numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", phrase)]
        if "ounces" in phrase:
            assert numbers[0] / 16 == pytest.approx(value, abs=0.0051)
        elif "/" in phrase:
            assert numbers[0] + numbers[1] / numbers[2] == value
        elif numbers and (len(numbers) == 2 or "oz" in phrase):
            assert numbers[0] + numbers[1] / 16 == pytest.approx(value, abs=0.0051)
        elif numbers:
            assert numbers == [value]
        else:
            spoken = [
                batfit_samples.UNITS.index(word)
                for word in re.findall(r"[a-z]+", phrase)
                if word in batfit_samples.UNITS
            ]
            decimal = float(f"{spoken[0]}.{''.join(map(str, spoken[1:]))}")
            assert value == pytest.approx(decimal if not words else spoken[0] + spoken[1] / 16, abs=0.0051)


def test_held_out_synonyms_are_in_their_slice_only_and_seen_ones_are_in_many_families():
    held = [word for entry in BOOK.slots.values() for v in entry.values.values() for word in v.unseen]
    held += BOOK.waved.unseen
    text_of = defaultdict(list)
    for row in samples():
        text_of[row.metadata.get("slice")].append(row.prompt_text)
    elsewhere, inside = "\n".join(text_of[None]), "\n".join(text_of["unseen_synonyms"])
    assert [word for word in held if says(elsewhere, word)] == []
    assert re.findall(r"\d ounces|\d/\d", elsewhere) == []
    assert sum(says(inside, word) for word in held) >= 0.9 * len(held)
    families = defaultdict(str)
    for row in talks():
        families[row.metadata["group"]] += row.prompt_text + "\n"
    for slot, entry in BOOK.slots.items():
        for value, words in entry.values.items():
            for word in words.seen:
                assert sum(says(text, word) for text in families.values()) >= 5, (slot, value, word)
    training = {name for name, family in BOOK.families.items() if family.use == "train"}
    for word in BOOK.waved.seen:
        assert sum(says(families[name], word) for name in training) >= 12, word
    assert all(says(inside, word) for word in BOOK.waved.unseen)
    assert {row.metadata["group"] for row in talks(slice="unseen_synonyms")} == {"podcast_guest", "groundsman_tip"}


def test_families_of_val_tenants_and_the_slice_are_their_own():
    homes = defaultdict(set)
    for row in samples():
        home = tuple(row.metadata.get(key) for key in ("split", "tenant", "slice"))
        homes[row.metadata["group"]].add(home)
    assert all(len(places) == 1 for places in homes.values())
