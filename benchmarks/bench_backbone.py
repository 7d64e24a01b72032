"""Loading a 1 B-parameter checkpoint, the wrapper's forward, and growing a vocabulary, each beside its peer.

Loading runs each way in a process of its own, since peak memory belongs to a process. The checkpoint is random and is
written to a temporary folder (2 GB).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from timing import in_turn, line, paired_ratio
from vertebra.backbone.causal import HFCausalLLMBackbone
from vertebra.backbone.tiny import tiny_checkpoint
from vertebra.backbone.vocabulary import grow_vocabulary

ONE_BILLION = LlamaConfig(
    vocab_size=32000,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    dtype="bfloat16",
)  # TinyLlama's shape: 1.1 B

_START = """
import json, resource, sys, time
import torch, transformers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from vertebra.backbone.causal import HFCausalLLMBackbone
transformers.utils.logging.disable_progress_bar()
folder = sys.argv[1]
config = LlamaConfig.from_pretrained(folder)
def resident():
    # of this process alone: mapped pages of a file are shared with the disk cache and are given back under pressure
    fields = dict(l.split(":", 1) for l in open("/proc/self/status").read().splitlines())
    return int(fields["RssAnon"].split()[0]) / 2**20, int(fields["VmHWM"].split()[0]) / 2**20
before = resident()[1]
"""
_WAYS = {
    "random init, torch.load, copy": """
start = time.perf_counter()
model = LlamaForCausalLM(config).to(torch.bfloat16)
model.load_state_dict(torch.load(folder + "/weights.pt", map_location="cpu", weights_only=True))
""",
    "from_pretrained": """
start = time.perf_counter()
model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
""",
    "from_pretrained and its tokenizer": """
start = time.perf_counter()
model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
""",
    "inference mode, load_weights": """
backbone = HFCausalLLMBackbone("bench-pure", "llama2", LlamaForCausalLM, folder, inference_mode=True)
start = time.perf_counter()
backbone.load_weights(folder)
""",
    "inference mode, all: structure, tokenizer, weights": """
start = time.perf_counter()
backbone = HFCausalLLMBackbone("bench-pure", "llama2", LlamaForCausalLM, folder, inference_mode=True)
backbone.load_weights(folder)
""",
}
_END = """
print(json.dumps({"seconds": time.perf_counter() - start, "anonymous": resident()[0], "peak": resident()[1] - before}))
"""


def write_checkpoint(folder: Path) -> None:
    """Random weights, written twice: as safetensors and as the `.pt` that the old way reads."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(ONE_BILLION)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "weights.pt")
    AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2")).save_pretrained(folder)


def bench_loading(rounds: int = 3) -> None:
    print("loading 1.1 B parameters in bf16 (goal: >= 100 x the old way, no slower than from_pretrained)")
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name))
        told: dict[str, list[dict[str, float]]] = {way: [] for way in _WAYS}
        for _ in range(rounds):
            for way, code in _WAYS.items():
                command = [sys.executable, "-c", _START + code + _END, name]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                told[way].append(json.loads(out.strip().splitlines()[-1]))
    median = {way: statistics.median(run["seconds"] for run in runs) for way, runs in told.items()}
    ours = median["inference mode, load_weights"]
    for way, taken in median.items():
        peak = statistics.median(run["peak"] for run in told[way])
        own = statistics.median(run["anonymous"] for run in told[way])
        line(
            way,
            taken,
            beside=f"{taken / ours:7.1f} x ours; peak {peak:.2f} GB, of that its own {own:.2f} GB at the end",
        )


def ten_million() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=1024,
        hidden_size=320,
        intermediate_size=864,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
    )


def bench_forward(rounds: int = 41) -> None:
    print("forward of a 10 M model through the wrapper (goal: <= 1.02 x the bare model)")
    with tempfile.TemporaryDirectory() as name:
        torch.manual_seed(0)
        LlamaForCausalLM(ten_million()).save_pretrained(name)
        AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2")).save_pretrained(name)
        backbone = HFCausalLLMBackbone("bench-pure", "llama2", LlamaForCausalLM, name).eval()
    for length in (1, 64, 320):
        ids = torch.randint(5, 900, (1, length))
        mask = torch.ones_like(ids)

        def wrapped(ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> object:
            return backbone(ids, mask)

        def bare(ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> object:
            return backbone.llm(ids, mask, use_cache=False)

        with torch.no_grad():
            wrapped(), bare()
            ratio = paired_ratio(wrapped, bare, rounds=rounds, repeats=5)
            control = paired_ratio(bare, bare, rounds=rounds, repeats=5)
        line(f"{length} positions", ratio, unit="x", beside=f"A/A {control:.3f}")


def bench_growth(rounds: int = 3) -> None:
    print("growing 32000 x 4096, embedding and untied head, by one token (goal: <= 1.2 x resize without mean)")
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=32,
    )

    class Holder:
        """What growing needs of a backbone."""

        def __init__(self, llm: LlamaForCausalLM) -> None:
            self.llm, self.identifier = llm, "bench"
            self.growths: list[Any] = []
            self.tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2"))

        def require_members(self) -> None:
            """They are all there."""

    def fresh() -> LlamaForCausalLM:
        with torch.device("meta"):
            llm = LlamaForCausalLM(config)
        return llm.to_empty(device="cpu")

    models = {"ours": [Holder(fresh()) for _ in range(rounds)], "resize": [fresh() for _ in range(rounds)]}

    def ours() -> None:
        holder = models["ours"].pop()
        holder.tokenizer.add_tokens([f"<fill{i}>" for i in range(32000 - len(holder.tokenizer))])
        grow_vocabulary(holder, ["<ACT>"], multiple_of=64)

    def resize() -> None:
        models["resize"].pop().resize_token_embeddings(32001, pad_to_multiple_of=64, mean_resizing=False)

    taken = in_turn({"ours": ours, "resize": resize}, rounds=rounds)
    line("grow_vocabulary (mean and noise)", taken["ours"], beside=f"{taken['ours'] / taken['resize']:.2f} x")
    line("resize_token_embeddings(mean_resizing=False)", taken["resize"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    bench_forward()
    bench_growth()
    bench_loading()
