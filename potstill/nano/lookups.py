"""Documents that ask for something that stands in them: a span, a value, a label, a cell, a choice."""

import re
from random import Random

from potstill.files import canonical_json
from potstill.nano.material import (
    JSON_ONLY,
    Document,
    Words,
    filler,
    joined,
    key,
    keys,
    number,
    sentence,
    some_words,
    typed,
    value,
    word,
)

MARKUP = [
    '<span class="{0}">{1}</span>',
    '<div id="{0}">{1}</div>',
    "<tr><th>{0}</th><td>{1}</td></tr>",
    '<meta itemprop="{0}" content="{1}">',
    "<li><b>{0}</b>: {1}</li>",
    '<p data-name="{0}">{1}</p>',
]


def copy_span(chance: Random, words: Words) -> Document:
    lines = [" ".join(some_words(chance, words, 2, 8)) for _ in range(chance.choice([1, 1, 2, 3]))]
    if chance.random() < 0.4:
        lines[0] += " " + value(chance, words)
    text = "\n".join(lines)
    roll = chance.random()
    if roll < 0.5:
        return Document("", chance.choice(["Copy: ", "Repeat:\n", "Write this again.\n", "echo "]) + text, text)
    if roll < 0.65:
        return Document("", f"{text}\nLast word of the last line?", text.split()[-1])
    if roll < 0.8:
        row = chance.randrange(len(lines))
        return Document("", f"{text}\nCopy line {row + 1}.", lines[row])
    quoted = " ".join(some_words(chance, words, 1, 4))
    text = f'{sentence(chance, words)} "{quoted}" {sentence(chance, words)}'
    return Document("", f"What is in quotes?\n{text}", quoted)


def find_value(chance: Random, words: Words) -> Document:
    names = keys(chance, words, 3, 8)
    mark = chance.choice([": ", " = ", " -> ", ":", " is ", "\t"])
    pairs = {name: value(chance, words) for name in names}
    text = chance.choice(["\n", "\n", "; ", " | "]).join(f"{name}{mark}{pairs[name]}" for name in names)
    if chance.random() < 0.15:
        absent = key(chance, words)
        return Document("", f"{text}\n{absent}?", pairs.get(absent, "null"))
    wanted = chance.choice(names)
    question = chance.choice(["{}?", "What is {}?", "Value of {}:", "Find {}."]).format(wanted)
    return Document("", f"{text}\n{question}" if chance.random() < 0.7 else f"{question}\n{text}", pairs[wanted])


def which_label(chance: Random, words: Words) -> Document:
    labels = some_words(chance, words, 3, 7)
    label = chance.choice(labels) if chance.random() < 0.85 else "null"
    talk = [filler(chance, words) for _ in range(chance.randint(1, 3))]
    clauses = [clause for clause in talk if not set(re.findall(r"\w+", clause)) & set(labels)] or ["hm"]
    if label != "null":
        form = chance.choice(["I want {}", "it is {}", "{} for me", "more like {}", "the {} one", "{}"])
        clauses.insert(chance.randint(0, len(clauses)), form.format(label))
    return Document("", f"Labels: {', '.join(labels)}\nText: {joined(chance, clauses)}", label)


def key_case(chance: Random, words: Words) -> Document:
    """A name or a value written some other way, brought back to its listed form."""
    listed = keys(chance, words, 3, 7)
    meant = chance.choice(listed)
    parts = meant.split("_")
    titled = [part.title() for part in parts]
    forms = [" ".join(parts), "-".join(parts), " ".join(titled), "".join(titled), parts[0] + "".join(titled[1:])]
    forms += [meant.upper(), " ".join(parts).upper(), f"the {' '.join(parts)} one"]
    return Document("", f"Allowed: {', '.join(listed)}\nGiven: {chance.choice(forms)}", meant)


def html_field(chance: Random, words: Words) -> Document:
    names = keys(chance, words, 2, 4)
    pairs = {name: value(chance, words) for name in names}
    form = chance.choice(MARKUP)
    noise = [f"<{tag}>{sentence(chance, words)}</{tag}>" for tag in chance.sample(["p", "h1", "nav", "footer"], 2)]
    parts = [form.format(name, pairs[name]) for name in names] + noise[: chance.randint(0, 2)]
    chance.shuffle(parts)
    page = chance.choice(["", "\n"]).join(parts)
    if chance.random() < 0.6:
        wanted = chance.choice(names)
        return Document("", f"{page}\n{wanted}?", pairs[wanted])
    answer = canonical_json({name: typed(pairs[name]) for name in names})
    return Document(chance.choice(JSON_ONLY), f"{page}\nKeys: {', '.join(names)}", answer)


def table(chance: Random, words: Words) -> Document:
    columns = keys(chance, words, 2, 4)
    rows = [[value(chance, words).replace(",", "") for _ in columns] for _ in range(chance.randint(2, 4))]
    mark = chance.choice([",", " | ", "\t", ";"])
    text = "\n".join(mark.join(row) for row in [columns, *rows])
    row, column = chance.randrange(len(rows)), chance.randrange(len(columns))
    if chance.random() < 0.5:
        return Document("", f"{text}\n{columns[column]} of row {row + 1}?", rows[row][column])
    answer = {name: typed(cell) for name, cell in zip(columns, rows[row], strict=True)}
    return Document(chance.choice(JSON_ONLY), f"{text}\nRow {row + 1} as JSON", canonical_json(answer))


def chat(chance: Random, words: Words) -> Document:
    people = chance.sample(words["name"], 3)
    lines = [(chance.choice(people), " ".join(some_words(chance, words, 2, 5))) for _ in range(chance.randint(3, 5))]
    text = "\n".join(f"{name}: {said}" for name, said in lines)
    name, said = chance.choice(lines)
    if chance.random() < 0.5:
        return Document("", f'{text}\nWho said "{said}"?', name)
    last = [words_said for who, words_said in lines if who == name][-1]
    return Document("", f"{text}\nLast from {name}?", last)


def decide(chance: Random, words: Words) -> Document:
    """The option with the best number, or the action a rule names."""
    options = some_words(chance, words, 2, 4)
    if chance.random() < 0.5:
        scores = chance.sample(range(0, 100, 5), len(options))
        best = options[scores.index(max(scores))]
        state = canonical_json({"options": dict(zip(options, scores, strict=True))})
        return Document("Pick the highest.", state, canonical_json({"pick": best}))
    field, limit, level = key(chance, words), chance.randrange(10, 90, 10), chance.randint(0, 99)
    rule = f"If {field} is under {limit}: {options[0]}, else {options[1]}."
    state = canonical_json({word(chance, words): number(chance), field: level})
    return Document(rule, state, canonical_json({"pick": options[0] if level < limit else options[1]}))
