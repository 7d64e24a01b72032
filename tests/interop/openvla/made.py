"""Tiny folders in OpenVLA's, OFT's and prismatic's formats, made from nothing: random weights, timm's names, a real tokenizer.

made_folder(where)                          two towers, four patches, a LLaMA of two layers, bf16 in three shards
made_oft(where), made_run(where)            with OFT's files beside it; as a run of prismatic's
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from vertebra.backbone.tiny import tiny_checkpoint

SIZE, PATCH, BLOCKS = 28, 14, 3
DINO, SIGLIP, CLIP = (
    "vit_large_patch14_reg4_dinov2.lvd142m",
    "vit_so400m_patch14_siglip_224",
    "vit_large_patch14_clip_224.openai",
)
WIDTHS = {DINO: 64, SIGLIP: 96, CLIP: 32}
INNER = {DINO: 256, SIGLIP: 110, CLIP: 128}
HEADS = 16
MEANS = {DINO: [0.484375, 0.455078125, 0.40625], SIGLIP: [0.5] * 3, CLIP: [0.48, 0.46, 0.41]}
STDS = {DINO: [0.228515625, 0.2236328125, 0.224609375], SIGLIP: [0.5] * 3, CLIP: [0.27, 0.26, 0.28]}
Tensors = dict[str, torch.Tensor]


class Draw:
    """Random tensors whose matrices keep the size of what goes through them."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, base: float = 0.0, scale: float | None = None) -> torch.Tensor:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
        return base + torch.randn(*shape, generator=self.generator) * (fan_in**-0.5 if scale is None else scale)


def tower(timm_id: str, draw: Draw, blocks: int = BLOCKS) -> Tensors:
    """One tower's tensors under timm's names."""
    width, inner, patches = WIDTHS[timm_id], INNER[timm_id], (SIZE // PATCH) ** 2
    made = {"patch_embed.proj.weight": draw(width, 3, PATCH, PATCH)}
    if timm_id == CLIP:
        made |= {"cls_token": draw(1, 1, width), "pos_embed": draw(1, patches + 1, width)}
        made |= {"norm_pre.weight": draw(width, base=1.0), "norm_pre.bias": draw(width)}
    else:
        made |= {"patch_embed.proj.bias": draw(width), "pos_embed": draw(1, patches, width, scale=0.3)}
    if timm_id == DINO:
        made |= {"cls_token": draw(1, 1, width), "reg_token": draw(1, 4, width)}
    for i in range(blocks):
        made |= {f"blocks.{i}.{name}": tensor for name, tensor in _block(timm_id, width, inner, draw).items()}
    made |= {"norm.weight": draw(width, base=1.0), "norm.bias": draw(width)}
    if timm_id == SIGLIP:
        made["attn_pool.latent"] = draw(1, 1, width)
        for name, shape in (("q", (width, width)), ("kv", (2 * width, width)), ("proj", (width, width))):
            made |= {f"attn_pool.{name}.weight": draw(*shape), f"attn_pool.{name}.bias": draw(shape[0])}
        made |= {"attn_pool.norm.weight": draw(width, base=1.0), "attn_pool.norm.bias": draw(width)}
        made |= {"attn_pool.mlp.fc1.weight": draw(inner, width), "attn_pool.mlp.fc1.bias": draw(inner)}
        made |= {"attn_pool.mlp.fc2.weight": draw(width, inner), "attn_pool.mlp.fc2.bias": draw(width)}
    return made


def _block(timm_id: str, width: int, inner: int, draw: Draw) -> Tensors:
    made: Tensors = {}
    for name, shape in (
        ("attn.qkv", (3 * width, width)),
        ("attn.proj", (width, width)),
        ("mlp.fc1", (inner, width)),
        ("mlp.fc2", (width, inner)),
    ):
        made |= {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}
    for name in ("norm1", "norm2"):
        made |= {f"{name}.weight": draw(width, base=1.0), f"{name}.bias": draw(width)}
    if timm_id == DINO:
        made |= {f"ls{n}.scale_factor": draw(width, base=0.5) for n in (1, 2)}
    return made


def language(name: str, draw: Draw) -> tuple[Tensors, dict[str, Any], Any]:
    """A language model's tensors, its config as OpenVLA writes it (what differs from defaults), and its tokenizer."""
    folder = tiny_checkpoint(name)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = config["vocab_size"]
    if config["model_type"] == "llama":
        tokenizer.add_special_tokens({"pad_token": "<PAD>"})
        rows = len(tokenizer) - 1 + 64
    config |= {"vocab_size": rows, "pad_token_id": tokenizer.pad_token_id, "torch_dtype": "bfloat16"}
    config.pop("dtype", None)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), dtype=torch.float32
    )
    tensors = {}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        norm = tensor.ndim == 1 and key.endswith("weight")
        tensors[f"language_model.{key}"] = draw(*tensor.shape, base=1.0 if norm else 0.0)
    return tensors, config, tokenizer


def whole(
    timm_ids: tuple[str, ...] = (DINO, SIGLIP), *, llm: str = "tiny-llama2", seed: int = 0
) -> tuple[Tensors, dict[str, Any], Any]:
    """Every tensor of a folder, the config of its language model, its tokenizer."""
    draw = Draw(seed)
    tensors, text, tokenizer = language(llm, draw)
    width, wide = text["hidden_size"], sum(WIDTHS[one] for one in timm_ids)
    for prefix, timm_id in zip(("featurizer", "fused_featurizer"), timm_ids, strict=False):
        tensors |= {f"vision_backbone.{prefix}.{name}": tensor for name, tensor in tower(timm_id, draw).items()}
    widths = [wide, 4 * wide, width, width] if len(timm_ids) > 1 else [wide, width, width]
    for number, (narrow, broad) in enumerate(itertools.pairwise(widths), 1):
        tensors |= {f"projector.fc{number}.weight": draw(broad, narrow), f"projector.fc{number}.bias": draw(broad)}
    return tensors, text, tokenizer


def statistics(dims: int = 7, *, proprio: int | None = 8, seed: int = 0) -> dict[str, Any]:
    """Statistics of one data set."""
    random = np.random.default_rng(seed)

    def of(count: int) -> dict[str, Any]:
        low, spread = random.normal(size=count), random.uniform(0.5, 2, size=count)
        made = {"min": low - spread, "q01": low - 0.9 * spread, "mean": low, "q99": low + 0.9 * spread}
        made |= {"max": low + spread, "std": spread / 3}
        return {name: value.tolist() for name, value in made.items()}

    action = {**of(dims), "mask": [True] * (dims - 1) + [False]}
    made = {"action": action, "num_trajectories": 3, "num_transitions": 90}
    return made if proprio is None else {**made, "proprio": of(proprio)}


def made_folder(
    where: Path,
    timm_ids: tuple[str, ...] = (DINO, SIGLIP),
    *,
    llm: str = "tiny-llama2",
    strategy: str = "resize-naive",
    dtype: torch.dtype = torch.bfloat16,
    shards: int = 3,
    seed: int = 0,
    norm_stats: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A folder in Hugging Face's form."""
    where.mkdir(parents=True, exist_ok=True)
    tensors, text, tokenizer = whole(timm_ids, llm=llm, seed=seed)
    write_shards({name: tensor.to(dtype) for name, tensor in tensors.items()}, where, shards)
    if norm_stats is None:
        norm_stats = {"bridge": statistics(seed=1), "fractal": statistics(seed=2)}
    made = {
        "model_type": "openvla",
        "architectures": ["OpenVLAForActionPrediction"],
        "auto_map": {"AutoConfig": "configuration_prismatic.OpenVLAConfig"},
        "arch_specifier": "no-align+fused-gelu-mlp",
        "image_resize_strategy": strategy,
        "image_sizes": [SIZE] * len(timm_ids),
        "llm_backbone_id": "llama2-7b-pure",
        "n_action_bins": 256,
        "norm_stats": norm_stats,
        "pad_to_multiple_of": 64,
        "pad_token_id": 32000 if llm != "tiny-llama2" else tokenizer.pad_token_id,
        "text_config": text,
        "timm_model_ids": list(timm_ids),
        "timm_override_act_layers": ["quick_gelu" if one == CLIP else None for one in timm_ids],
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_fused_vision_backbone": len(timm_ids) > 1,
        **(config or {}),
    }
    (where / "config.json").write_text(json.dumps(made))
    (where / "preprocessor_config.json").write_text(json.dumps(preprocessor(timm_ids, strategy)))
    (where / "modeling_prismatic.py").write_text("raise SystemExit('code of the folder was run')\n")
    tokenizer.save_pretrained(where)
    return where


def write_shards(tensors: Mapping[str, torch.Tensor], where: Path, shards: int) -> None:
    """Shards and their index, as Hugging Face's library writes them."""
    placed = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        own = {key: tensors[key].contiguous() for key in sorted(tensors)[number::shards]}
        save_file(own, where / name, metadata={"format": "pt"})
        placed |= dict.fromkeys(own, name)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": placed}
    (where / "model.safetensors.index.json").write_text(json.dumps(index))


def preprocessor(timm_ids: tuple[str, ...], strategy: str) -> dict[str, Any]:
    """`means` are not what is really used: `tvf_normalize_params` are."""
    side = [SIZE, SIZE] if strategy == "resize-naive" else SIZE
    boxed = strategy == "letterbox"
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "image_resize_strategy": strategy,
        "means": [[round(value, 2) for value in MEANS[one]] for one in timm_ids],
        "stds": [[round(value, 2) for value in STDS[one]] for one in timm_ids],
        "interpolations": ["bicubic"] * len(timm_ids),
        "tvf_resize_params": [
            {"size": side, "interpolation": 3, "antialias": True, "max_size": None} for _ in timm_ids
        ],
        "tvf_crop_params": [{"output_size": [SIZE, SIZE]} for _ in timm_ids],
        "tvf_normalize_params": [{"mean": MEANS[one], "std": STDS[one], "inplace": False} for one in timm_ids],
        "tvf_do_letterbox": boxed,
        "tvf_letterbox_fill": [127, 127, 127] if boxed else None,
    }


def head_tensors(width: int, dims: int, draw: Draw) -> Tensors:
    """OFT's L1 head."""
    made = {"layer_norm1.weight": draw(width * dims, base=1.0), "layer_norm1.bias": draw(width * dims)}
    made |= {"fc1.weight": draw(width, width * dims), "fc1.bias": draw(width)}
    for i in (0, 1):
        stem = f"mlp_resnet_blocks.{i}.ffn"
        made |= {f"{stem}.0.weight": draw(width, base=1.0), f"{stem}.0.bias": draw(width)}
        made |= {f"{stem}.1.weight": draw(width, width), f"{stem}.1.bias": draw(width)}
    made |= {"layer_norm2.weight": draw(width, base=1.0), "layer_norm2.bias": draw(width)}
    made |= {"fc2.weight": draw(dims, width), "fc2.bias": draw(dims)}
    return {f"model.{name}": tensor for name, tensor in made.items()}


def made_oft(
    where: Path,
    *,
    dims: int = 7,
    proprio: int | None = 8,
    head: bool = True,
    data_set: str = "libero_spatial_no_noops",
    seed: int = 0,
    **folder: Any,
) -> Path:
    """A folder as OFT's training leaves it: merged weights, head and projector with DDP's prefix, statistics of its own."""
    made_folder(where, seed=seed, **folder)
    draw, width = Draw(seed + 100), json.loads((where / "config.json").read_text())["text_config"]["hidden_size"]
    if head:
        _save(head_tensors(width, dims, draw), where / "action_head--150000_checkpoint.pt")
    if proprio is not None:
        made = {"fc1.weight": draw(width, proprio), "fc1.bias": draw(width)}
        made |= {"fc2.weight": draw(width, width), "fc2.bias": draw(width)}
        _save(made, where / "proprio_projector--150000_checkpoint.pt")
    own = {data_set: statistics(dims, proprio=proprio or 8, seed=seed + 5)}
    (where / "dataset_statistics.json").write_text(json.dumps(own))
    return where


def _save(tensors: Tensors, file: Path) -> None:
    torch.save({f"module.{name}": tensor.bfloat16() for name, tensor in tensors.items()}, file)


def made_adapter(where: Path, base: Path, *, rank: int = 4, alpha: int = 8, seed: int = 7) -> Path:
    """An adapter over a folder, as PEFT saves OFT's: every linear, a convolution, the head and what it stood on."""
    from vertebra.backbone.weights import mapped_tensors

    tensors, draw = mapped_tensors(base), Draw(seed)
    matrices = [n for n, t in tensors.items() if n.endswith("weight") and t.ndim in (2, 4) and "embed_tokens" not in n]
    made: Tensors = {}
    for name in matrices:
        shape, stem = tensors[name].shape, "base_model.model." + name.removesuffix(".weight")
        ones = (1, 1) if len(shape) == 4 else ()
        made[f"{stem}.lora_A.weight"] = draw(rank, *shape[1:])
        made[f"{stem}.lora_B.weight"] = draw(shape[0], rank, *ones, scale=0.1)
    head = "language_model.lm_head"
    made[f"base_model.model.{head}.base_layer.weight"] = tensors[f"{head}.weight"].float()
    where.mkdir(parents=True, exist_ok=True)
    save_file(made, where / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", "target_modules": ["proj", "qkv", "q_proj"],
        "auto_mapping": {"base_model_class": "OpenVLAForActionPrediction"},
    }  # fmt: skip
    (where / "adapter_config.json").write_text(json.dumps(config))
    return where


def made_run(
    where: Path, *, seed: int = 0, model: Mapping[str, Any] | None = None, steps: tuple[str, ...] = ()
) -> Path:
    """A run of prismatic's with the weights of `made_folder(seed=seed)`, and beside it `llm`, what its id stands for."""
    tensors, text, _ = whole(seed=seed)
    parts: dict[str, Tensors] = {"vision_backbone": {}, "projector": {}, "llm_backbone": {}}
    for name, tensor in tensors.items():
        if name.startswith("language_model."):
            parts["llm_backbone"]["llm." + name.removeprefix("language_model.")] = tensor
        elif name.startswith("projector."):
            _, layer, leaf = name.split(".")
            parts["projector"][f"projector.{2 * (int(layer[2:]) - 1)}.{leaf}"] = tensor
        else:
            own = name.replace("vision_backbone.featurizer.", "dino_featurizer.")
            own = own.replace("vision_backbone.fused_featurizer.", "siglip_featurizer.")
            parts["vision_backbone"][own.replace(".scale_factor", ".gamma")] = tensor
    (where / "checkpoints").mkdir(parents=True)
    for name in steps or ("latest-checkpoint.pt",):
        torch.save({"model": parts}, where / "checkpoints" / name)
    config: dict[str, Any] = {"vla": {"base_vlm": "prism-dinosiglip-224px+7b"}} if model is None else {"model": model}
    (where / "config.json").write_text(json.dumps(config))
    (where / "dataset_statistics.json").write_text(json.dumps({"bridge": statistics(seed=1)}))
    llm = where.parent / f"{where.name}-llm"
    llm.mkdir()
    (llm / "config.json").write_text(json.dumps({**text, "vocab_size": text["vocab_size"] - 64, "pad_token_id": None}))
    transformers.AutoTokenizer.from_pretrained(tiny_checkpoint("tiny-llama2")).save_pretrained(llm)
    return where


def copied(folder: Path, where: Path, **changes: Any) -> Path:
    """A copy of a folder with keys of its config changed (None: taken out)."""
    shutil.copytree(folder, where)
    config = json.loads((where / "config.json").read_text())
    config = {name: value for name, value in {**config, **changes}.items() if value is not None}
    (where / "config.json").write_text(json.dumps(config))
    return where
