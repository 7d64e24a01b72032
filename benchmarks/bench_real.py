"""SmolLM2-135M-Instruct on a CPU beside Hugging Face's `generate`, `from_pretrained`, and a plain `Trainer` with PEFT.

    python benchmarks/bench_real.py [PART …] [--quick]

One thread and process CPU time; all sides of a row take turns in one process, medians, and `×` is the peer's time over
ours. No time is asserted: a goal is met, or the reason stands beside it. The model is fetched by
`vertebra get smollm2-135m-instruct`. Parts: token, first, load, lora, compiled, int8 (the last two compile, for a minute
and more each; torchao is measured where it is installed).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, StaticCache

import real_lora
from timing import in_turn
from vertebra import TokenSequence, collate, generate, load_backbone
from vertebra.backbone.real import fetched
from vertebra.decode.state.language import language_of

NAME = "smollm2-135m-instruct"
TEXT = (
    "The robot arm picks up the red block and puts it on the blue plate. Then it moves back to its home position and "
    "waits for the next order. A camera above the table sees every object: two cups, a bowl of fruit, a box with a lid, "
    "and a small lamp. When somebody asks for the lamp, the arm opens its gripper, turns its wrist by ninety degrees, and "
    "lowers itself slowly until the fingers touch the shade. It must not press too hard, for the shade is made of paper."
)
NO_END = 2**31
ROOM = 64
"""Columns of a static cache."""
Side = Callable[[int], object]
"""Says so many tokens."""


class Models:
    """Ours and theirs in one number type, and what they are asked."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.name = str(dtype).removeprefix("torch.")
        self.ours = load_backbone(folder, inference_mode=True, weights=True, dtype=dtype, builder="chatml")
        self.stock: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.ids = self.ours.tokenizer(TEXT, add_special_tokens=False).input_ids

    def prompt(self, length: int, rows: int = 1) -> Any:
        """The same words from another beginning for each row."""
        many = self.ids * (length // len(self.ids) + 2)
        return collate([TokenSequence.of(many[row : row + length]) for row in range(rows)], pad_id=0, side="left")

    def say(self, batch: Any, **options: Any) -> Side:
        return lambda tokens: generate(self.ours, batch, max_new_tokens=tokens, eos_token_id=(), **options)

    def hf(self, batch: Any, *, static: bool = False) -> Side:
        """`static`: a cache of one size for any number of tokens, so that what was compiled stays."""
        ids, mask = batch["input_ids"], batch["attention_mask"]

        @torch.inference_mode(not static)  # what is compiled asks for version counters
        def say(tokens: int) -> object:
            cache = StaticCache(config=self.stock.config, max_cache_len=ROOM) if static else None
            return self.stock.generate(
                ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, eos_token_id=NO_END, pad_token_id=0,
                past_key_values=cache,
            )  # fmt: skip

        return say


def per_token(sides: dict[str, Side], tokens: int, rounds: int) -> dict[str, float]:
    """Seconds of each token after the first."""
    works = {(name, n): partial(say, n) for name, say in sides.items() for n in (1, tokens)}
    for work in works.values():
        work()
    taken = in_turn(works, rounds=rounds, clock=time.process_time)  # type: ignore[arg-type]
    return {name: (taken[name, tokens] - taken[name, 1]) / (tokens - 1) for name in sides}  # type: ignore[index]


def measured(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    for work in works.values():
        work()
    return in_turn(works, rounds=rounds, clock=time.process_time)


def row(name: str, taken: dict[str, float], goals: dict[str, float], why: str = "", more: str = "") -> None:
    """Our milliseconds, each peer's over ours beside its goal, and the reason where one is not met."""
    ours, parts, missed = taken["ours"], [], False
    for peer, seconds in taken.items():
        if peer == "ours":
            continue
        goal, ratio = goals.get(peer), seconds / ours
        missed = missed or (goal is not None and round(ratio, 2) < goal)
        verdict = "" if goal is None else f" (goal {goal:g}: {'met' if round(ratio, 2) >= goal else 'not met'})"
        parts.append(f"{peer} {seconds * 1e3:.1f} ms, {ratio:.2f} ×{verdict}")
    print(f"  {name:<34} {ours * 1e3:8.1f} ms   {'; '.join(parts)}{more}", flush=True)
    if missed:
        print(f"      why: {why or 'the machine was busy: run it again'}", flush=True)


def reading_speed() -> float:
    """Bytes a second at which one thread reads memory that no cache holds."""
    buffer = torch.ones(64 << 20)
    return buffer.numel() * 4 / measured({"read": buffer.sum}, 5)["read"]


def token(folder: Path, quick: bool) -> None:
    speed = reading_speed()
    print(f"each token after the first, 20 columns before; memory is read at {speed / 1e9:.0f} GB/s here")
    for dtype in (torch.float32, torch.bfloat16):
        models = Models(folder, dtype)
        size = sum(p.numel() * p.element_size() for p in models.stock.parameters())
        for rows in (1, 8):
            batch = models.prompt(20, rows)
            sides = {"ours": models.say(batch), "HF generate": models.hf(batch)}
            taken = per_token(sides, 10 if quick else 24, 2 if quick else 3)
            more = f"; {taken['ours'] * speed / size:.1f} × the time to read the weights once"
            row(f"{models.name}, batch {rows}", taken, {"HF generate": 1.2} if rows == 1 else {}, more=more)
        step = language_of(models.ours).fused
        print(f"      products: {step.way if step else 'stock modules'}")


def first(folder: Path, quick: bool) -> None:
    print("the first token after a prompt")
    for dtype in (torch.float32, torch.bfloat16):
        models = Models(folder, dtype)
        for length, goal in ((1, 1.1), (256, 1.0)) if quick else ((1, 1.1), (256, 1.0), (1500, 1.0)):
            batch = models.prompt(length)
            sides = {"ours": models.say(batch), "HF generate": models.hf(batch)}
            works = {name: partial(say, 1) for name, say in sides.items()}
            taken = measured(works, 2 if length > 1000 or quick else 7)
            why = "both sides run the same modules once over the prompt, and their products are the same here"
            row(f"{models.name}, {length} tokens", taken, {"HF generate": goal}, why)


def load(folder: Path, quick: bool) -> None:
    print("from a folder to the first token, in a process that has imported everything")
    asked = [{"role": "user", "content": "Name a river."}]
    for dtype in (torch.float32, torch.bfloat16):

        def ours(dtype: torch.dtype = dtype) -> object:
            from vertebra import load

            model = load(folder, dtype=dtype)
            return generate(model, model.render(asked), max_new_tokens=1)

        def theirs(dtype: torch.dtype = dtype) -> object:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
            inputs = tokenizer.apply_chat_template(
                asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            return model.generate(**inputs, max_new_tokens=1, do_sample=False)

        why = (
            "both map the weights, which costs nothing at this size, and read the tokenizer, a third of the time; ours then "
            "shows by one layer what the head does, and tries which product is fastest here"
        )
        row(
            str(dtype)[6:],
            measured({"ours": ours, "from_pretrained": theirs}, 2 if quick else 5),
            {"from_pretrained": 2},
            why,
        )


def lora(folder: Path, quick: bool) -> None:
    steps = 4
    print(
        f"LoRA, float32, useful tokens a second: ours in rows of {real_lora.LONGEST}, a plain Trainer with PEFT padded"
    )
    with tempfile.TemporaryDirectory() as name:
        sides = {
            "ours": real_lora.ours(load_backbone(folder, dtype="float32", builder="chatml"), Path(name), steps),
            "Trainer + PEFT": real_lora.trainer_and_peft(folder, Path(name), steps),
        }
        rate = {side: run() for side, run in sides.items()}  # steps of seconds: once is steady enough
    ratio = rate["ours"] / rate["Trainer + PEFT"]
    print(f"  ours {rate['ours']:.0f}/s, Trainer + PEFT {rate['Trainer + PEFT']:.0f}/s: {ratio:.2f} ×", end="")
    print(f" (goal 1.5: {'met' if ratio >= 1.5 else 'not met'})", flush=True)


def compiled(folder: Path, quick: bool) -> None:
    print("the peer compiled, with a static cache; ours as it is")
    for dtype in (torch.float32,) if quick else (torch.float32, torch.bfloat16):
        models = Models(folder, dtype)
        batch = models.prompt(20)
        models.stock.forward = torch.compile(models.stock.forward)
        sides = {"ours": models.say(batch), "HF generate, compiled": models.hf(batch, static=True)}
        try:
            sides["HF generate, compiled"](4)
        except Exception as error:  # whatever a compiler that is missing raises
            print(f"  nothing can be compiled here: {type(error).__name__}: {str(error).splitlines()[0]}")
            return
        row(f"{models.name}, batch 1", per_token(sides, 24, 3), {"HF generate, compiled": 1.15})


def int8(folder: Path, quick: bool) -> None:
    print("int8 weights by torchao, compiled; the peer is Hugging Face's generate in bf16")
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError:
        print("  torchao is not installed (`pip install torchao`), so nothing is measured")
        return
    models = Models(folder, torch.bfloat16)
    batch = models.prompt(20)
    plain = load_backbone(folder, inference_mode=True, weights=True, dtype="float32")
    expected = _logits(plain, models.ids)
    for name in ("bf16", "int8"):
        if name == "int8":
            quantize_(models.ours.llm, Int8WeightOnlyConfig())
        found = _logits(models.ours, models.ids)
        agreed = float((found.argmax(-1) == expected.argmax(-1)).float().mean())
        print(f"  {name}: the likeliest token is float32's at {agreed:.0%} of {len(models.ids)} positions, ", end="")
        print(f"NLL {_nll(found, models.ids) - _nll(expected, models.ids):+.4f} nats a token")
    sides = {"ours": models.say(batch, compile=True, cache_length=ROOM), "HF generate, bf16": models.hf(batch)}
    row("int8, batch 1", per_token(sides, 24, 3), {"HF generate, bf16": 1.6})
    eager = per_token({"ours": models.say(batch)}, 6, 1)["ours"]
    print(f"      not compiled it takes {eager * 1e3:.0f} ms: torchao then makes bf16 matrices anew for every product")


@torch.no_grad()
def _logits(backbone: Any, ids: list[int]) -> torch.Tensor:
    return backbone(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def _nll(logits: torch.Tensor, ids: list[int]) -> float:
    return float(F.cross_entropy(logits[:-1], torch.tensor(ids[1:])))


PARTS: dict[str, Callable[[Path, bool], None]] = {
    "token": token, "first": first, "load": load, "lora": lora, "compiled": compiled, "int8": int8,
}  # fmt: skip
QUICK = ("token", "first", "load", "lora")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and nothing is compiled")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    folder = fetched(NAME)
    if folder is None:
        print(f"{NAME} is not here; fetch it with: vertebra get {NAME}", file=sys.stderr)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name in arguments.parts or (QUICK if arguments.quick else PARTS):
        start = time.process_time()
        PARTS[name](folder, arguments.quick)
        print(f"  [{name}: {time.process_time() - start:.0f} s of the processor]", flush=True)


if __name__ == "__main__":
    main()
