"""Runs in .venv-vllm: what vLLM's own parser makes of a served command, and what it says to fp16.

Run: .venv-vllm/bin/python vllm_reads.py '["vllm", "serve", ".", ...]' <model folder>       prints JSON
"""

import json
import sys


def main() -> None:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.cli import serve
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words, folder = json.loads(sys.argv[1]), sys.argv[2]
    parser = FlexibleArgumentParser()
    serve.cmd_init()[0].subparser_init(parser.add_subparsers(dest="subcommand"))
    # it looks at the words of the program that it takes itself for
    sys.argv = words
    arguments = parser.parse_args(words[1:])
    said = {}
    for dtype in ("bfloat16", "float16"):
        try:
            said[dtype] = str(EngineArgs(model=folder, dtype=dtype, max_model_len=64).create_model_config().dtype)
        except ValueError as error:
            said[dtype] = str(error)
    structured = arguments.structured_outputs_config
    found = {
        "dtype": arguments.dtype,
        "context": arguments.max_model_len,
        "name": arguments.served_model_name,
        "prefix_caching": arguments.enable_prefix_caching,
        "sampling": arguments.override_generation_config,
        "structured": [structured.backend, structured.disable_any_whitespace],
        "speculative": arguments.speculative_config,
        "host": arguments.host,
        "said": said,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
