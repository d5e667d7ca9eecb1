"""Renders a chat template, or loads a SentencePiece model, of a package nobody has vouched for yet.

Run by potstill/contents.py as a program of its own: python -I untrusted.py template|sentencepiece, the input on stdin
and {"problem": null or text, "texts": [...]} on stdout. It may use a few seconds and 1 GiB, opens no file and writes
none. The template gets what transformers gives it: Jinja's immutable sandbox, loop controls and the same functions.
"""

import codecs
import json
import math
import resource
import sys
import time
from typing import Any

CPU_S = 2
MEMORY_BYTES = 2**30
MAX_TEXT = 100_000


class Refused(Exception):
    pass


def limit() -> None:
    """After the imports: no more than these seconds and bytes, no new file, no core dump."""
    until = math.ceil(time.process_time()) + CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (until, until + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))


def render(data: bytes) -> list[str]:
    """`data`: {"template", "conversations": [messages]} as JSON; a text for each conversation."""
    # Jinja imports its debug module only when something goes wrong, and by then no file can be opened
    import jinja2.debug  # noqa: F401
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %}, which marks what is trained on, is its body."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Environment(ImmutableSandboxedEnvironment):
        # Jinja would print an unsafe attribute as nothing; here asking for one is the end
        def unsafe_undefined(self, obj: object, attribute: str) -> Any:
            raise SecurityError(f"asks for {attribute!r}, which the sandbox gives to no template")

    def raise_exception(message: str) -> None:
        raise Refused(f"refuses a plain conversation: {str(message)[:200]}")

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)

    asked = json.loads(data)
    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    # a date would make the prompt another one each day than the one trained
    environment.globals |= {"raise_exception": raise_exception}
    # Python opens this one when a template first has a text in it
    codecs.lookup("unicode_escape")
    limit()
    try:
        tree = environment.parse(asked["template"])
        for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            raise Refused(f"loads another file (line {node.lineno})")
        for named in tree.find_all((nodes.Getattr, nodes.Const, nodes.Filter)):
            check_name(named)
        template = environment.from_string(asked["template"])
        return [text_of(template, conversation) for conversation in asked["conversations"]]
    except SecurityError as error:
        raise Refused(str(error)) from None
    except TemplateError as error:
        raise Refused(f"does not render: {str(error)[:200]}") from None


def check_name(node: Any) -> None:
    """Refuses names that only Python's internals have, also in branches that no conversation here enters."""
    name = getattr(node, "attr", None) or getattr(node, "value", None) or getattr(node, "name", None)
    # in a Const an attribute is asked for by text, as in x['__class__'] or x|map(attribute='__class__')
    internal = isinstance(name, str) and name.startswith("__") and name.endswith("__") and name[2:-2].isidentifier()
    if internal or (type(node).__name__ == "Getattr" and str(name).startswith("_")):
        raise Refused(f"asks for {name!r}, an internal of Python (line {node.lineno})")
    if type(node).__name__ == "Filter" and name == "attr":
        raise Refused(f"asks for attributes by a computed name (line {node.lineno})")


def text_of(template: Any, conversation: list[dict[str, str]]) -> str:
    parts, length = [], 0
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    for part in template.generate(messages=conversation, add_generation_prompt=True, **tokens):
        parts.append(part)
        length += len(part)
        if length > MAX_TEXT:
            raise Refused(f"makes more than {MAX_TEXT} characters of one short conversation")
    return "".join(parts)


def load_pieces(data: bytes) -> list[str]:
    """Loads `data` as SentencePiece does; the number of its pieces as the only text."""
    from sentencepiece import SentencePieceProcessor

    limit()
    try:
        pieces = SentencePieceProcessor(model_proto=data)
    except (RuntimeError, OSError, ValueError, TypeError):
        raise Refused("is not a SentencePiece model") from None
    return [str(pieces.vocab_size())]


def main() -> None:
    work = {"template": render, "sentencepiece": load_pieces}[sys.argv[1]]
    data = sys.stdin.buffer.read()
    problem: str | None = None
    texts: list[str] = []
    try:
        texts = work(data)
    except Refused as refused:
        problem = str(refused)
    except (MemoryError, RecursionError, OverflowError):
        problem = "needs more memory or depth than anything believable"
    except Exception as error:  # hostile input ends in any of Jinja's and Python's errors
        problem = f"does not render: {type(error).__name__}"
    sys.stdout.write(json.dumps({"problem": problem, "texts": texts}))


if __name__ == "__main__":
    main()
