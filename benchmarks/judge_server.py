"""A judge behind HTTP that misbehaves as told: an OpenAI-compatible server for the tests and benchmarks of eval.judge.

Run: .venv/bin/python -m benchmarks.judge_server [--latency-ms 50] [--faults 0.3] [--kinds 500,reset] [--refuse-after N]
Prints its address, then serves until its input ends. It grades by words and characters, as embedded/lexical does, and
fails the canaries that only meaning can tell. GET /counts tells what it was asked, by the text `item <n>` of a prompt.
"""

import argparse
import asyncio
import email.utils
import json
import random
import re
import sys
import time
from collections import Counter, defaultdict

from potstill import judge_lexical
from potstill.judge_canaries import CANARIES

ITEM = re.compile(r"\bitem (\d+)\b")
SUBTLE = [canary.candidate for canary in CANARIES if canary.meaning]
KINDS = (
    "429 seconds",
    "429 date",
    "500",
    "502",
    "503",
    "529",
    "stall",
    "reset",
    "truncated",
    "html",
    "null",
    "prose",
    "400",
)
USAGE = {"prompt_tokens": 300, "completion_tokens": 20, "total_tokens": 320}
ZERO = '{"score": 0.0, "reason": "the opposite"}'


class Service:
    def __init__(self, latency_s: float, faults: float, kinds: list[str], refuse_after: int | None, seed: int = 1):
        self.latency_s, self.faults, self.kinds, self.refuse_after = latency_s, faults, kinds, refuse_after
        self.rng = random.Random(seed)
        self.seen: defaultdict[str, list[str]] = defaultdict(list)
        self.asked = 0
        self.outcomes: Counter[str] = Counter()

    def kind_of(self, prompt: str) -> str:
        """How the next request goes; canaries and pairwise questions, which have no item, always go well."""
        self.asked += 1
        found = ITEM.search(prompt)
        kind = "ok"
        if found and self.rng.random() < self.faults:
            kind = self.rng.choice(self.kinds)
        if self.refuse_after is not None and self.asked > self.refuse_after:
            kind = "401"
        self.outcomes[kind] += 1
        self.seen[found[1] if found else "canary"].append(kind)
        return kind

    def counts(self) -> dict[str, object]:
        items = {item: kinds for item, kinds in self.seen.items() if item != "canary"}
        return {
            "requests": self.asked,
            "outcomes": self.outcomes,
            "item_requests": sum(len(kinds) for kinds in items.values()),
            "items": len(items),
            "answered_twice": sum(kinds.count("ok") > 1 for kinds in items.values()),
            "answered": sum(kinds.count("ok") for kinds in items.values()),
            "asked_after_400": sum("400" in kinds[:-1] for kinds in items.values()),
        }


class Connection(asyncio.Protocol):
    def __init__(self, service: Service):
        self.service, self.buffer = service, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = re.search(rb"content-length: *(\d+)", head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            body, self.buffer = self.buffer[end + 4 : whole], self.buffer[whole:]
            if head.startswith(b"get"):
                self.send(200, json.dumps(self.service.counts()))
            else:
                loop = asyncio.get_running_loop()
                loop.call_later(self.service.latency_s, self.reply, json.loads(body)["messages"][-1]["content"])

    def reply(self, prompt: str) -> None:
        if self.transport.is_closing():
            return
        kind = self.service.kind_of(prompt)
        content = ZERO if any(text in prompt for text in SUBTLE) else judge_lexical.answer(prompt)
        if kind == "stall":
            return
        if kind == "reset":
            self.transport.abort()
        elif kind == "truncated":
            self.send(200, completion(content)[:60])
        elif kind == "html":
            self.send(200, "<html><body>It works!</body></html>", "text/html")
        elif kind == "429 date":
            self.error(429, {"Retry-After": email.utils.formatdate(time.time() + 1, usegmt=True)})
        elif kind == "429 seconds":
            self.error(429, {"Retry-After": "1"})
        elif kind.isdigit():
            self.error(int(kind), {})
        else:
            self.send(200, completion(None if kind == "null" else f"Sure! {content}" if kind == "prose" else content))

    def error(self, status: int, headers: dict[str, str]) -> None:
        self.send(status, '{"error": {"message": "sk-secret-key is bad", "type": "x"}}', headers=headers)

    def send(
        self, status: int, text: str, kind: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(text.encode())}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.transport.write("\r\n".join([*lines, "", text]).encode())


def completion(content: str | None) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    return json.dumps(whole)


async def serve(service: Service) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    # whoever started it keeps its input open
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--faults", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of the faults (default: %(default)s)")
    parser.add_argument("--refuse-after", type=int, metavar="N", help="answer 401 after so many requests")
    given = parser.parse_args()
    service = Service(given.latency_ms / 1000, given.faults, given.kinds.split(","), given.refuse_after)
    asyncio.run(serve(service))


if __name__ == "__main__":
    main()
