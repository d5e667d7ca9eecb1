#!/bin/sh
# Puts the pi/ folder of a package to use on a Raspberry Pi: checks the machine and the files, then tells Ollama of it.
# Run: sh install.sh <package>/pi
# It downloads nothing and changes nothing but Ollama's own store. Exit codes: 0 done, 2 wrong argument, 65 wrong files,
# 69 this machine will not do.
set -eu

fail() { code=$1; shift; echo "install: $*" >&2; exit "$code"; }

[ $# -eq 1 ] || fail 2 "want one argument, the pi folder of a package: sh install.sh <package>/pi"
[ -f "$1/bundle.txt" ] || fail 2 "$1 is no pi folder of a package: it has no bundle.txt. Export with the key pi set."
cd "$1"

model='' gguf='' memory_mib='' num_ctx=''
while read -r key value; do
  case $key in
    model) model=$value ;;
    gguf) gguf=$value ;;
    memory_mib) memory_mib=$value ;;
    num_ctx) num_ctx=$value ;;
    *) fail 65 "bundle.txt has a line '$key' that this script does not know" ;;
  esac
done <bundle.txt
case "$model$gguf" in '' | *[!A-Za-z0-9._-]*) fail 65 "bundle.txt names a model or a file with odd characters" ;; esac
case "$memory_mib$num_ctx" in '' | *[!0-9]*) fail 65 "bundle.txt has no numbers for memory_mib and num_ctx" ;; esac

# the files first: a wrong one is wrong on every machine
command -v sha256sum >/dev/null || fail 69 "sha256sum is not there; install coreutils"
grep -q "^[0-9a-f]\{64\}  $gguf\$" SHA256SUMS.txt || fail 65 "SHA256SUMS.txt has no line for $gguf"
grep -q "^[0-9a-f]\{64\}  Modelfile\$" SHA256SUMS.txt || fail 65 "SHA256SUMS.txt has no line for Modelfile"
sha256sum --check --strict --quiet SHA256SUMS.txt \
  || fail 65 "the files are not those of the package; copy the folder again"

machine=$(uname -m)
[ "$machine" = aarch64 ] || fail 69 "this machine is $machine; want a 64-bit ARM system (aarch64)"
bits=$(getconf LONG_BIT)
[ "$bits" = 64 ] || fail 69 "programs here have $bits bits; install the 64-bit Raspberry Pi OS"
free_mib=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
[ "$free_mib" -ge "$memory_mib" ] \
  || fail 69 "$free_mib MiB of memory are free, want $memory_mib: close programs, or take a smaller artifact"

if command -v ollama >/dev/null; then
  ollama create "$model" -f Modelfile \
    || fail 69 "ollama could not take the model; is its service running? systemctl status ollama"
  echo "installed $model in Ollama; next: sh smoke.sh $1"
elif command -v llama-server >/dev/null; then
  echo "no ollama on PATH; llama-server is there. Start it in $1 with:"
  echo "  llama-server -m $gguf --alias $model -c $num_ctx -np 1 --temp 0 --top-k 1 \\"
  echo "    --offline --no-ui --cors-origins localhost --host 127.0.0.1 --port 8080"
  echo "next: sh smoke.sh $1 http://127.0.0.1:8080"
else
  fail 69 "neither ollama nor llama-server is on PATH; install Ollama, or build llama.cpp"
fi
