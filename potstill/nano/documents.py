"""Seeded synthetic documents: the small skills that structured extraction is made of, and nothing of any workload.

make("legend", random.Random(1), material.read_words(Path("models/nano/words.yaml"))) gives a Document.
"""

from collections.abc import Callable
from random import Random

from potstill.files import canonical_json
from potstill.nano import lookups, objects
from potstill.nano.material import Document, Words, joined, json_object, sentence


def make(kind: str, chance: Random, words: Words) -> Document:
    return MAKERS[kind][0](chance, words)


def pick_kind(chance: Random) -> str:
    return chance.choices(KINDS, WEIGHTS)[0]


def plain(chance: Random, words: Words) -> Document:
    """Text with no question: JSON, lists of pairs, sentences, pages."""
    roll = chance.random()
    if roll < 0.35:
        text = canonical_json(json_object(chance, words, 2))
    elif roll < 0.6:
        text = joined(chance, [sentence(chance, words) for _ in range(chance.randint(2, 5))])
    else:
        made = make(chance.choice(["find_value", "table", "chat", "html_field", "log_line"]), chance, words)
        text = f"{made.prompt}\n{made.answer}"
    return Document("", None, text)


# how many of a hundred or so documents are of each kind: those that fine-tuning wants most come most
MAKERS: dict[str, tuple[Callable[[Random, Words], Document], int]] = {
    "copy_span": (lookups.copy_span, 7),
    "find_value": (lookups.find_value, 7),
    "which_label": (lookups.which_label, 7),
    "key_case": (lookups.key_case, 5),
    "pairs_to_json": (objects.pairs_to_json, 12),
    "legend": (objects.legend, 14),
    "form_filling": (objects.form_filling, 14),
    "html_field": (lookups.html_field, 5),
    "json_repair": (objects.json_repair, 9),
    "to_list": (objects.to_list, 2),
    "numbers": (objects.numbers, 5),
    "table": (lookups.table, 2),
    "log_line": (objects.log_line, 2),
    "chat": (lookups.chat, 2),
    "telling": (objects.telling, 2),
    "decide": (lookups.decide, 3),
    "plain": (plain, 3),
}
KINDS = list(MAKERS)
WEIGHTS = [weight for _, weight in MAKERS.values()]
