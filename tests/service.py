"""An OpenAI-compatible server on this machine, well and badly behaved, for tests that ask a model over HTTP."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# what the server says that every call used
USED = {"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050}
Fault = tuple[str, object]


class Service:
    """An OpenAI-compatible server. `misbehave(number of the request, its prompt)` gives a fault, or None."""

    def __init__(self):
        self.known: dict[str, str] = {}
        self.asked: list[dict] = []
        self.misbehave: Callable[[int, str], Fault | None] = lambda number, prompt: None
        self.lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                with service.lock:
                    service.asked.append({"path": self.path, "at_s": time.monotonic(), **body})
                    number = len(service.asked)
                self.right = service.known[prompt]
                service.reply(self, service.misbehave(number, prompt) or ("content", self.right))

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def reply(handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        kind, value = fault
        if kind == "hang":
            time.sleep(float(str(value)))
        if kind == "slow":
            # a right answer, after a while
            time.sleep(float(str(value)))
            kind, value = "content", handler.right
        if kind in ("hang", "close"):
            handler.close_connection = True
            return
        if kind == "raw":
            status, text = 200, str(value)
        elif kind == "status":
            status, text = (
                int(str(value).split()[0]),
                json.dumps({"error": {"message": "sk-secret-key is bad", "type": "x"}}),
            )
        else:
            finish = "length" if kind == "length" else "stop"
            message = {"role": "assistant", "content": value}
            choices = [] if kind == "no choices" else [{"index": 0, "message": message, "finish_reason": finish}]
            whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "test-model", "choices": choices}
            status, text = 200, json.dumps(whole if kind == "no usage" else {**whole, "usage": USED})
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text.encode())))
        if kind == "status" and " " in str(value):
            # "429 5": as busy for so many seconds
            handler.send_header("Retry-After", str(value).split()[1])
        handler.end_headers()
        handler.wfile.write(text.encode())

    def times_asked(self) -> Counter[str]:
        return Counter(body["messages"][-1]["content"] for body in self.asked)
