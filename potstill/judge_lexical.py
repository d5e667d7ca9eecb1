"""`embedded/lexical`: a provider of our own inside LiteLLM that compares words and characters. It is not an LLM."""

from typing import Any

from potstill.fences import FENCED, FENCED_PAIR
from potstill.files import canonical_json

REASON = "words and characters compared, not an LLM"
# two candidates whose similarities are this close are alike
TIE = 0.005


def provider() -> Any:
    from litellm.llms.custom_llm import CustomLLM, CustomLLMError

    class Lexical(CustomLLM):
        def completion(self, *, model: str, messages: list[Any], model_response: Any, **_: Any) -> Any:  # type: ignore[override]
            content = answer(messages[-1]["content"]) if model == "lexical" else None
            if content is None:
                raise CustomLLMError(400, f"embedded/{model} found no fenced texts")
            model_response.choices[0].message.content = content
            model_response.model = model
            return model_response

        async def acompletion(self, **arguments: Any) -> Any:
            return self.completion(**arguments)

    return Lexical()


def answer(prompt: str) -> str | None:
    """The verdict on the fenced texts of a prompt; None where there are none."""
    if found := FENCED_PAIR.search(prompt):
        first, second = (similarity(found["reference"], found[name]) for name in ("first", "second"))
        closer = "tie" if abs(first - second) < TIE else "A" if first > second else "B"
        return canonical_json({"closer": closer, "reason": REASON})
    if found := FENCED.search(prompt):
        return canonical_json({"score": similarity(found["reference"], found["candidate"]), "reason": REASON})
    return None


def similarity(a: str, b: str) -> float:
    """0 to 1: the mean of the similarity in order and that with the words sorted; case and punctuation do not count."""
    from rapidfuzz import fuzz, utils

    left, right = utils.default_process(a), utils.default_process(b)
    if not left or not right:
        return float(a.strip() == b.strip())
    return round((fuzz.ratio(left, right) + fuzz.token_sort_ratio(left, right)) / 200, 4)
