"""Times llama.cpp's decoding alone, as llama-bench's tg does: one token at a time, random ones, nothing is sampled.

Run by benchmarks/vocab.py in a Python with llama-cpp-python: llama_peer.py <model.gguf> <threads> <tokens>
Prints tokens per second, the median of five times so many tokens.
"""

import ctypes
import random
import statistics
import sys
import time

import llama_cpp


@llama_cpp.llama_log_callback
def silent(*_: object) -> None:
    pass


def main() -> None:
    path, threads, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 512, threads, threads
    context = llama_cpp.llama_init_from_model(model, settings)
    ids = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    # the first reads the file
    speeds = [speed(context, ids, tokens) for _ in range(6)][1:]
    print(statistics.median(speeds))


def speed(context: llama_cpp.llama_context_p, ids: int, tokens: int) -> float:
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    token = (ctypes.c_int32 * 1)()
    started = time.perf_counter()
    for _ in range(tokens):
        token[0] = random.randrange(ids)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1)):
            sys.exit("llama_decode failed")
        llama_cpp.llama_synchronize(context)
    return tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
