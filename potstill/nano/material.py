"""What synthetic documents are made of: words, keys, values, JSON objects and sentences, drawn from a seeded Random."""

import re
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from potstill import config

Words = dict[str, list[str]]
TOPICS = ["noun", "noun", "verb", "adjective", "shop", "game", "sport", "fitness", "tech", "food", "animal", "colour"]
FOREIGN = ["spanish", "german", "french", "hindi"]
FILLERS = ["please", "thanks", "well", "so", "okay", "hello", "by the way", "you know", "I think", "right then", "um"]
SENTENCES = [
    "the {adjective} {noun} will {verb} the {shop}",
    "I {verb} my {noun} in {place}",
    "{name} can {verb} at the {noun}",
    "we had a {food} on {time}",
    "is the {noun} too {adjective}",
    "{function} {verb} {function} {noun} {sport}",
    "my {family} has a {colour} {animal}",
    "it was {weather} and {adjective} in {place}",
    "{informal} {verb} the {tech}",
]
JSON_ONLY = ["Answer with compact JSON only.", "Return one JSON object, no extra text.", "JSON only.", ""]


class Document(NamedTuple):
    """`prompt` is None for a plain text; then all of `answer` is learnt, otherwise only the answer."""

    system: str
    prompt: str | None
    answer: str


def read_words(path: Path) -> Words:
    """The word lists by topic. Raises Stop 2 when the file is not there or not YAML."""
    return {topic: str(text).split() for topic, text in config.read_yaml(path).items()}


def word(chance: Random, words: Words) -> str:
    if chance.random() < 0.04:
        return chance.choice(words[chance.choice(FOREIGN)])
    return chance.choice(words[chance.choice(TOPICS)])


def some_words(chance: Random, words: Words, low: int, high: int) -> list[str]:
    """Between `low` and `high` different words."""
    found: dict[str, None] = {}
    count = chance.randint(low, high)
    while len(found) < count:
        found[word(chance, words)] = None
    return list(found)


def number(chance: Random) -> int | float:
    if chance.random() < 0.5:
        return chance.randint(0, chance.choice([9, 99, 999, 9999]))
    return round(chance.uniform(0, chance.choice([1, 10, 100])), chance.choice([1, 2]))


def key(chance: Random, words: Words) -> str:
    return "_".join(some_words(chance, words, 1, chance.choice([1, 2, 2, 3]))).lower()


def keys(chance: Random, words: Words, low: int, high: int) -> list[str]:
    return list(dict.fromkeys(key(chance, words) for _ in range(chance.randint(low, high))))


def value(chance: Random, words: Words) -> str:
    """A value as a person would write it."""
    roll = chance.random()
    if roll < 0.5:
        return " ".join(some_words(chance, words, 1, chance.choice([1, 2, 3])))
    if roll < 0.65:
        return str(number(chance))
    if roll < 0.75:
        return f"{chance.choice(words['name'])} {chance.choice(words['name'])}"
    if roll < 0.85:
        return f"20{chance.randint(10, 29)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
    code = "".join(chance.choice("ABCDEFGHKLMNPRSTXZ0123456789") for _ in range(chance.randint(3, 7)))
    return code if roll < 0.95 else f"{number(chance)} {chance.choice(words['unit'])}"


def leaf(chance: Random, words: Words) -> Any:
    roll = chance.random()
    if roll < 0.55:
        return value(chance, words)
    if roll < 0.75:
        return number(chance)
    return None if roll < 0.9 else chance.random() < 0.5


def json_object(chance: Random, words: Words, depth: int = 1) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in keys(chance, words, 2, 5):
        roll = chance.random()
        if depth and roll < 0.2:
            made[name] = json_object(chance, words, depth - 1)
        elif roll < 0.35:
            made[name] = some_words(chance, words, 0, 3)
        else:
            made[name] = leaf(chance, words)
    return made


def sentence(chance: Random, words: Words) -> str:
    form = chance.choice(SENTENCES)
    return re.sub(r"\{(\w+)\}", lambda found: chance.choice(words[found[1]]), form)


def filler(chance: Random, words: Words) -> str:
    return chance.choice(FILLERS) if chance.random() < 0.6 else sentence(chance, words)


def joined(chance: Random, clauses: list[str]) -> str:
    """Clauses as one running text, in the order given."""
    text = clauses[0]
    for clause in clauses[1:]:
        text += chance.choice([", ", ". ", " and ", "; ", " but ", ", ", " - "]) + clause
    return text + chance.choice(["", ".", ".", "!"])


def key_words(name: str) -> str:
    return name.replace("_", " ")


def typed(text: str) -> Any:
    """The JSON value of a written value: numbers become numbers."""
    if re.fullmatch(r"(0|[1-9]\d*)(\.\d+)?", text):
        return float(text) if "." in text else int(text)
    return text
