"""Actions a second: one after the other beside Hugging Face's `generate`, a chunk in one pass, flow matching, batches.

    python benchmarks/bench_actions.py [PART …] [--quick]

One thread and process CPU time; all sides of a row take turns in one process, medians, and `×` is the peer's time over
ours, beside its goal. Models are random, of the shapes that the rows name; a prompt is 264 positions (an image of 256
patches and a few words), an action has 7 numbers of 256 bins, a chunk 8 actions. Parts: action, chunk, flow, batch, state.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from timing import in_turn
from vertebra import Batch, HFCausalLLMBackbone, Model, TokenSequence, collate, fill, generate, load_backbone
from vertebra.backbone import tiny_checkpoint
from vertebra.decode import AllowedIds, predict, prefill
from vertebra.model import Previous, new_flow, new_l1, new_queries

SHAPES = {
    "60 M": {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12, "num_attention_heads": 10},
    "135 M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}  # fmt: skip
PROMPT, DIMS, CHUNK = 264, 7, 8
VOCABULARY = 32000
"""OpenVLA's; the tiny checkpoint has its own."""
NO_END = 2**31


@cache
def backbone(shape: str) -> Any:
    """A random model of a shape, or the tiny checkpoint."""
    if shape == "tiny":
        return load_backbone("tiny-llama2", inference_mode=True, weights=True, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=2048, **SHAPES[shape])
        LlamaForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2")).save_pretrained(folder)
        return HFCausalLLMBackbone("bench-pure", "llama2", LlamaForCausalLM, Path(folder)).eval()


def acting(shape: str, head: str) -> Model:
    llm = backbone(shape)
    torch.manual_seed(0)
    make = {"l1": new_l1, "flow": new_flow}[head]
    made = make(llm, chunk=CHUNK, dims=DIMS)
    return Model(llm, {"action": new_queries(llm, made.slots)}, heads={"action": made}).eval()


def text(seed: int, slots: int = 0, length: int = PROMPT) -> TokenSequence:
    words = TokenSequence.of(np.random.default_rng(seed).integers(10, 590, length))
    if not slots:
        return words
    chunk = TokenSequence.of([5] * slots, slot=[(0, i) for i in range(slots)], segments=["action"], block=1)
    return TokenSequence.join([words, chunk])


def prompt(rows: int = 1, slots: int = 0, length: int = PROMPT) -> Batch:
    return collate([text(seed, slots, length) for seed in range(rows)], pad_id=0, side="left")


def hf(llm: Any, batch: Batch, tokens: int) -> Callable[[], object]:
    return lambda: llm.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=tokens, do_sample=False,
        eos_token_id=NO_END, pad_token_id=0,
    )  # fmt: skip


def ids_of(llm: Any) -> range:
    """The 256 ids of bins: the last of the vocabulary."""
    return range(llm.num_rows - 256, llm.num_rows)


def said(llm: Any, batch: Batch, tokens: int) -> Callable[[], object]:
    allowed = AllowedIds(ids_of(llm))
    return lambda: generate(llm, batch, max_new_tokens=tokens, constraint=allowed)


def row(
    name: str, sides: Mapping[str, Callable[[], object]], goals: Mapping[str, float], rounds: int, times: float = 1.0
) -> None:
    """Our milliseconds, and each peer's over ours, times what it does less of."""
    for work in sides.values():
        work()
    taken = in_turn(sides, rounds=rounds, clock=time.process_time)
    parts = []
    for peer, seconds in taken.items():
        if peer == "ours":
            continue
        ratio, goal = times * seconds / taken["ours"], goals.get(peer)
        verdict = "" if goal is None else f" (goal {goal:g}: {'met' if round(ratio, 2) >= goal else 'NOT met'})"
        parts.append(f"{peer} {ratio:.2f} ×{verdict}")
    print(f"  {name:<42} {taken['ours'] * 1e3:9.2f} ms   {';  '.join(parts)}", flush=True)


def action(quick: bool) -> None:
    print("one action of seven tokens, batch 1, constrained to 256 ids")
    for shape, goal in (("tiny", 1.3), ("60 M", 1.0), ("135 M", 1.0)):
        llm, batch = backbone(shape), prompt()
        sides = {"ours": said(llm, batch, DIMS), "HF generate": hf(llm.llm, batch, DIMS)}
        row(shape, sides, {"HF generate": goal}, 3 if quick else 9)


def chunk(quick: bool) -> None:
    print(f"a chunk of {CHUNK} × {DIMS} numbers, batch 1")
    for shape in ("tiny", "60 M"):
        llm, batch, count = backbone(shape), prompt(), CHUNK * DIMS
        slots = Model(llm, {"action": new_queries(llm, count)}).eval()
        filled, regressed = prompt(slots=count), acting(shape, "l1")
        sides = {
            "ours": lambda slots=slots, filled=filled: fill(slots, filled, allowed=ids_of(slots.backbone)),
            "one after the other": said(llm, batch, count),
            "HF generate": hf(llm.llm, batch, count),
        }
        row(
            f"{shape}, tokens in one pass",
            sides,
            {"HF generate": 5} if shape == "60 M" else {},
            3 if quick else 5,
        )
        sides["ours"] = lambda regressed=regressed, filled=filled: predict(regressed, filled)
        row(f"{shape}, L1 head", sides, {"HF generate": 5} if shape == "60 M" else {}, 3 if quick else 5)


def flow(quick: bool) -> None:
    print("flow matching in ten steps, batch 1: the prefix once, beside the prefix at every step")
    for shape in ("tiny", "60 M", "135 M"):
        model, batch = acting(shape, "flow"), prompt(slots=1)
        old = Previous(actions=torch.zeros(1, 5, DIMS), delay=2)
        sides = {
            "ours": lambda model=model, batch=batch: predict(model, batch, steps=10),
            "recomputed": lambda model=model, batch=batch: [predict(model, batch, steps=1) for _ in range(10)],
            "one step": lambda model=model, batch=batch: predict(model, batch, steps=1),
            "guided": lambda model=model, batch=batch, old=old: predict(model, batch, steps=10, previous=old),
        }
        row(shape, sides, {"recomputed": 3}, 3 if quick else 7)


def batch(quick: bool) -> None:
    print(
        "eight robots in a batch, beside one after the other (tiny): prompts as long as those of squares, and long ones"
    )
    llm = backbone("tiny")
    heads = (("tokens", None, 0), ("L1 head", acting("tiny", "l1"), CHUNK * DIMS), ("flow", acting("tiny", "flow"), 1))
    for length, goals in ((28, {"one by one": 3}), (PROMPT, {})):
        for name, model, slots in heads:
            many, one = prompt(8, slots, length), prompt(1, slots, length)
            sides: dict[str, Callable[[], object]] = {}
            for side, given in (("ours", many), ("one by one", one)):
                if model is None:
                    sides[side] = said(llm, given, DIMS)
                else:
                    sides[side] = lambda model=model, given=given: predict(model, given)
            row(f"{name}, {length} positions", sides, goals, 5 if quick else 15, times=8)


def state(quick: bool) -> None:
    print("an action behind a prefix that was computed before (230 of 264 positions), beside all anew")
    for shape in ("tiny", "60 M"):
        model = acting(shape, "flow")
        whole = text(0, 1)
        known, rest = prefill(model, whole.cut(0, 230)), whole.cut(230)
        rest = rest.with_vectors(position=rest.position - 230)
        sides = {
            "ours": lambda model=model, rest=rest, known=known: predict(model, [rest], state=known),
            "anew": lambda model=model, whole=whole: predict(model, whole),
        }
        row(f"{shape}, flow", sides, {}, 3 if quick else 7)


PARTS = {"action": action, "chunk": chunk, "flow": flow, "batch": batch, "state": state}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    for name in arguments.parts or PARTS:
        PARTS[name](arguments.quick)


if __name__ == "__main__":
    main()
