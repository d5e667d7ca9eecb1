#!/bin/sh
# Asks an installed model one question and checks that the answer is JSON with the keys it must have.
# Run: sh smoke.sh <package>/pi                           by Ollama
#      sh smoke.sh <package>/pi http://127.0.0.1:8080     by llama-server
# Prints the answer and its tokens per second. Exit codes: 0 good, 2 wrong argument, 65 wrong answer or bundle,
# 69 nothing answers.
set -eu

fail() { code=$1; shift; echo "smoke: $*" >&2; exit "$code"; }

[ $# -eq 1 ] || [ $# -eq 2 ] || fail 2 "want the pi folder of a package, and for llama-server its address"
[ -f "$1/bundle.txt" ] || fail 2 "$1 is no pi folder of a package: it has no bundle.txt"
cd "$1"
command -v python3 >/dev/null || fail 69 "python3 is not there, and JSON is checked with it"
model=$(sed -n 's/^model //p' bundle.txt)
case $model in '' | -* | *[!A-Za-z0-9._-]*) fail 65 "bundle.txt names no model, or one with odd characters" ;; esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 75' HUP INT TERM

if [ $# -eq 1 ]; then
  command -v ollama >/dev/null \
    || fail 69 "ollama is not on PATH; for llama-server give its address: sh smoke.sh $1 http://127.0.0.1:8080"
  # it says how fast it was on its standard error
  ollama run "$model" --verbose <prompt.txt >"$work/answer" 2>"$work/said" \
    || fail 69 "ollama did not answer: $(tail -n 1 "$work/said")"
else
  case $2 in
    http://127.0.0.1:* | http://localhost:* | http://\[::1\]:*) ;;
    *) fail 2 "$2 is not on this machine" ;;
  esac
  command -v curl >/dev/null || fail 69 "curl is not there"
  curl -sS --fail-with-body --max-time 300 --noproxy '*' -H 'Content-Type: application/json' \
    --data-binary @request.json "$2/v1/chat/completions" >"$work/reply" 2>"$work/said" \
    || fail 69 "$2 did not answer: $(cat "$work/said")"
fi

python3 - "$work" keys.txt <<'PYTHON'
import json
import re
import sys
from pathlib import Path


def wrong(words):
    print(f"smoke: {words}", file=sys.stderr)
    sys.exit(65)


work, keys = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8").split()
if (work / "reply").exists():
    reply = json.loads((work / "reply").read_text(encoding="utf-8"))
    answer = reply["choices"][0]["message"]["content"]
    rate = reply.get("timings", {}).get("predicted_per_second")
else:
    answer = (work / "answer").read_text(encoding="utf-8", errors="replace").strip()
    said = (work / "said").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^eval rate:\s+([0-9.]+) tokens/s", said, re.MULTILINE)
    rate = float(found[1]) if found else None
print(answer)
try:
    value = json.loads(answer)
except ValueError as error:
    wrong(f"the answer is not JSON: {error}")
missing = [key for key in keys if not isinstance(value, dict) or key not in value]
if missing:
    wrong(f"the answer has no key {', '.join(missing)}")
print(f"smoke: the answer has every key; {'speed unknown' if rate is None else f'{rate:.1f} tokens/s'}")
PYTHON
