"""Decoding beside Hugging Face's `generate`, bare loops, and the cache-off workaround.

    python benchmarks/bench_generate.py [PART …] [--threads N]

One thread and process CPU time, unless more threads are asked for: then it is the clock on the wall, which a busy
machine makes worthless. All sides of a row run in turn in one process, and `×` is the median of the peer over ours: above
1, ours is faster. A goal is met, or the reason stands beside it.
Models are random, of the shapes that the rows name; a prompt is 320 positions where nothing else is said.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM

from timing import in_turn
from vertebra import Batch, Model, TokenSequence, collate, fill, generate, load_backbone
from vertebra.backbone import tiny_checkpoint
from vertebra.decode import AllowedIds, prefill
from vertebra.model import PatchEncoder, new_part, new_queries

Side = Callable[[], object]
Taken = dict[str, float]
"""Median seconds of each side; ours is `ours`."""
Reason = Callable[[Taken], str]
SHAPES = {
    "10 M": {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 8},
    "60 M": {"hidden_size": 640, "intermediate_size": 1728, "num_hidden_layers": 12, "num_attention_heads": 10},
}
NO_END = 2**31


@cache
def backbone(shape: str, vocabulary: int = 1024) -> Any:
    """A random model of a shape, or the tiny checkpoint."""
    if shape == "tiny":
        return load_backbone("tiny-llama2", inference_mode=True, weights=True, dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=2048, **SHAPES[shape])
        LlamaForCausalLM(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2")).save_pretrained(folder)
        return load_backbone(folder, inference_mode=True, weights=True, dtype="float32", builder="llama2-chat")


def text(length: int, seed: int = 0) -> TokenSequence:
    return TokenSequence.of(np.random.default_rng(seed).integers(10, 900, length))


def prompt_of(length: int, rows: int = 1) -> Batch:
    return collate([text(length, seed) for seed in range(rows)], pad_id=0, side="left")


def measured(sides: Mapping[str, Side], *, rounds: int, repeats: int = 1) -> dict[str, float]:
    for work in sides.values():
        work()
    return in_turn(sides, rounds=rounds, repeats=repeats, clock=clock())


def clock() -> Callable[[], float]:
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def once(work: Side) -> float:
    """Seconds of what is too slow to take turns."""
    now = clock()
    start = now()
    work()
    return now() - start


def row(name: str, taken: Taken, goals: dict[str, float], *, why: Reason | None = None) -> None:
    """One line: our milliseconds, and each peer's over ours beside its goal; `why` is said where one is not met."""
    ours = taken["ours"]
    parts, missed = [], False
    for peer, seconds in taken.items():
        if peer == "ours":
            continue
        ratio, goal = seconds / ours, goals.get(peer)
        met = goal is None or round(ratio, 2) >= round(goal, 2)
        missed = missed or not met
        verdict = "" if goal is None else f" (goal {goal:.3g}: {'met' if met else 'not met'})"
        parts.append(f"{peer} {ratio:.2f} ×{verdict}")
    print(f"  {name:<46} {ours * 1e3:9.2f} ms   {';  '.join(parts)}", flush=True)
    if missed:
        print(f"      why: {why(taken) if why else 'the machine was busy: run it again'}", flush=True)


def beside(taken: Taken, one: str, other: str) -> str:
    return f"{taken[one] / taken[other]:.2f} ×"


def hf(llm: Any, tokens: int, **inputs: Any) -> Side:
    given = next(iter(inputs.values()))
    mask = torch.ones(given.shape[:2], dtype=torch.long)
    return lambda: llm.generate(
        **inputs, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=NO_END, pad_token_id=0
    )


def bare(llm: Any, tokens: int, **inputs: Any) -> Side:
    """The loop that one would write by hand."""

    @torch.no_grad()
    def loop() -> object:
        past, given, said = DynamicCache(config=llm.config), inputs, []
        for _ in range(tokens):
            out = llm(**given, past_key_values=past, use_cache=True, logits_to_keep=1)
            said.append(out.logits[:, -1:].argmax(-1).squeeze(-1))
            given = {"input_ids": said[-1][:, None]}
        return torch.stack(said, 1)

    return loop


def multimodal(rounds: int) -> None:
    print("cached multimodal generation, 256 patches + 64 words, 10 M")
    model = Model(
        backbone("10 M"),
        {"image": new_part(backbone("10 M"), PatchEncoder(256, image_size=224, patch_size=14), "gelu2")},
    ).eval()
    slots = TokenSequence.of([5] * 256, slot=[(0, i) for i in range(256)], segments=["image"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 224, 224), dtype=np.uint8)
    batch = model.collate([TokenSequence.join([text(1), slots, text(63)])], [{"image": pixels}], side="left")
    llm, table = model.backbone.llm, model.backbone.embed_input_ids

    @torch.no_grad()
    def cache_off(tokens: int) -> None:
        embeds = model.embed(batch)
        for _ in range(tokens):
            token = llm(inputs_embeds=embeds, use_cache=False, logits_to_keep=1).logits[:, -1].argmax(-1)
            embeds = torch.cat([embeds, table(token[:, None])], 1)

    for tokens in (16, 64, 256):
        sides: dict[str, Side] = {
            "ours": lambda n=tokens: generate(model, batch, max_new_tokens=n, eos_token_id=()),
            "HF, cached embeddings": lambda n=tokens: hf(llm, n, inputs_embeds=model.embed(batch))(),
            "bare loop": lambda n=tokens: bare(llm, n, inputs_embeds=model.embed(batch))(),
        }
        taken = measured(sides, rounds=rounds)
        taken["cache off"] = once(lambda n=tokens: cache_off(n))
        row(f"{tokens} new tokens", taken, {"HF, cached embeddings": 1.0, "bare loop": 0.9})


def per_token(rounds: int) -> None:
    print("decode per token, eager: 64 tokens after 20")
    batch = prompt_of(20)
    for shape, goal in (("tiny", 1.2), ("60 M", 1.05)):
        model = backbone(shape)
        sides = {
            "ours": lambda m=model: generate(m, batch, max_new_tokens=64, eos_token_id=()),
            "HF generate": hf(model.llm, 64, input_ids=batch["input_ids"]),
            "bare loop": bare(model.llm, 64, input_ids=batch["input_ids"]),
        }
        row(
            shape,
            {k: v / 64 for k, v in measured(sides, rounds=rounds).items()},
            {"HF generate": goal},
            why=lambda taken: (
                "a step is the weights read once, by the same modules on both sides; a bare loop, which does nothing "
                f"else, is {beside(taken, 'HF generate', 'bare loop')} here"
            ),
        )


def compiled(rounds: int) -> None:
    print("the same, compiled with a static cache (compiling itself is not counted)")
    batch = prompt_of(20)
    for shape, goal in (("tiny", 2.5), ("60 M", 1.2)):
        model = backbone(shape)
        sides = {
            "ours": lambda m=model: generate(m, batch, max_new_tokens=64, eos_token_id=(), compile=True),
            "HF generate": hf(model.llm, 64, input_ids=batch["input_ids"]),
        }
        row(shape, {k: v / 64 for k, v in measured(sides, rounds=rounds).items()}, {"HF generate": goal})


def set_up(rounds: int) -> None:
    print("one token after a prompt of 20: what a call costs")
    alone, batch = backbone("tiny"), prompt_of(20)
    for name, model in (("tiny, a Model", Model(alone).eval()), ("tiny, a backbone, which is wrapped", alone)):
        sides = {
            "ours": lambda model=model: generate(model, batch, max_new_tokens=1, eos_token_id=()),
            "HF generate": hf(alone.llm, 1, input_ids=batch["input_ids"]),
            "bare loop": bare(alone.llm, 1, input_ids=batch["input_ids"]),
        }
        row(
            name,
            measured(sides, rounds=rounds * 5, repeats=5),
            {"HF generate": 2.0},
            why=lambda taken: (
                "two thirds of our call is the model's own forward pass; a bare loop, which checks nothing, is "
                f"{beside(taken, 'HF generate', 'bare loop')} here"
            ),
        )


def policy(shape: str, rows: int) -> tuple[Model, Batch, Batch]:
    """A model with 56 learned action queries; a prompt that ends in their slots, and the prompt alone."""
    model = Model(backbone(shape, 32000), {"action": new_queries(backbone(shape, 32000), 56)}).eval()
    slots = TokenSequence.of([5] * 56, slot=[(0, i) for i in range(56)], segments=["action"], block=1)
    prompts = [text(320 - 56, seed) for seed in range(rows)]
    return (
        model,
        model.collate([TokenSequence.join([one, slots]) for one in prompts], side="left"),
        model.collate(prompts),
    )


def action_slots(rounds: int) -> None:
    print("56 action slots in one pass, 256 head rows of 32000 (320 positions in all)")
    bins = range(31744, 32000)
    goals = {("10 M", 1): 13, ("60 M", 1): 7, ("10 M", 8): 4.5, ("60 M", 8): 3}
    for shape in SHAPES:
        for rows in (1, 8):
            model, batch, prompt = policy(shape, rows)
            llm = model.backbone.llm

            @torch.no_grad()
            def forward(llm: Any = llm, ids: torch.Tensor = batch["input_ids"]) -> object:
                return llm(input_ids=ids, use_cache=True, logits_to_keep=1)

            sides: dict[str, Side] = {
                "ours": lambda m=model, b=batch: fill(m, b, allowed=bins),
                "prefill of the same length": forward,
            }
            taken = measured(sides, rounds=rounds)
            steps = hf(llm, 56, input_ids=prompt["input_ids"])
            taken["HF autoregressive, 56 tokens"] = statistics.median(once(steps) for _ in range(3))
            limit = {"prefill of the same length": 1 / 1.15} if (shape, rows) == ("10 M", 1) else {}
            row(
                f"{shape}, batch {rows}",
                taken,
                {**limit, "HF autoregressive, 56 tokens": goals[shape, rows]},
                why=lambda taken: (
                    "our one pass costs what one prefill of the same length costs, and their steps cost no more than "
                    f"{beside(taken, 'HF autoregressive, 56 tokens', 'prefill of the same length')} that prefill on "
                    "one thread: the ceiling of this row"
                ),
            )


def constrained(rounds: int) -> None:
    print("constrained autoregressive decoding: 56 tokens of 256 bins, vocabulary 32000, after 64 positions")
    batch, constraint = prompt_of(64), AllowedIds(range(31744, 32000))
    for shape in SHAPES:
        model = backbone(shape, 32000)
        options = {"max_new_tokens": 56, "eos_token_id": (), "constraint": constraint}
        sides = {
            "ours": lambda m=model, o=options: generate(m, batch, **o),
            "ours, all rows of the head": lambda m=model, o=options: generate(m, batch, output_scores=True, **o),
        }
        row(shape, measured(sides, rounds=rounds), {"ours, all rows of the head": 1.0})


def prefixes(rounds: int) -> None:
    print("shared prefixes and batches, 10 M")
    model = backbone("10 M")
    page, questions = text(320), [text(12, seed) for seed in range(20)]
    whole = [TokenSequence.join([page, one]) for one in questions]
    short = {"max_new_tokens": 4, "eos_token_id": ()}

    def reused() -> None:
        state = prefill(model, page)
        for one in questions:
            asked = state.fork()
            asked.extend(one)
            generate(model, asked, **short)

    def together() -> None:
        state = prefill(model, page).fork([0] * len(questions))
        state.extend(questions)
        generate(model, state, **short)

    full = {"20 full runs": lambda: [generate(model, one, **short) for one in whole]}
    row("20 questions on a page of 320, one by one", measured({"ours": reused, **full}, rounds=max(rounds // 3, 1)), {})
    row("the same, all at once", measured({"ours": together, **full}, rounds=max(rounds // 3, 1)), {})
    ragged = [text(length, length) for length in (40, 320, 100, 260, 180, 64, 300, 220)]
    some = {"max_new_tokens": 32, "eos_token_id": ()}
    sides = {
        "ours": lambda: generate(model, ragged, **some),
        "8 single runs": lambda: [generate(model, one, **some) for one in ragged],
    }
    row("8 ragged prompts in one batch, 32 tokens each", measured(sides, rounds=max(rounds // 3, 1)), {})


PARTS: dict[str, Callable[[int], None]] = {
    "multimodal": multimodal,
    "token": per_token,
    "compiled": compiled,
    "setup": set_up,
    "slots": action_slots,
    "constrained": constrained,
    "prefix": prefixes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    for name in arguments.parts:
        PARTS[name](7)


if __name__ == "__main__":
    main()
