"""BatFit's samples: talk and broken answers whose right answer is known, because it came first.

`make_samples` reads grammar.yaml and writes the JSONL files of data/samples/batfit/ and their manifest, the same bytes
for the same seed. The policy files there are written by hand.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from pathlib import Path
from typing import Any, get_args

from potstill import corrupt, grammar
from potstill.files import canonical_json, write_text
from potstill.grammar import Grammar, Said, Talk
from potstill.workloads.batfit_schema import WHY, Answer, Context, interaction

SYSTEM = "Turn cricket talk or broken JSON into BatFit JSON."
# how often a field is stated; of the quick-fit fields not stated, how often one is waved off
STATED, WAVED = 0.55, 0.3
ROWS_PER_FAMILY = {"train": 100, "val": 40, "unseen": 30}  # a tenant's families: 40
REPAIRS_PER_FAMILY = {"train": 42, "val": 10}
UNSEEN = "unseen_synonyms"
# a whole number of ounces, rounded half up to 0.01 lb -> the ounces
OUNCES = {float((Decimal(oz) / 16).quantize(Decimal("0.01"), ROUND_HALF_UP)): oz for oz in range(37, 55)}
CHOICES: dict[str, tuple[str, ...]] = {
    slot: get_args(get_args(field.annotation)[0])
    for slot, field in Context.model_fields.items()
    if slot != "target_weight_lb"
}
UNITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
UNITS += ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen"]
# spellings a value is known by; the rest of its misspellings are made from its own letters
NEAR = {
    "turning": ["turner", "turns"],
    "seaming": ["seamer", "seams"],
    "bouncy": ["bounce", "bouncing"],
    "aggressive": ["aggression", "aggressively"],
    "anchor": ["anchoring", "anchors"],
    "all_round": ["all-rounder", "allround"],
    "control": ["controlled", "controlling"],
    "bat_speed": ["batspeed"],
    "power": ["powerful", "more power"],
    "balanced": ["balance", "well balanced"],
}
GEOMETRY: dict[str, list[Any]] = {
    "edges_mm": [36, 38, 40],
    "spine_mm": [62, 65, 67],
    "handle_shape": ["semi-oval", "oval", "round"],
    "willow_grade": ["G1", "G2", "players"],
    "sweet_spot_mm": [180, 210, 230],
}
# content fault x text fault; each pair is a family, and every fault is in several
CONTENTS = ("near_enum", "weight_text", "geometry", "null_dropped", *corrupt.KEYS)
Row = dict[str, Any]


def make_samples(out: Path, seed: int) -> list[Path]:
    """Writes the JSONL files, the system text and the manifest of `out`, from its grammar.yaml. Returns their paths."""
    book = grammar.load(out / "grammar.yaml")
    files: dict[str, list[Row]] = {}
    taken: set[str] = set()
    for name, family in book.families.items():
        rng = random.Random(f"{seed} {name}")
        own = family.use in ROWS_PER_FAMILY
        file = f"t1_parse/{UNSEEN if family.use == 'unseen' else family.use}.jsonl"
        rows = files.setdefault(file if own else f"tenants/{family.use}/t1_parse.jsonl", [])
        for _ in range(ROWS_PER_FAMILY.get(family.use, 40)):
            rows.append(_fresh(partial(talk_row, book, name, rng), taken))
    for use, name, content, text in _repair_families():
        rng = random.Random(f"{seed} {name}")
        for _ in range(REPAIRS_PER_FAMILY[use]):
            row = _fresh(partial(repair_row, content, text, rng), taken)
            files.setdefault(f"t2_repair/{use}.jsonl", []).append({**row, "group": name})
    texts = {"common/prompts/system.txt": SYSTEM + "\n", "manifest.yaml": _manifest(files)}
    for file, rows in files.items():
        random.Random(f"{seed} {file}").shuffle(rows)
        texts[file] = "".join(canonical_json(_layout(row, number)) + "\n" for number, row in enumerate(rows))
    for file, content in texts.items():
        write_text(out / file, content)
    return [out / file for file in sorted(texts)]


def talk_row(book: Grammar, family: str, rng: random.Random) -> Row:
    """One t1_parse row in the words of `family`."""
    unseen = book.families[family].use == "unseen"
    talk, answer = talk_about(book, family, rng)
    row = {"input": talk.text, "output": answer.model_dump(), "group": family}
    return {**row, "slice": UNSEEN} if unseen else row


def talk_about(book: Grammar, family: str, rng: random.Random) -> tuple[Talk, Answer]:
    """A talk and its answer. The answer is drawn first, so it is right whatever the words are."""
    unseen = book.families[family].use == "unseen"
    answer = random_answer(rng)
    values = {slot: value for slot, value in answer.context.model_dump().items() if value is not None}
    said = []
    for slot, value in values.items():
        other = _value(slot, rng)
        phrases = [_phrases(book, slot, item, unseen) for item in (value, other)]
        said.append(Said(slot, value, rng.choice(phrases[0]), rng.choice(phrases[1]) if other != value else None))
    for slot in answer.interaction.skipped:
        said.append(Said(slot, None, rng.choice(_phrases(book, slot, None, unseen))))
    return grammar.compose(book, family, said, rng), answer


def random_answer(rng: random.Random) -> Answer:
    values = {slot: _value(slot, rng) if rng.random() < STATED else None for slot in Context.model_fields}
    waved = [field for field in WHY if values[field] is None and rng.random() < WAVED]
    context = Context.model_validate(values)
    return Answer(context=context, interaction=interaction(context, waved))


def weight_phrases(value: float, unseen: bool = False) -> list[str]:
    """Ways to say a weight in lb: decimals, and pounds and ounces where it is a whole number of ounces."""
    ounces = OUNCES.get(value, 0)
    pounds, rest = divmod(ounces, 16)
    if unseen:
        total = f"{ounces} ounces" if ounces else f"{value * 16:.1f} ounces"
        return [total] if rest % 4 or not rest else [total, f"{pounds} {rest // 4}/4 lb".replace("2/4", "1/2")]
    short = str(value).removesuffix(".0")
    digits = " ".join(UNITS[int(digit)] for digit in str(value)[2:])
    spoken = f"{UNITS[int(value)]} point {digits} pounds"
    phrases = [f"{short} lb", f"{short}lb", f"{short} lbs", f"{short} pounds", f"{value:.2f} lb", spoken]
    if ounces:
        phrases += [f"{pounds}lb {rest}oz", f"{pounds} lb {rest} oz"]
    if rest:
        phrases += [f"{pounds}lb {rest}", f"{pounds} pound {rest}"]
        phrases += [f"{UNITS[pounds]} pound {UNITS[rest]}", f"{UNITS[pounds]} pounds {UNITS[rest]}"]
    return phrases


def _value(slot: str, rng: random.Random) -> Any:
    if slot != "target_weight_lb":
        return rng.choice(CHOICES[slot])
    tens, any_hundredth = rng.randrange(230, 341, 5) / 100, rng.randint(230, 340) / 100
    return rng.choice((tens, any_hundredth, rng.choice(list(OUNCES))))


def _phrases(book: Grammar, slot: str, value: Any, unseen: bool) -> list[str]:
    if slot == "target_weight_lb" and value is not None:
        return weight_phrases(value, unseen)
    synonyms = book.waved if value is None else book.slots[slot].values[value]
    return synonyms.unseen if unseen else synonyms.seen


def repair_row(content: str, text: str, rng: random.Random) -> Row:
    """One t2_repair row: an answer with a fault in its content, written with a fault in its text."""
    while True:
        answer = random_answer(rng)
        broken = _spoil(answer.model_dump(), content, rng)
        if broken is not None:
            return {"input": f"Repair: {corrupt.TEXTS[text](broken, rng)}", "output": answer.model_dump()}


def _spoil(answer: dict[str, Any], fault: str, rng: random.Random) -> dict[str, Any] | None:
    """The answer with one kind of fault in it; None where it has nothing the fault could be in."""
    context = answer["context"]
    if fault in corrupt.KEYS:
        return corrupt.KEYS[fault](answer, rng)
    if fault == "geometry":
        extra = {key: rng.choice(GEOMETRY[key]) for key in rng.sample(sorted(GEOMETRY), rng.randint(1, 3))}
        return {**answer, "context": {**context, **extra}} if rng.random() < 0.5 else {**answer, "bat": extra}
    if fault == "null_dropped":
        return corrupt.without_empty(answer, rng)
    changed = {}
    for slot, value in context.items():
        if fault == "weight_text" and isinstance(value, float):
            changed[slot] = rng.choice(
                [f"{value} lb", f"{value}lb", f"{value:.2f}", f"{value} pounds", f"~{value} lbs"]
            )
        if fault == "near_enum" and isinstance(value, str):
            changed[slot] = rng.choice(corrupt.misspellings(value) + NEAR.get(value, []))
    return {**answer, "context": {**context, **changed}} if changed else None


def _repair_families() -> Iterator[tuple[str, str, str, str]]:
    """(use, name, content fault, text fault): 21 pairs for train, 4 others for val; every fault is in several."""
    texts = list(corrupt.TEXTS)
    for offset, use in ((0, "train"), (3, "train"), (5, "train"), (6, "val")):
        for position, content in enumerate(CONTENTS):
            text = texts[(position + offset) % len(texts)]
            if use == "train" or position % 2 == 0:
                yield use, f"repair:{content}+{text}", content, text


def _fresh(make: Callable[[], Row], taken: set[str]) -> Row:
    """A row whose prompt no other row has."""
    while True:
        row = make()
        if row["input"] not in taken:
            taken.add(row["input"])
            return row


def _layout(row: Row, number: int) -> Row:
    """Every eighth row as messages, every sixth of the others with its answer as text: convert reads them all."""
    labels = {key: value for key, value in row.items() if key not in ("input", "output")}
    if number % 8 == 7:
        talk = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["input"]}]
        return {"messages": talk, "output_json": row["output"], **labels}
    return {**row, "output": canonical_json(row["output"])} if number % 6 == 5 else row


def _manifest(files: Iterable[str]) -> str:
    lines = [
        "# What is in BatFit's mix. A weight of 0 leaves an entry out.",
        "system_prompt: common/prompts/system.txt",
    ]
    for heading, own in (("tasks", False), ("tenants", True)):
        lines.append(f"{heading}:")
        entries: dict[str, list[str]] = {}
        for file in sorted(files):
            parts = file.split("/")
            if (parts[0] == "tenants") == own:
                entries.setdefault(parts[1] if own else parts[0], []).append(file)
        for name, paths in entries.items():
            listed = f"[{', '.join(paths)}]"
            lines += [f"  {name}:", f"    weight: {0.5 if own else 1.0}"]
            lines.append(f"    files: {{t1_parse: {listed}}}" if own else f"    files: {listed}")
    return "\n".join(lines) + "\n"
