"""A Fabric task made of a function: its options are the function's parameters, with the help that all tasks share."""

import inspect
from collections.abc import Callable
from typing import Any

import fabric

# by the option's name, which means the same wherever it stands; a script's own --help says more
HELP = {
    "workload": "default: the one in configs/project.yaml",
    "run": "default: the newest run of the workload",
    "config": "name of a YAML file of the stage's configs",
    "override": "key=value, overrides a key of the config; repeatable",
    "dry_run": "say what would be written or sent, and do neither",
    "seed": "of the generator",
    "count": "how many exemplars",
    "source": "[user@]host:/path/x.duckdb, or a local path",
    "port": "of SSH",
    "bwlimit": "at most so many KiB a second",
    "id": "of a row",
    "number": "how many rows to show",
    "split": "train, val or test",
    "full": "shorten nothing",
    "old": "the older snapshot, such as v1",
    "new": "the newer snapshot",
    "domain": "rows of this domain and of those below it",
    "tenant": "rows of this tenant",
    "no_consent": "rows whose metadata.consent is false now",
    "reason": "kept in the tombstone; name no person",
    "backend": "merged, base or null",
    "limit": "only the first N rows",
    "filter": "key=value: only rows with this task, or this metadata value",
    "constrained": "hold answers to the task's JSON Schema",
    "answers": "their name; default: made of --backend or --model",
    "model": "a LiteLLM name, such as openai/gpt-4o-mini or hosted_vllm/<served name>",
    "api_base": "address of an OpenAI-compatible server of your own",
    "max_cost": "a cap in USD",
    "price": "IN,OUT in USD per million tokens, where LiteLLM knows none",
    "max_tokens": "of an answer",
    "concurrency": "calls at once",
    "retries": "of a call that fails and may not fail again",
    "timeout": "of a call, in seconds",
    "yes": "spend without asking",
    "taught": "give the model dataset.generate's instructions: a strong model",
    "retry_errors": "ask again where the last try ended in an error",
    "predictions": "merged, base, val, ...; repeatable",
    "partial": "take answers to some of the rows",
    "pairwise": "A,B: which of two answers is closer to the reference",
    "gate": "exit 100 when the gate rejects, 101 when it cannot tell",
    "promote": "--gate, and on promote make this the promoted run",
    "baseline": "an earlier run, or: promoted",
    "labels": "a filled-in sheet",
    "sample": "write a sheet of so many judged answers",
    "days": "how long the certificate holds",
    "a": "RUN[:ANSWERS]; default: the newest run of the workload",
    "b": "RUN[:ANSWERS]; default: the base of a",
    "samples": "time both sides on so many test rows",
    "artifact": "of the package, such as gguf-q8_0; default: the merged model",
    "task": "default: the workload's first task",
    "compare": "ask the untuned base as well",
    "message": "ask this once, and end: 0 when the answer is valid, 65 when not",
    "example": "ask the row of the snapshots that has this id, and compare with its reference",
    "folder": "a package folder, wherever it is",
    "measure": "take 20 real steps, and keep nothing of them",
    "price_per_hour": "of this host, in USD",
    "processes": "how many train together, one to a GPU; on a CPU by gloo",
    "auto_batch": "halve the batch where memory does not suffice; the rows to a step stay",
    "all": "ask every engine that is there, not only the config's",
    "key": "the name of the two key files",
    "keys": "the folder for the keys, outside every checkout",
    "passphrase_file": "a file, mode 0600, that has the key's passphrase",
    "passphrase_env": "the environment variable that has the key's passphrase",
    "public_key": "whose signature is wanted; default: signing.public_key in configs/project.yaml",
    "replaces": "the installed package folder; an older run is refused",
    "setup": "build the environment there",
    "checkpoints": "with models/<run>/checkpoints/",
    "options": "of pytest",
}
# the default of such an option must be None
REPEATABLE = ("override", "predictions")


def task(function: Callable[..., Any], name: str | None = None) -> Any:
    """A Fabric task with the help of the options it has; its name is the function's unless another is given."""
    names = inspect.signature(function).parameters
    help = {name: text for name, text in HELP.items() if name in names}
    return fabric.task(
        function, name=name or function.__name__, help=help, iterable=[name for name in names if name in REPEATABLE]
    )
