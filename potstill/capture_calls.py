"""What of a model call becomes an exemplar: its texts, as LiteLLM or the caller has them, or the reason why it is none.

Only what is named here is kept. Keys, headers, addresses and user ids of a call are never looked at.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from potstill.files import canonical_json

# reason -> what it means; capture.counts() counts by them
REASONS = {
    "several_turns": "the prompt has turns of the assistant or of tools; an exemplar is one question and its answer",
    "no_prompt": "there is no text of the user",
    "not_text": "the prompt has parts that are no text, such as images",
    "tool_call": "the answer calls tools",
    "cut_off": "the answer was cut off (finish_reason length): raise max_tokens",
    "filtered": "the provider's filter stopped the answer",
    "unfinished": "the provider did not say that the answer ended",
    "refusal": "the model declined to answer",
    "empty_answer": "the answer has no text",
    "several_answers": "the call asked for several answers, and nobody said which was used",
    "redacted": "LiteLLM redacts the texts (turn_off_message_logging)",
    "cache_hit": "the answer came from LiteLLM's cache: its first call was captured",
    "failed_call": "the call failed",
    "malformed": "task, slot_specs or metadata are not what docs/contracts.md asks for",
    "not_written": "the spool could not be written",
    "no_database": "no database was named, and the working folder is no Potstill project",
    # nothing is wrong with these two: they are counted, and no warning tells of them
    "no_task": "no task was named, so the call is none of ours",
    "other_call": "the call is no chat completion",
}
SILENT = ("no_task", "other_call")
CALL_TYPES = ("completion", "acompletion")
PARAMS = (
    "temperature",
    "top_p",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "frequency_penalty",
    "presence_penalty",
    "stop",
    "reasoning_effort",
)
FENCE = re.compile(r"^```(?:json)?[ \t]*\n(.*?)\n?```$", re.DOTALL)
REDACTED = "redacted-by-litellm"
FINISHED = ("stop",)


class Skipped(Exception):
    """Why a call is no exemplar: a key of REASONS."""

    def __init__(self, reason: str):
        super().__init__(REASONS[reason])
        self.reason = reason


class Call(NamedTuple):
    """`system` is what the caller names, in place of the chat's own; `metadata` is the row's."""

    id: str
    task: Any
    messages: Sequence[Any]
    response: str
    system: Any
    slot_specs: Any
    metadata: dict[str, Any]


def logger(
    succeeded: Callable[[Mapping[str, Any], Any], None], failed: Callable[[Mapping[str, Any]], None], in_thread: bool
) -> Any:
    """A CustomLogger of LiteLLM's. `in_thread`: the work takes milliseconds, which an event loop has better use for."""
    import asyncio

    from litellm.integrations.custom_logger import CustomLogger

    class Capture(CustomLogger):
        # LiteLLM passes the arguments by these names
        def log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            succeeded(kwargs, response_obj)

        async def async_log_success_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            if in_thread:
                await asyncio.to_thread(succeeded, kwargs, response_obj)
            else:
                succeeded(kwargs, response_obj)

        def log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            failed(kwargs)

        async def async_log_failure_event(self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any) -> None:
            failed(kwargs)

    return Capture()


def of_event(event: Mapping[str, Any], response: Any, task: str | None) -> Call:
    """The call of a success event of LiteLLM. Raises Skipped."""
    marks = marks_of(event, task)
    if event.get("cache_hit"):
        raise Skipped("cache_hit")
    return Call(
        id=str(event.get("litellm_call_id") or ""),
        task=marks.pop("task", None) or task,
        messages=event.get("messages") or [],
        response=answer(response),
        system=marks.pop("system", None),
        slot_specs=marks.pop("slot_specs", None),
        metadata={**_facts(event, response), **marks},
    )


def marks_of(event: Mapping[str, Any], task: str | None) -> dict[str, Any]:
    """The block `potstill` of the call's metadata. Raises Skipped when the call is none of ours."""
    if event.get("call_type") not in CALL_TYPES:
        raise Skipped("other_call")
    given = event.get("litellm_params") or {}
    blocks = [given.get(name) for name in ("metadata", "litellm_metadata")]
    found = [block["potstill"] for block in blocks if isinstance(block, Mapping) and "potstill" in block]
    marks: Any = found[0] if found else {}
    # metadata={"potstill": False} keeps one call out
    if marks is False:
        raise Skipped("no_task")
    if not isinstance(marks, Mapping):
        raise Skipped("malformed")
    if not (marks.get("task") or task):
        raise Skipped("no_task")
    return dict(marks)


def _facts(event: Mapping[str, Any], response: Any) -> dict[str, Any]:
    model, provider = str(event.get("model") or ""), event.get("custom_llm_provider")
    facts: dict[str, Any] = {"model": model if not provider or "/" in model else f"{provider}/{model}"}
    usage = getattr(response, "usage", None)
    for name in ("prompt_tokens", "completion_tokens"):
        count = getattr(usage, name, None)
        if isinstance(count, int):
            facts[name] = count
    if isinstance(event.get("response_cost"), float):
        facts["cost_usd"] = event["response_cost"]
    params = event.get("optional_params") or {}
    if kept := {name: params[name] for name in PARAMS if params.get(name) is not None}:
        facts["params"] = kept
    return facts


def answer(response: Any) -> str:
    """The text of a finished answer. Raises Skipped."""
    choices = getattr(response, "choices", None) or []
    if len(choices) > 1:
        raise Skipped("several_answers")
    if not choices:
        raise Skipped("empty_answer")
    message = getattr(choices[0], "message", None)
    finish = getattr(choices[0], "finish_reason", None)
    if getattr(message, "tool_calls", None) or getattr(message, "function_call", None):
        raise Skipped("tool_call")
    if finish == "length":
        raise Skipped("cut_off")
    if finish == "content_filter":
        raise Skipped("filtered")
    if getattr(message, "refusal", None):
        raise Skipped("refusal")
    if finish not in FINISHED:
        raise Skipped("unfinished")
    content = getattr(message, "content", None)
    if not isinstance(content, str) or not content.strip():
        raise Skipped("empty_answer")
    return content


def turn(messages: Sequence[Any]) -> tuple[str | None, str]:
    """(system text, user text) of a chat of one turn; texts of one role are joined by an empty line. Raises Skipped."""
    texts: dict[str, list[str]] = {"system": [], "user": []}
    for message in messages:
        # an answer of LiteLLM's that was put back into the chat is no dict
        found = message if isinstance(message, Mapping) else getattr(message, "__dict__", {})
        role = "system" if found.get("role") == "developer" else found.get("role")
        if role not in texts:
            raise Skipped("several_turns")
        texts[role].append(_text(found.get("content")))
    if any(text == REDACTED for text in texts["user"]):
        raise Skipped("redacted")
    prompt = "\n\n".join(text for text in texts["user"] if text.strip())
    if not prompt:
        raise Skipped("no_prompt")
    system = "\n\n".join(text for text in texts["system"] if text.strip())
    return system or None, prompt


def _text(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise Skipped("not_text")
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise Skipped("not_text")
    return "".join(map(str, texts))


def column(response: str) -> str:
    """An answer as the table's JSON column can hold it: as it is when it is JSON, else as a JSON string.

    Models wrap JSON in a Markdown fence; the fence is no part of the answer.
    """
    fenced = FENCE.match(response.strip())
    for text in (response, fenced[1] if fenced else ""):
        if _is_json(text):
            return text
    return json.dumps(response, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        # what Python reads and DuckDB does not: NaN, a lone surrogate in an escape
        canonical_json(json.loads(text)).encode()
    except (ValueError, RecursionError):
        return False
    return True


def plain(value: Any) -> Any:
    """The same value as JSON can hold it: what is neither text, number, list nor object becomes text."""
    if isinstance(value, str):
        # pairs of surrogates become their character, lone ones the replacement character
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return plain(str(value))
