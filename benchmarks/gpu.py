"""Decoding on a GPU, in bf16, with random models of the shapes of SmolLM2-135M and LLaMA-2-7B: `python benchmarks/gpu.py`.

    python benchmarks/gpu.py [--shapes "7 B"] [--rounds N] [--minutes N]      the table, as much as the minutes allow
    python benchmarks/gpu.py --shapes tiny --device cpu                       does it run at all? Its times say nothing

The table of `bench_generate.py` where a GPU is present: per token (eager, and compiled with CUDA graphs on and off), 56 action
slots in one pass, constrained decoding, prefix reuse; beside Hugging Face's `generate` in the same run. Sides run in turn,
each timed with the device waited for; what compiles comes last, since it takes minutes. Prints Markdown with the machine's
name, so that it can be committed as it is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from vertebra import Batch, HFCausalLLMBackbone, Model, TokenSequence, collate, fill, generate
from vertebra.backbone import tiny_checkpoint
from vertebra.decode import AllowedIds, prefill
from vertebra.model import new_queries

Side = Callable[[], object]
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1280,
    },
    "135 M": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152, "tie_word_embeddings": True,
    },
    "7 B": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32064,
    },
}  # fmt: skip
PROMPT, NEW, SLOTS, PAGE = 320, 64, 56, 2048
NO_END = 2**31


def backbone(shape: str, device: str) -> HFCausalLLMBackbone:
    """Random weights, drawn on the device: nothing is read from a disk."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = LlamaConfig(
            max_position_embeddings=4096, dtype="bfloat16", architectures=["LlamaForCausalLM"], **SHAPES[shape]
        )
        config.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2")).save_pretrained(folder)
        made = HFCausalLLMBackbone(
            "bench-pure", "llama2", LlamaForCausalLM, folder, inference_mode=True, dtype="bfloat16"
        )
    torch.manual_seed(0)
    rotary = {name: buffer.to(device) for name, buffer in made.llm.named_buffers() if not buffer.is_meta}
    made.llm.to_empty(device=device)
    with torch.no_grad():
        for name, buffer in made.llm.named_buffers():
            if name in rotary:
                buffer.copy_(rotary[name])
        for parameter in made.llm.parameters():
            parameter.fill_(1.0) if parameter.dim() == 1 else parameter.normal_(std=0.02)
    return made


def rows_of(length: int, rows: int, device: str) -> Batch:
    rng = np.random.default_rng(0)
    return collate([TokenSequence.of(rng.integers(10, 900, length)) for _ in range(rows)], pad_id=0, side="left").to(
        device
    )


def measured(sides: dict[str, Side], device: str, rounds: int) -> dict[str, float]:
    """Median seconds of each side; all take turns."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():  # compiling, graphs, buffers
        side(), side()
    for number in range(rounds):
        names = list(sides)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            _wait(device)
            start = time.perf_counter()
            sides[name]()
            _wait(device)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def report(name: str, taken: dict[str, float]) -> None:
    ours = taken["ours"]
    others = "; ".join(f"{peer} {seconds / ours:.2f} ×" for peer, seconds in taken.items() if peer != "ours")
    print(f"| {name} | {ours * 1e3:.2f} ms | {others} |", flush=True)


def hf(llm: Any, batch: Batch, tokens: int, **options: Any) -> Side:
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return lambda: llm.generate(
        ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=NO_END, pad_token_id=0, **options
    )


def per_token(model: Any, shape: str, device: str, rounds: int) -> None:
    for rows in (1, 8):
        batch = rows_of(PROMPT, rows, device)
        sides: dict[str, Side] = {
            "ours": lambda b=batch: generate(model, b, max_new_tokens=NEW, eos_token_id=()),
            "HF generate": hf(model.llm, batch, NEW),
        }
        report(f"{shape}, batch {rows}: per token, eager", _each(measured(sides, device, rounds), NEW))


def compiled(model: Any, shape: str, device: str, rounds: int, rows: int = 1) -> None:
    batch = rows_of(PROMPT, rows, device)
    sides: dict[str, Side] = {
        "ours": lambda: generate(model, batch, compile=True, max_new_tokens=NEW, eos_token_id=()),
        "ours, compiled without graphs": lambda: generate(
            model, batch, compile=without_graphs, max_new_tokens=NEW, eos_token_id=()
        ),
        "HF generate": hf(model.llm, batch, NEW),
        "HF generate, static cache, compiled": hf(model.llm, batch, NEW, cache_implementation="static"),
    }
    report(f"{shape}, batch {rows}: per token, compiled, CUDA graphs", _each(measured(sides, device, rounds), NEW))


def _each(taken: dict[str, float], count: int) -> dict[str, float]:
    return {name: seconds / count for name, seconds in taken.items()}


def without_graphs(graph: Any, inputs: Any, **options: Any) -> Any:
    """The compiler without CUDA graphs, as a backend of its own."""
    from torch._inductor.compile_fx import compile_fx

    return compile_fx(graph, inputs)


def slots(model: Any, shape: str, device: str, rounds: int) -> None:
    policy = Model(model, {"action": new_queries(model, SLOTS)}).to(device).eval()
    policy.parts.to(torch.bfloat16)
    chunk = TokenSequence.of([5] * SLOTS, slot=[(0, i) for i in range(SLOTS)], segments=["action"], block=1)
    first = SHAPES[shape]["vocab_size"] - 256
    bins = range(first, first + 256)
    for rows in (1, 8):
        rng = np.random.default_rng(0)
        texts = [TokenSequence.of(rng.integers(10, 900, PROMPT - SLOTS)) for _ in range(rows)]
        batch = policy.collate([TokenSequence.join([one, chunk]) for one in texts], side="left")
        prompt = policy.collate(texts, side="left")

        @torch.no_grad()
        def forward(ids: torch.Tensor = batch["input_ids"]) -> object:
            return model.llm(input_ids=ids, use_cache=True, logits_to_keep=1)

        sides: dict[str, Side] = {
            "ours": lambda b=batch: fill(policy, b, allowed=bins),
            "prefill of the same length": forward,
            "HF autoregressive, 56 tokens": hf(model.llm, prompt, SLOTS),
            "ours, autoregressive, allowed rows": lambda b=prompt: generate(
                policy, b, max_new_tokens=SLOTS, eos_token_id=(), constraint=AllowedIds(bins)
            ),
        }
        report(f"{shape}, batch {rows}: 56 action slots in one pass", measured(sides, device, rounds))


def prefixes(model: Any, shape: str, device: str, rounds: int) -> None:
    rng = np.random.default_rng(0)
    page = TokenSequence.of(rng.integers(10, 900, PAGE))
    questions = [TokenSequence.of(rng.integers(10, 900, 12)) for _ in range(20)]
    short = {"max_new_tokens": 4, "eos_token_id": ()}

    def together() -> None:
        state = prefill(model, page).fork([0] * len(questions))
        state.extend(questions)
        generate(model, state, **short)

    whole = [TokenSequence.join([page, one]) for one in questions]
    sides: dict[str, Side] = {
        "ours": together,
        "20 full runs": lambda: [generate(model, one, **short) for one in whole],
    }
    report(f"{shape}: 20 questions on a page of {PAGE}", measured(sides, device, max(rounds // 2, 2)))


PARTS: dict[str, Callable[[Any, str, str, int], None]] = {
    "per token": per_token,
    "action slots": slots,
    "prefixes": prefixes,
    "compiled, batch 1": compiled,
    "compiled, batch 8": partial(compiled, rows=8),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", nargs="*", default=[name for name in SHAPES if name != "tiny"], choices=list(SHAPES)
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=8, help="what has not begun by then is left out")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device here; this table is made where one is present", file=sys.stderr)
        return 1
    machine = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device
    print(f"{machine}, torch {torch.__version__}, transformers {transformers.__version__}, bf16, prompts of {PROMPT}\n")
    print("| what | ours | × : the peer's time over ours |\n|---|---|---|")
    if not arguments.device.startswith("cuda"):
        print("without a GPU there are no CUDA graphs, and `compiled` is the compiler alone\n", file=sys.stderr)
    until = time.monotonic() + 60 * arguments.minutes
    models = {shape: backbone(shape, arguments.device) for shape in arguments.shapes}
    for name, part in PARTS.items():
        for shape, model in models.items():
            if time.monotonic() > until:
                print(f"| {shape}: {name} | left out | {arguments.minutes:g} minutes were over |", flush=True)
                continue
            part(model, shape, arguments.device, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
