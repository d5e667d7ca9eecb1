"""Documents that ask for JSON, or for text about JSON: pairs, legends, forms, repairs, lists, numbers, events."""

import re
from collections.abc import Callable
from random import Random
from typing import Any

from potstill.files import canonical_json
from potstill.nano.material import (
    JSON_ONLY,
    Document,
    Words,
    filler,
    joined,
    json_object,
    key,
    key_words,
    keys,
    number,
    sentence,
    some_words,
    typed,
    value,
    word,
)

SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
SMALL += ["thirteen", "fourteen", "fifteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
STATING = ["{0} {1}", "{1} {0}", "the {0} is {1}", "{1} for the {0}", "{0} about {1}", "want {1} as {0}"]
ASKING = ["what {} do I need", "which {} is best", "help me with {}", "unsure about {}"]
SKIPPING = ["skip the {}", "never mind {}", "no need for {}", "leave {} out"]


def pairs_to_json(chance: Random, words: Words) -> Document:
    """Written pairs, some missing, some in groups, as the JSON the listed keys ask for."""
    names = keys(chance, words, 2, 6)
    given = {name: value(chance, words) for name in names if chance.random() < 0.75}
    lists = [name for name in given if chance.random() < 0.15]
    for name in lists:
        given[name] = ", ".join(some_words(chance, words, 2, 4))
    shown = list(given)
    chance.shuffle(shown)
    labels: list[Callable[[str], str]] = [key_words, str, lambda name: key_words(name).capitalize()]
    label = chance.choice([*labels, lambda name: key_words(name).title()])
    mark = chance.choice([": ", " = ", " is ", " - "])
    line_end = "\n" if lists else chance.choice(["\n", ", ", "; "])
    text = line_end.join(f"{label(name)}{mark}{given[name]}" for name in shown)
    answer: dict[str, Any] = {name: typed(given[name]) if name in given else None for name in names}
    answer |= {name: given[name].split(", ") for name in lists}
    wanted = ", ".join(names)
    if len(names) > 3 and chance.random() < 0.5:
        cut, first, second = chance.randint(1, len(names) - 1), key(chance, words), key(chance, words) + "s"
        answer = {first: dict(list(answer.items())[:cut]), second: dict(list(answer.items())[cut:])}
        wanted = f"{first}({', '.join(names[:cut])}), {second}({', '.join(names[cut:])})"
    return Document(chance.choice(JSON_ONLY), f"Keys: {wanted}\n{text or 'nothing'}", canonical_json(answer))


def legend(chance: Random, words: Words) -> Document:
    """Phrases mapped to labels by a legend, in running text with other talk around them."""
    answer: dict[str, Any] = {}
    lines, clauses = [], []
    for name in keys(chance, words, 1, 4):
        phrases = {label: " ".join(some_words(chance, words, 1, 2)) for label in some_words(chance, words, 2, 4)}
        lines.append(f"{name}: " + ", ".join(f"{label} = {phrase}" for label, phrase in phrases.items()))
        answer[name] = None
        if chance.random() < 0.7:
            answer[name] = chance.choice(list(phrases))
            form = chance.choice(
                ["{}", "the {} kind", "I like {}", "{} please", "make it {}", "mostly {}", "{} at home"]
            )
            clauses.append(form.format(phrases[answer[name]]))
    chance.shuffle(clauses)
    for _ in range(chance.randint(0, 2)):
        clauses.insert(chance.randint(0, len(clauses)), filler(chance, words))
    text = joined(chance, clauses or [filler(chance, words)])
    return Document(chance.choice(JSON_ONLY), "\n".join([*lines, f"Text: {text}"]), canonical_json(answer))


def form_filling(chance: Random, words: Words) -> Document:
    """A talker fills some fields of a form, in any order, asks about some and skips others."""
    names = keys(chance, words, 2, 5)
    fields: dict[str, Any] = dict.fromkeys(names)
    asked, skipped, clauses = [], [], []
    for name in chance.sample(names, len(names)):
        roll, said = chance.random(), key_words(name)
        if roll < 0.55:
            text = chance.choice([word(chance, words), str(number(chance))])
            fields[name] = typed(text)
            clauses.append(chance.choice(STATING).format(said, text))
        elif roll < 0.7:
            asked.append(name)
            clauses.append(chance.choice(ASKING).format(said))
        elif roll < 0.85:
            skipped.append(name)
            clauses.append(chance.choice(SKIPPING).format(said))
    if chance.random() < 0.5:
        clauses.insert(chance.randint(0, len(clauses)), filler(chance, words))
    outer = chance.choice(["fields", "form", "details", "order", "facts"])
    talk = {"asked": sorted(asked, key=names.index), "skipped": sorted(skipped, key=names.index)}
    answer = {outer: fields, "talk": talk}
    prompt = f"{outer}: {', '.join(names)}. talk: asked, skipped\n{joined(chance, clauses or ['nothing yet'])}"
    return Document(chance.choice(JSON_ONLY), prompt, canonical_json(answer))


def json_repair(chance: Random, words: Words) -> Document:
    """A compact JSON object, and the same after one to three accidents."""
    answer = canonical_json(json_object(chance, words))
    text = answer
    accidents: list[Callable[[str], str]] = [
        lambda t: t.replace('"', "'"),
        lambda t: re.sub(r'"(\w+)":', r"\1:", t),
        lambda t: re.sub(r'"(\w+)":', lambda m: f'"{m[1].title().replace("_", "")}":', t) if t == answer else t,
        lambda t: t.replace("null", "None").replace("true", "True").replace("false", "False"),
        lambda t: t.replace(",", ", ").replace(":", ": "),
        lambda t: re.sub(r'([\]}"])\}$', r"\1,}", t),
        lambda t: t.rstrip("}"),
        lambda t: t.replace('","', '" "', 1),
        lambda t: f"```json\n{t}\n```",
        lambda t: f"{sentence(chance, words)}: {t}",
        lambda t: t.replace("{", "{\n  ").replace(",", ",\n  "),
    ]
    for accident in chance.sample(accidents, chance.randint(1, 3)):
        text = accident(text)
    names = re.findall(r'"(\w+)":', answer)
    # keys that were joined or cut can only be known from a list of them
    listed = chance.random() < 0.4 or not all(re.search(rf"\b{name}\b", text) for name in names)
    head = f"Keys: {', '.join(names)}\n" if listed else ""
    return Document(chance.choice(["Repair the JSON.", "Fix it.", "Return valid compact JSON."]), head + text, answer)


def to_list(chance: Random, words: Words) -> Document:
    items = some_words(chance, words, 1, 6)
    text = ", ".join(items[:-1]) + chance.choice([" and ", ", ", " or ", " & "]) + items[-1]
    text = text if len(items) > 1 else items[0]
    style = chance.random()
    if style < 0.3:
        text = "\n".join(f"{chance.choice('-*')} {item}" for item in items)
    if style > 0.85:
        return Document("", f"How many? {text}", str(len(items)))
    return Document("", f"List: {text}" if style < 0.6 else f"As a JSON list: {text}", canonical_json(items))


def numbers(chance: Random, words: Words) -> Document:
    """Numbers in words, halves, units and thousands, as plain numbers."""
    whole = chance.choice([*range(16), *range(20, 100)])
    tens, ones = divmod(whole, 10)
    spelt = SMALL[whole] if whole < 16 else TENS[tens - 2] + (f" {SMALL[ones]}" if ones else "")
    unit = chance.choice(words["unit"])
    tenth = round(chance.uniform(0.1, 9.9), 1)
    forms: list[tuple[str, float]] = [
        (spelt, whole),
        (f"{spelt} {unit}", whole),
        (f"{spelt} and a half", whole + 0.5),
        (f"about {whole}.5{unit}", whole + 0.5),
        (f"{whole} point {SMALL[ones]}", float(f"{whole}.{ones}")),
        (f"{tenth} km in m", round(tenth * 1000)),
        (f"{whole * 10} mm in cm", whole),
        (f"{whole or 1},{ones}00", int(f"{whole or 1}{ones}00")),
        (f"{tenth} {unit}", tenth),
        (f"{whole}%", whole),
        (f"roughly {tenth}{unit}", tenth),
    ]
    text, answer = chance.choice(forms)
    return Document("", f"Number: {text}", canonical_json(answer))


def log_line(chance: Random, words: Words) -> Document:
    clock = f"{chance.randint(0, 23):02}:{chance.randint(0, 59):02}:{chance.randint(0, 59):02}"
    level, part = chance.choice(["DEBUG", "INFO", "WARN", "ERROR"]), chance.choice(words["tech"])
    text = " ".join(some_words(chance, words, 2, 4))
    code = chance.choice([200, 201, 301, 400, 404, 409, 500, 503, None])
    form = chance.choice(["{0} {1} {2}: {3}", "[{0}] {1} ({2}) {3}", "{1} {0} {2} - {3}"])
    line = form.format(clock, level, part, text) + (f" code={code}" if code else "")
    answer = {"time": clock, "level": level.lower(), "part": part, "message": text, "code": code}
    return Document(chance.choice(JSON_ONLY), f"Log to JSON: {line}", canonical_json(answer))


def telling(chance: Random, words: Words) -> Document:
    """An event in JSON, told in one line."""
    who, other = chance.sample(words["name"], 2)
    thing, how, count = chance.choice(words["noun"]), chance.choice(words["adjective"]), chance.randint(2, 60)
    event = chance.choice(["buys", "hits", "sends", "loses", "finds", "opens"])
    facts = {"event": event, "by": who, "to": other, "thing": thing, "mood": how, "count": count}
    dropped = set(chance.sample(["to", "mood", "count"], chance.randint(0, 2)))
    facts = {name: fact for name, fact in facts.items() if name not in dropped}
    line = f"{who} {event} {count if 'count' in facts else 'a'} {thing}" + (f" for {other}" if "to" in facts else "")
    return Document("", f"Tell it: {canonical_json(facts)}", line + (f", how {how}!" if "mood" in facts else "."))
