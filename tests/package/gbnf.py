"""Reads the part of GBNF that potstill/llama_grammar.py writes, as one regular expression: its rules do not recurse."""

import re


def pattern(grammar: str) -> re.Pattern[str]:
    rules = dict(line.split(" ::= ", 1) for line in grammar.strip().splitlines())
    return re.compile(_expression(rules["root"], rules))


def _expression(body: str, rules: dict[str, str]) -> str:
    made, at = "", 0
    while at < len(body):
        if body[at] == '"':
            end = at + 1
            while body[end] != '"':
                end += 2 if body[end] == "\\" else 1
            made += "(?:" + re.escape(re.sub(r"\\(.)", r"\1", body[at + 1 : end])) + ")"
            at = end + 1
        elif body[at] == "[":
            # a character class is written alike, but for a bracket inside of it
            end = body.index("]", at)
            made += body[at : end + 1]
            at = end + 1
        elif body[at] == "{":
            end = body.index("}", at)
            made += body[at : end + 1]
            at = end + 1
        elif body[at].isalpha():
            name = re.match(r"[a-z0-9]+", body[at:])[0]
            made += f"(?:{_expression(rules[name], rules)})"
            at += len(name)
        else:
            made += {" ": "", "(": "(?:"}.get(body[at], body[at])
            at += 1
    return made
