"""llama.cpp's own quantiser, as llama-cpp-python carries it: what benchmarks/gguf.py compares with.

Run by an interpreter that has llama-cpp-python: python benchmarks/gguf_peer.py IN.gguf OUT.gguf FILE_TYPE [WEIGHTS]
WEIGHTS is a .npz of an importance matrix, FILE_TYPE the number of a llama_ftype. Prints JSON: seconds, and how many
tensors fell back as llama.cpp says.
"""

import ctypes
import json
import re
import sys
import time

import llama_cpp
import numpy as np


def main(source: str, target: str, file_type: str, importance: str | None = None) -> None:
    said: list[str] = []
    log = llama_cpp.llama_log_callback(lambda level, text, data: said.append(text.decode("utf-8", "replace")))
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = int(file_type)
    if importance:
        weights = dict(np.load(importance))
        entry = llama_cpp.llama_cpp.llama_model_imatrix_data
        # the list ends with an entry without a name
        entries = (entry * (len(weights) + 1))()
        for i, (name, values) in enumerate(weights.items()):
            data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entries[i] = entry(name.encode(), data, values.size)
        parameters.imatrix = entries
    started = time.perf_counter()
    failed = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(parameters))
    seconds = time.perf_counter() - started
    if failed:
        raise SystemExit("".join(said))
    fell_back = re.search(r"(\d+) of \d+ tensor\(s\) required fallback", "".join(said))
    print(json.dumps({"seconds": seconds, "fallbacks": int(fell_back[1]) if fell_back else 0}))


if __name__ == "__main__":
    main(*sys.argv[1:])
