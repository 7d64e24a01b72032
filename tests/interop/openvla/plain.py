"""OpenVLA and OFT as plain as they can be written, on the tensors of a folder: what the model is compared with.

Towers are timm's layers in order, written out; the language model is the library's own, given embeddings that are joined
by hand. One row at a time, no cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file

from tests.interop.openvla.made import CLIP, DINO, HEADS, MEANS, STDS

Tensors = Mapping[str, torch.Tensor]


class Original:
    """What is in a folder, in fp32."""

    def __init__(self, folder: Path, tensors: Tensors | None = None) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        found = {}
        for file in sorted(folder.glob("model*.safetensors")):
            found |= load_file(file)
        self.tensors = {name: tensor.float() for name, tensor in (tensors or found).items()}
        text = self.config["text_config"]
        self.llm = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**text), dtype=torch.float32, attn_implementation="eager"
        ).eval()
        own = {n.removeprefix("language_model."): t for n, t in self.tensors.items() if n.startswith("language_model.")}
        missing, unexpected = self.llm.load_state_dict(own, strict=False)
        assert not unexpected
        assert set(missing) <= ({"lm_head.weight"} if text.get("tie_word_embeddings") else set())
        self.rows = text["vocab_size"]
        self.timm = self.config["timm_model_ids"]

    def patches(self, image: np.ndarray, text: torch.Tensor | None = None) -> torch.Tensor:
        """[patches, width] of 8-bit pixels [3, H, W]."""
        found = []
        for prefix, timm_id in zip(("featurizer.", "fused_featurizer."), self.timm, strict=False):
            stem = "vision_backbone." + prefix
            own = {n.removeprefix(stem): t for n, t in self.tensors.items() if n.startswith(stem)}
            mean, std = (torch.tensor(numbers[timm_id])[:, None, None] for numbers in (MEANS, STDS))
            found.append(vit(own, (torch.from_numpy(image).float() / 255 - mean) / std, timm_id, text))
        return torch.cat(found, -1)

    def projected(self, image: np.ndarray, text: torch.Tensor | None = None) -> torch.Tensor:
        x, number = self.patches(image, text), 1
        while f"projector.fc{number}.weight" in self.tensors:
            x = F.gelu(x) if number > 1 else x
            x = linear(x, self.tensors, f"projector.fc{number}")
            number += 1
        return x

    def embed(self, ids: list[int]) -> torch.Tensor:
        return self.llm.get_input_embeddings()(torch.tensor(ids))

    def logits(self, ids: list[int], image: np.ndarray) -> torch.Tensor:
        """[positions, rows]: patches behind BOS, everything causal."""
        embeds = self.embed(ids)
        joined = torch.cat([embeds[:1], self.projected(image), embeds[1:]])
        return self.llm(inputs_embeds=joined[None]).logits[0]

    def actions(self, ids: list[int], image: np.ndarray, count: int) -> list[int]:
        """Greedy ids, of all tokens, without a cache."""
        ids = list(ids)
        for _ in range(count):
            ids.append(int(self.logits(ids, image)[-1].argmax()))
        return ids[-count:]

    def chunk(
        self, ids: list[int], images: list[np.ndarray], proprio: torch.Tensor | None, slots: int, film: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [slots, D] and logits [slots, rows], read one before each slot; everything sees everything."""
        text, stop = self.embed(ids), self.embed([2])
        embedding = torch.cat([text, stop]).mean(0) if film else None
        parts = [text[:1], *[self.projected(image, embedding) for image in images]]
        parts += [] if proprio is None else [proprio[None]]
        parts += [text[1:], torch.zeros(slots, text.shape[1]), stop]
        joined = torch.cat(parts)[None]
        everything = torch.zeros(1, 1, joined.shape[1], joined.shape[1])
        out = self.llm(inputs_embeds=joined, attention_mask=everything, output_hidden_states=True)
        first = joined.shape[1] - slots - 2
        return out.hidden_states[-1][0, first : first + slots], out.logits[0, first : first + slots]


def vit(t: Tensors, pixels: torch.Tensor, timm_id: str, text: torch.Tensor | None = None) -> torch.Tensor:
    """The output of the last block but one, patches alone."""
    eps = 1e-5 if timm_id == CLIP else 1e-6
    act: Any = (lambda x: x * torch.sigmoid(1.702 * x)) if timm_id == CLIP else F.gelu
    patch = t["patch_embed.proj.weight"].shape[-1]
    x = F.conv2d(pixels[None], t["patch_embed.proj.weight"], t.get("patch_embed.proj.bias"), stride=patch)
    x, skipped = x.flatten(2).transpose(1, 2)[0], 0
    if timm_id == CLIP:
        x, skipped = torch.cat([t["cls_token"][0], x]) + t["pos_embed"][0], 1
        x = norm(x, t, "norm_pre", eps)
    else:
        x = x + t["pos_embed"][0]
    if timm_id == DINO:
        x, skipped = torch.cat([t["cls_token"][0], t["reg_token"][0], x]), 5
    blocks = 1 + max(int(name.split(".")[1]) for name in t if name.startswith("blocks."))
    for i in range(blocks - 1):
        stem = f"blocks.{i}"
        x = x + attention(norm(x, t, f"{stem}.norm1", eps), t, f"{stem}.attn") * t.get(f"{stem}.ls1.scale_factor", 1)
        if text is not None:
            x = x * (1 + linear(text, t, f"{stem}.scale")) + linear(text, t, f"{stem}.shift")
        inner = act(linear(norm(x, t, f"{stem}.norm2", eps), t, f"{stem}.mlp.fc1"))
        x = x + linear(inner, t, f"{stem}.mlp.fc2") * t.get(f"{stem}.ls2.scale_factor", 1)
    return x[skipped:]


def attention(x: torch.Tensor, t: Tensors, stem: str) -> torch.Tensor:
    length, width = x.shape
    q, k, v = linear(x, t, f"{stem}.qkv").reshape(length, 3, HEADS, width // HEADS).permute(1, 2, 0, 3)
    seen = (q @ k.transpose(1, 2) * (width // HEADS) ** -0.5).softmax(-1)
    return linear((seen @ v).transpose(0, 1).reshape(length, width), t, f"{stem}.proj")


def linear(x: torch.Tensor, t: Tensors, stem: str) -> torch.Tensor:
    return F.linear(x, t[f"{stem}.weight"], t[f"{stem}.bias"])


def norm(x: torch.Tensor, t: Tensors, stem: str, eps: float) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], t[f"{stem}.weight"], t[f"{stem}.bias"], eps)


def l1_head(states: torch.Tensor, t: Tensors, dims: int) -> torch.Tensor:
    """[chunk, dims] from the states [chunk · dims, D] of the slots."""
    x = states.reshape(-1, dims * states.shape[1])
    x = F.relu(linear(norm(x, t, "model.layer_norm1", 1e-5), t, "model.fc1"))
    for i in (0, 1):
        stem = f"model.mlp_resnet_blocks.{i}.ffn"
        x = x + F.relu(linear(norm(x, t, f"{stem}.0", 1e-5), t, f"{stem}.1"))
    return linear(norm(x, t, "model.layer_norm2", 1e-5), t, "model.fc2")


def proprio_token(state: torch.Tensor, t: Tensors) -> torch.Tensor:
    return linear(F.gelu(linear(state, t, "fc1")), t, "fc2")


def part_file(folder: Path, part: str) -> dict[str, torch.Tensor]:
    """The tensors of one of OFT's files, in fp32."""
    (file,) = folder.glob(f"{part}--*.pt")
    loaded = torch.load(file, weights_only=True)
    return {name.removeprefix("module."): tensor.float() for name, tensor in loaded.items()}
