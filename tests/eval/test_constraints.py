"""Constrained decoding with the nano base, which has learnt none of these jobs: by itself it keeps to no schema."""

import json
from typing import Annotated, Literal

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field

from potstill import answers, constraints, gemma3, models, prompt, workload
from potstill.stop import Stop
from projects import REPO

TEXTS = ["Mango Kush, 12.50 EUR, 3 left", 'say "no" \\ and {"name": 1}', "", "Grüße 日本 \u202e"]


# short, because a base that has learnt nothing repeats itself up to any bound
Short = Annotated[str, Field(max_length=12)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: Short
    size: Literal["small", "large"]


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Short | None
    kind: Literal["fruit", "seed", "other"]
    sold: bool
    parts: Annotated[list[Part], Field(max_length=2)]


@pytest.fixture(scope="module")
def nano():
    return models.load_folder(REPO / "models/nano", torch.float32)


def asked(model, tokenizer, texts: list[str], schema: dict | None, most: int = 120) -> dict[int, models.Generated]:
    prompts = [prompt.prompt_ids("Answer with the object.", text, tokenizer) for text in texts]
    schemas = [schema] * len(prompts) if schema else None
    return {found.index: found for found in models.generate(model, tokenizer, prompts, most, schemas=schemas)}


def test_every_finished_answer_keeps_to_the_schema(nano):
    model, tokenizer = nano
    found = asked(model, tokenizer, TEXTS, Thing.model_json_schema())
    free = asked(model, tokenizer, TEXTS, None)
    for index in range(len(TEXTS)):
        assert found[index].finish_reason == "stop"
        output = tokenizer.decode(found[index].ids, skip_special_tokens=True)
        Thing.model_validate_json(output)
        assert output == json.dumps(json.loads(output), separators=(",", ":"), ensure_ascii=False)
    assert any(not answers.parse(tokenizer.decode(one.ids)).valid_json for one in free.values())


def test_transformers_own_loop_keeps_to_it_as_well(nano, monkeypatch: pytest.MonkeyPatch):
    model, tokenizer = nano
    schema = Part.model_json_schema()
    ours = {index: found.ids for index, found in asked(model, tokenizer, TEXTS, schema, 60).items()}
    monkeypatch.setattr(gemma3, "supports", lambda model: False)
    theirs = asked(model, tokenizer, TEXTS, schema, 60)
    for index, ids in ours.items():
        texts = [tokenizer.decode(each, skip_special_tokens=True) for each in (ids, theirs[index].ids)]
        # what is forced may be cut into tokens in another way, so the texts may differ, but both keep to the schema
        for text in texts:
            Part.model_validate_json(text)


@pytest.mark.parametrize("name", ["batfit", "blazed_deals", "coach", "cricket", "sibyl"])
def test_the_schemas_of_every_workload_can_constrain(nano, name: str):
    model, tokenizer = nano
    grammar = constraints.Grammar(tokenizer, models.stop_ids(model, tokenizer))
    for schema in workload.load(name).schemas.values():
        matcher = grammar.matcher(schema.model_json_schema())
        assert matcher.allowed(len(tokenizer)).any()


def test_open_strings_and_lists_are_bounded_and_a_schemas_own_bounds_win():
    class Own(BaseModel):
        free: str
        short: str
        many: list[str]

    schema = Own.model_json_schema()
    schema["properties"]["short"]["maxLength"] = 5
    found = constraints.bounded(schema)["properties"]
    assert found["free"]["maxLength"] == constraints.MAX_CHARS
    assert found["short"]["maxLength"] == 5
    assert found["many"] == {
        "items": {"maxLength": constraints.MAX_CHARS, "type": "string"},
        "maxItems": constraints.MAX_ITEMS,
        "title": "Many",
        "type": "array",
    }
    assert "maxLength" not in schema["properties"]["free"]


def test_a_schema_that_cannot_constrain_is_refused(nano):
    model, tokenizer = nano
    grammar = constraints.Grammar(tokenizer, models.stop_ids(model, tokenizer))
    with pytest.raises(Stop, match="cannot constrain answers"):
        grammar.matcher({"type": "object", "properties": {"a": {"$ref": "#/$defs/nowhere"}}})


def test_tokens_against_the_grammar_are_an_error(nano):
    model, tokenizer = nano
    matcher = constraints.Grammar(tokenizer, models.stop_ids(model, tokenizer)).matcher(Part.model_json_schema())
    with pytest.raises(ValueError, match="against the grammar"):
        matcher.take(tokenizer("no object", add_special_tokens=False).input_ids)
