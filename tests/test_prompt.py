import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potstill import models, prompt
from potstill.records import Example
from potstill.stop import Stop
from projects import REPO

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(REPO / "models/nano")


def example(prompt_text: str = "slow deck", response: str = '{"a":null}', system: str = "Be brief.") -> Example:
    return Example(
        id="1",
        task="t",
        system=system,
        prompt=prompt_text,
        response=response,
        slots={},
        metadata={},
        schema_version="1",
        source_sha256="",
    )


def test_a_conversation_is_rendered_as_gemma_renders_it(tokenizer):
    rendered = prompt.render(example(), tokenizer)
    assert tokenizer.decode(rendered.prompt_ids) == (
        "<bos><start_of_turn>user\nBe brief.\n\nslow deck<end_of_turn>\n<start_of_turn>model\n"
    )
    assert tokenizer.decode(rendered.completion_ids) == '{"a":null}<end_of_turn>'


def test_no_system_text_leaves_no_blank_line(tokenizer):
    ids = prompt.render(example(system=""), tokenizer).prompt_ids
    assert tokenizer.decode(ids) == "<bos><start_of_turn>user\nslow deck<end_of_turn>\n<start_of_turn>model\n"


@settings(max_examples=60, deadline=None)
@given(prompt_text=texts.map(str.strip).filter(bool), answer=texts.map(str.strip).filter(bool))
def test_prompt_and_completion_are_the_ids_of_the_whole_conversation(tokenizer, prompt_text, answer):
    rendered = prompt.render(example(prompt_text, answer), tokenizer)
    whole = [*rendered.messages, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    ids = tokenizer(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
    assert rendered.prompt_ids + rendered.completion_ids == ids


def test_an_answer_the_template_would_trim_is_refused(tokenizer):
    with pytest.raises(Stop, match="example 1: the response starts or ends with whitespace"):
        prompt.render(example(response='{"a":1}\n'), tokenizer)
