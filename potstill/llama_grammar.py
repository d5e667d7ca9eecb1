"""JSON Schema -> a grammar for llama.cpp (GBNF) under which an answer is compact JSON with every key, in schema order.

llama.cpp's own conversion of a schema lets blanks and line ends stand between values; models here are trained on
compact JSON. Lengths of strings and lists are in the grammar, as far as llama.cpp counts. Patterns and bounds of
numbers are not: an answer is checked for those when it is there.

GBNF: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from typing import Any

from potstill.constraints import MAX_CHARS, MAX_ITEMS
from potstill.files import canonical_json
from potstill.stop import USAGE, Stop

# llama.cpp refuses a repetition beyond it, and each one counted costs it a rule
MOST_REPEATED = 2000
SHARED = {
    "null": '"null"',
    "boolean": '"true" | "false"',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": 'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
}
UNKNOWN = ("oneOf", "allOf", "not", "if", "patternProperties", "contains", "uniqueItems")


def grammar(schema: dict[str, Any]) -> str:
    """GBNF text. Raises Stop 2 for a schema with a keyword that it has no words for."""
    rules: dict[str, str] = {}
    root = _rule(schema, schema.get("$defs", {}), rules)
    lines = [f"root ::= {root}", *(f"{name} ::= {body}" for body, name in rules.items())]
    return "\n".join([*lines, *(f"{name} ::= {body}" for name, body in SHARED.items())]) + "\n"


def _rule(schema: dict[str, Any], known: dict[str, Any], rules: dict[str, str]) -> str:
    """The name of the rule of a schema; `rules` maps bodies to names, so that equal parts are one rule."""
    while "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    kind = schema.get("type")
    if kind in ("null", "boolean", "integer", "number") and not {"enum", "const"} & schema.keys():
        return kind
    body = _body(schema, known, rules)
    return rules.setdefault(body, f"r{len(rules)}")


def _body(schema: dict[str, Any], known: dict[str, Any], rules: dict[str, str]) -> str:
    if odd := [key for key in UNKNOWN if key in schema]:
        raise Stop(f"the schema has {odd[0]!r}, for which llama.cpp's grammar has no words here", USAGE)
    if "const" in schema:
        return _literal(canonical_json(schema["const"]))
    if "enum" in schema:
        return " | ".join(_literal(canonical_json(value)) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_rule(option, known, rules) for option in schema["anyOf"])
    if schema.get("type") == "string":
        return rf'"\"" char{_times(schema, "Length", MAX_CHARS)} "\""'
    if schema.get("type") == "array":
        return _array(schema, known, rules)
    if schema.get("type") == "object" and "properties" in schema:
        return _object(schema["properties"], known, rules)
    raise Stop(f"the schema has a part without a type that llama.cpp's grammar has words for: {sorted(schema)}", USAGE)


def _object(properties: dict[str, Any], known: dict[str, Any], rules: dict[str, str]) -> str:
    pairs = [f"{_literal(canonical_json(key) + ':')} {_rule(value, known, rules)}" for key, value in properties.items()]
    return '"{" ' + ' "," '.join(pairs) + ' "}"'


def _array(schema: dict[str, Any], known: dict[str, Any], rules: dict[str, str]) -> str:
    if "prefixItems" in schema:
        items = [_rule(item, known, rules) for item in schema["prefixItems"]]
        return '"[" ' + ' "," '.join(items) + ' "]"'
    item = _rule(schema["items"], known, rules)
    least, most = schema.get("minItems", 0), schema.get("maxItems", MAX_ITEMS)
    if most == 0:
        return '"[]"'
    following = rules.setdefault(f'"," {item}', f"r{len(rules)}")
    filled = f"{item} {following}{{{max(least - 1, 0)},{most - 1}}}"
    return f'"[" {filled} "]"' if least else f'"[" ({filled})? "]"'


def _times(schema: dict[str, Any], unit: str, most: int) -> str:
    least, most = schema.get(f"min{unit}", 0), schema.get(f"max{unit}", most)
    return f"{{{least},{most}}}" if most <= MOST_REPEATED else f"{{{least},}}"


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
