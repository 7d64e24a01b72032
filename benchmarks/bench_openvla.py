"""Reading a folder of OpenVLA's shape: seconds and memory of loading and importing it, beside transformers' own loader.

The folder has towers, projector and widths of the 7 B model and fewer layers, random bytes in four shards. Every line is a
new process: seconds, its own memory at the peak (anonymous: what is not mapped from files), and the largest tensor.
transformers' `from_pretrained` reads the same language model, the same towers and the tokenizer, from folders of their own.

    python benchmarks/bench_openvla.py [LAYERS] [ROUNDS]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WIDTH, INNER, ROWS, HEADS = 4096, 11008, 32064, 32
DINO, SIGLIP = (
    ("vit_large_patch14_reg4_dinov2.lvd142m", 1024, 4096, 24),
    ("vit_so400m_patch14_siglip_224", 1152, 4304, 27),
)
MIB = 2**20


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of the folder."""
    found: dict[str, tuple[int, ...]] = {}
    for prefix, (_, width, inner, blocks) in (("featurizer", DINO), ("fused_featurizer", SIGLIP)):
        own = {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
        own |= {"pos_embed": (1, 256, width), "norm.weight": (width,), "norm.bias": (width,)}
        dino = prefix == "featurizer"
        own |= {"cls_token": (1, 1, width), "reg_token": (1, 4, width)} if dino else {"attn_pool.latent": (1, 1, width)}
        for i in range(blocks):
            linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
            linears |= {"mlp.fc1": (inner, width), "mlp.fc2": (width, inner)}
            for name, shape in linears.items():
                own |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
            own |= {f"blocks.{i}.{name}.{leaf}": (width,) for name in ("norm1", "norm2") for leaf in ("weight", "bias")}
            own |= {f"blocks.{i}.ls{n}.scale_factor": (width,) for n in (1, 2)} if dino else {}
        found |= {f"vision_backbone.{prefix}.{name}": shape for name, shape in own.items()}
    wide = DINO[1] + SIGLIP[1]
    for number, (narrow, broad) in enumerate(((wide, 4 * wide), (4 * wide, WIDTH), (WIDTH, WIDTH)), 1):
        found |= {f"projector.fc{number}.weight": (broad, narrow), f"projector.fc{number}.bias": (broad,)}
    found |= {f"language_model.{name}": shape for name, shape in llama(layers).items()}
    return found


def llama(layers: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (ROWS, WIDTH), "lm_head.weight": (ROWS, WIDTH)}
    found["model.norm.weight"] = (WIDTH,)
    for i in range(layers):
        stem = f"model.layers.{i}"
        found |= {f"{stem}.self_attn.{letter}_proj.weight": (WIDTH, WIDTH) for letter in "qkvo"}
        found |= {f"{stem}.mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
        found |= {f"{stem}.mlp.down_proj.weight": (WIDTH, INNER)}
        found |= {f"{stem}.{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    return found


def write(folder: Path, asked: dict[str, tuple[int, ...]], shards: int) -> None:
    """Shards of small random numbers, and their index."""
    folder.mkdir(parents=True)
    names = sorted(asked)
    placed: dict[str, str] = {}
    for number in range(shards):
        own = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file({n: torch.empty(asked[n], dtype=torch.bfloat16).normal_(0, 0.02) for n in own}, folder / file)
        placed |= dict.fromkeys(own, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def write_both(root: Path, layers: int) -> int:
    """The folder, and the language model by itself; returns the bytes of the largest tensor."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    whole = shapes(layers)
    write(root / "openvla", whole, 4)
    write(root / "llama", llama(layers), 4)
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *map(str, range(31997)), "<PAD>"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<PAD>"
    )
    text = {
        "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER, "num_attention_heads": HEADS,
        "num_hidden_layers": layers, "num_key_value_heads": HEADS, "vocab_size": ROWS, "pad_token_id": 32000,
        "torch_dtype": "bfloat16", "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip
    config = {
        "model_type": "openvla", "timm_model_ids": [DINO[0], SIGLIP[0]], "image_sizes": [224, 224], "text_config": text,
        "use_fused_vision_backbone": True, "torch_dtype": "bfloat16", "norm_stats": {}, "pad_to_multiple_of": 64,
    }  # fmt: skip
    preprocessor = {
        "image_resize_strategy": "resize-naive", "means": [[0.5] * 3] * 2, "stds": [[0.5] * 3] * 2
    }  # fmt: skip
    (root / "openvla" / "config.json").write_text(json.dumps(config))
    (root / "openvla" / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (root / "llama" / "config.json").write_text(json.dumps(text))
    for name in ("openvla", "llama"):
        tokenizer.save_pretrained(root / name)
    for name, model in towers().items():
        model.to(torch.bfloat16).save_pretrained(root / name)
    return max(2 * torch.Size(shape).numel() for shape in whole.values())


def towers() -> dict[str, Any]:
    """The same towers as models of transformers' own."""
    import transformers

    made = {}
    for name, stem, (_, width, inner, blocks) in (
        ("dino", "Dinov2WithRegisters", DINO),
        ("siglip", "SiglipVision", SIGLIP),
    ):
        sizes = {"hidden_size": width, "num_hidden_layers": blocks, "num_attention_heads": 16, "image_size": 224}
        sizes |= {"patch_size": 14} | ({"mlp_ratio": 4} if name == "dino" else {"intermediate_size": inner})
        config = getattr(transformers, f"{stem}Config")(**sizes)
        made[name] = getattr(transformers, f"{stem}Model")(config)
    return made


def pretrained(root: Path) -> torch.nn.Module:
    """All of it by transformers' own loader."""
    import transformers

    names = {"llama": "LlamaForCausalLM", "dino": "Dinov2WithRegistersModel", "siglip": "SiglipVisionModel"}
    transformers.AutoTokenizer.from_pretrained(root / "llama")
    return torch.nn.ModuleList(
        getattr(transformers, kind).from_pretrained(root / name, dtype=torch.bfloat16) for name, kind in names.items()
    )


def anonymous() -> int:
    """Bytes of this process that are mapped from no file."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and MiB at the peak over what there was before."""
    before = peak = anonymous()
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.002):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    kept = work()
    taken = time.perf_counter() - start
    stop.set()
    watcher.join()
    peak = max(peak, anonymous())
    del kept
    return taken, (peak - before) / MIB


def touched(model: torch.nn.Module) -> torch.nn.Module:
    """The same after every number was read once."""
    for parameter in model.parameters():
        parameter.view(-1)[:: 2048 // parameter.element_size()].float().sum()  # one number a page is enough
    return model


def child(what: str, root: Path) -> None:
    import vertebra
    from vertebra.interop import load_openvla

    vertebra.load("tiny-llama2")  # what only the first model pays
    works: dict[str, Callable[[], object]] = {
        "load": lambda: load_openvla(root / "openvla"),
        "load, all read": lambda: touched(load_openvla(root / "openvla")),
        "import": lambda: load_openvla(root / "openvla").save(root / "ours", overwrite=True),
        "from_pretrained": lambda: pretrained(root),
        "from_pretrained, all read": lambda: touched(pretrained(root)),
    }
    print(json.dumps(measured(works[what])))


def main(layers: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-openvla-") as place:
        root = Path(place)
        largest = write_both(root, layers)
        size = sum(file.stat().st_size for file in (root / "openvla").glob("*.safetensors"))
        print(f"{layers} layers: {size / MIB:,.0f} MiB; the largest tensor {largest / MIB:.0f}")
        names = ("load", "from_pretrained", "load, all read", "from_pretrained, all read", "import")
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                run = subprocess.run(
                    [sys.executable, __file__, "--child", name, place], capture_output=True, text=True, check=True
                )
                found[name].append(tuple(json.loads(run.stdout.splitlines()[-1])))
        for name, pairs in found.items():
            seconds, peak = (statistics.median(one) for one in zip(*pairs, strict=True))
            print(f"  {name:<28} {seconds:8.2f} s   {peak:8.0f} MiB of its own at the peak")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 4, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
