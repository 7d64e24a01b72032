"""The peak memory of real training steps, in a process of its own: `python -m tests.train.measured STAGE ROWS LENGTH`.

Prints the bytes above what the process held before the model was there.
"""

from __future__ import annotations

import sys
import threading
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vertebra.train.config import OptimConfig
from vertebra.train.head import head_loss
from vertebra.train.learner import head_held_back, head_rule, head_tensors
from vertebra.train.optim import make_optimizer


def shape() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=384,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        intermediate_size=1024,
        vocab_size=8000,
    )


def choose(model: LlamaForCausalLM, stage: str) -> None:
    if stage == "last":
        model.requires_grad_(False)
        model.model.layers[-1].requires_grad_(True)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Peak(threading.Thread):
    """The highest resident size, looked at every half millisecond."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest, self.ended = 0, False

    def run(self) -> None:
        while not self.ended:
            self.highest = max(self.highest, resident())
            time.sleep(0.0005)


def step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, rows: int, length: int) -> None:
    rule = head_rule(model)
    ids = torch.randint(0, 8000, (rows, length))
    with head_held_back(model) as seen:
        model(input_ids=ids, use_cache=False)
    hidden = seen.pop()
    chosen = hidden.flatten(0, 1)[: rows * (length - 1)]
    del hidden
    weight, bias = head_tensors(model.get_output_embeddings())
    targets = torch.zeros(len(chosen), dtype=torch.long)
    loss = head_loss(chosen, weight, bias, targets, torch.ones(len(chosen)), head=rule) / len(chosen)
    del chosen
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def main(stage: str, rows: int, length: int) -> None:
    # libraries that load on first use, and their scratch, are no part of the model
    small = LlamaForCausalLM(LlamaConfig(hidden_size=64, num_hidden_layers=1, intermediate_size=64, vocab_size=8000))
    step(small, make_optimizer(small, OptimConfig()), 1, 16)
    del small
    before = resident()
    model = LlamaForCausalLM(shape()).train()
    choose(model, stage)
    optimizer = make_optimizer(model, OptimConfig())
    peak = Peak()
    peak.start()
    for _ in range(2):
        step(model, optimizer, rows, length)
    peak.ended = True
    peak.join()
    print(peak.highest - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
