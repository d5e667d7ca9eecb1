"""Muon for the hidden matrices and AdamW for everything else, as one optimizer for one learning rate.

Muon: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks". Its update is scaled to the size of
AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"), so both take the same learning rate and schedule.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


class MuonAdamW(torch.optim.Optimizer):
    """Steps torch's Muon and AdamW together. Its parameter groups are theirs, so a scheduler drives both."""

    def __init__(self, model: torch.nn.Module, lr: float, weight_decay: float, beta2: float):
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in chosen]
        # halves that are stepped at the same time: a matrix is too small for several threads
        halves = [half for half in (matrices[::2], matrices[1::2]) if half]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(half, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw") for half in halves
        ]
        self.threads = ThreadPoolExecutor(2)
        if others:
            self.parts.append(torch.optim.AdamW(others, lr=lr, betas=(0.9, beta2), weight_decay=0.0))
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        # no part reads what another writes
        list(self.threads.map(lambda part: part.step(), self.parts))

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        # loading gives the parts new groups
        self.param_groups = [group for part in self.parts for group in part.param_groups]
