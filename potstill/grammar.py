"""Phrase families: talk put together from clauses, so that what each text says is known by construction.

A grammar file (YAML) holds a lexicon shared by all families - per slot its nouns and, per value, its synonyms, and
the ways to wave any slot off - and families, each with frames, openers, closers and asides of its own. A workload
chooses values; `compose` words them:

    grammar = load(Path("data/samples/batfit/grammar.yaml"))
    said = [Said("pitch_type", "low", "skiddy"), Said("preferred_pickup", None, "no idea")]
    talk = compose(grammar, "coach_note", said, random.Random(7))
    talk.text, talk.clauses

Placeholders in a frame: {n} a noun of the slot, {v} the phrase of the value, {other} a phrase that is taken back,
{w} the phrase that waves the slot off. In openers, closers and asides: the name of any list under `fillers`.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from potstill import config
from potstill.config import Config

# how often a family's opener and closer appear, a value is said as a correction, and 0, 1 or 2 asides are dropped in
OPENER, CLOSER, CORRECTION = 0.7, 0.35, 0.08
ASIDES = (0.45, 0.40, 0.15)

Phrases = Annotated[list[str], Field(min_length=1)]


class Synonyms(Config):
    """How a value is said, or a slot waved off. `unseen` phrases appear in one test slice and nowhere else."""

    seen: Phrases
    unseen: list[str] = Field(default_factory=list)


class Slot(Config):
    nouns: Phrases
    values: dict[str, Synonyms] = Field(default_factory=dict)


class Style(Config):
    """`joins` stand between two clauses, `end` after the last one."""

    case: Literal["sentence", "lower"]
    joins: Phrases
    end: str


class Family(Config):
    """One way of talking: `frames` say a value, `waves` leave a slot open, `corrections` take a value back.

    `voice` says who talks, for the reader; `use` is the workload's own word for what the family is for.
    """

    voice: str
    use: str
    style: Style
    openers: Phrases
    closers: Phrases
    asides: Phrases
    frames: dict[str, Phrases]
    waves: dict[str, Phrases]
    corrections: dict[str, Phrases] = Field(default_factory=dict)


class Grammar(Config):
    slots: dict[str, Slot]
    waved: Synonyms
    fillers: dict[str, Phrases]
    families: dict[str, Family]


@dataclass(frozen=True)
class Said:
    """A value to be said: `phrase` words it, `other` words another value of the slot, for a correction.

    A value of None waves the slot off.
    """

    slot: str
    value: object
    phrase: str
    other: str | None = None


@dataclass(frozen=True)
class Clause:
    """One piece of a talk. An aside has no slot; a clause with a slot but no value waves the slot off."""

    text: str
    slot: str | None = None
    value: object = None
    phrase: str | None = None


@dataclass(frozen=True)
class Talk:
    text: str
    clauses: tuple[Clause, ...]


def load(path: Path) -> Grammar:
    """Raises Stop 2 that names the file, the key and the rule."""
    return config.load(path, Grammar)


def compose(grammar: Grammar, name: str, said: Sequence[Said], rng: random.Random) -> Talk:
    """Says everything in `said`, in random order, as family `name` would."""
    family = grammar.families[name]
    clauses = [_clause(grammar, family, item, rng) for item in said]
    wanted = rng.choices((0, 1, 2), ASIDES)[0] if clauses else 2
    for aside in rng.sample(family.asides, min(wanted, len(family.asides))):
        clauses.append(Clause(fill(aside, grammar.fillers, rng)))
    rng.shuffle(clauses)
    opener = fill(rng.choice(family.openers), grammar.fillers, rng) if rng.random() < OPENER else ""
    closer = fill(rng.choice(family.closers), grammar.fillers, rng) if rng.random() < CLOSER else ""
    return Talk(_join(family.style, opener, [c.text for c in clauses], closer, rng), tuple(clauses))


def fill(frame: str, words: dict[str, list[str]], rng: random.Random) -> str:
    """Replaces each {name} by a random one of its words; "a {v}" becomes "an even ..." where a vowel follows."""

    def replace(match: re.Match[str]) -> str:
        article, name = match.group(1) or "", match.group(2)
        word = rng.choice(words[name])
        if article and word[0].lower() in "aeiou":
            article = article.rstrip() + "n "
        return article + word

    return re.sub(r"(\b[Aa] )?\{(\w+)\}", replace, frame)


def _clause(grammar: Grammar, family: Family, said: Said, rng: random.Random) -> Clause:
    frames = (family.waves if said.value is None else family.frames)[said.slot]
    corrections = family.corrections.get(said.slot)
    if corrections and said.other is not None and rng.random() < CORRECTION:
        frames = corrections
    nouns, phrase = grammar.slots[said.slot].nouns, [said.phrase]
    words = {"n": nouns, "v": phrase, "w": phrase, "other": [said.other or ""]}
    return Clause(fill(rng.choice(frames), words, rng), said.slot, said.value, said.phrase)


def _join(style: Style, opener: str, clauses: list[str], closer: str, rng: random.Random) -> str:
    text = opener
    for position, clause in enumerate(clauses):
        if position:
            text += rng.choice(style.joins)
        starts = not text.strip() or text.rstrip(" \n")[-1] in ".!?"
        text += clause[0].upper() + clause[1:] if starts and style.case == "sentence" else clause
    text += style.end + (f" {closer}" if closer else "")
    return text.lower() if style.case == "lower" else text
