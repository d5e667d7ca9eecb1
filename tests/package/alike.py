"""Compares what llama.cpp and transformers answer."""

from pathlib import Path

import tiny_gemma
import torch

from potstill import llama, models, prompt


def assert_answers_alike(folder: Path, path: Path, near_tie: float, count: int = 12, tokens: int = 24) -> None:
    """Greedy answers are equal, or part where the two best logits of the original lie within `near_tie`."""
    model, tokenizer = models.load_folder(folder, torch.float32)
    prompts = [prompt.prompt_ids(tiny_gemma.SYSTEM, t, tokenizer) for t in tiny_gemma.sentences(count, seed=9)]
    wanted = {g.index: g.ids for g in models.generate(model, tokenizer, prompts, tokens)}
    # with one thread: waiting for a second one is what takes long on a busy machine
    with llama.serve(path, context=256, threads=1) as server:
        found = {g.index: g.ids for g in llama.generate(server, prompts, tokens)}
    for i, ids in wanted.items():
        if found[i] == ids:
            continue
        at = next((k for k, (a, b) in enumerate(zip(ids, found[i], strict=False)) if a != b), None)
        assert at is not None, "one of the two stopped early"
        with torch.inference_mode():
            logits = model(torch.tensor([prompts[i] + ids[:at]])).logits[0, -1]
        assert logits[ids[at]] - logits[found[i][at]] < near_tie, (i, at)
    assert sum(found[i] == ids for i, ids in wanted.items()) >= count * 0.25
