"""GGUF files made from tiny checkpoints by the `gguf` package, as llama.cpp's converter lays them out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from gguf import GGUFWriter
from gguf.constants import MODEL_ARCH, GGMLQuantizationType, TokenType
from gguf.quants import dequantize, quantize
from gguf.tensor_mapping import get_tensor_name_map
from safetensors.numpy import load_file

F32 = GGMLQuantizationType.F32


def write_gguf(folder: Path, file: Path, *, rule: str = "smollm", kind: GGMLQuantizationType = F32) -> dict:
    """A LLaMA-like folder with a byte-level tokenizer as a GGUF file; what its tensors are after dequantizing."""
    config = json.loads((folder / "config.json").read_text())
    writer = GGUFWriter(str(file), "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, folder, config, rule)
    kept = _add_tensors(writer, folder, config, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def _add_tokenizer(writer: GGUFWriter, folder: Path, config: dict, rule: str) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    vocab = {**described["model"]["vocab"], **{added["content"]: added["id"] for added in described["added_tokens"]}}
    special = {added["id"] for added in described["added_tokens"] if added["special"]}
    tokens = sorted(vocab, key=vocab.__getitem__)
    tokens += [f"[PAD{number}]" for number in range(len(tokens), config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(tokens)
    types = [TokenType.CONTROL if number in special else TokenType.NORMAL for number in range(len(vocab))]
    writer.add_token_types(types + [TokenType.UNUSED] * (len(tokens) - len(vocab)))
    writer.add_token_merges([" ".join(merge) for merge in described["model"]["merges"]])
    for name in ("bos", "eos", "pad"):
        getattr(writer, f"add_{name}_token_id")(config[f"{name}_token_id"])
    writer.add_unk_token_id(vocab["<|endoftext|>"])
    template = folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text())


def _add_tensors(writer: GGUFWriter, folder: Path, config: dict, kind: GGMLQuantizationType) -> dict:
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    kept = {}
    for name, value in load_file(folder / "model.safetensors").items():
        stored = value
        for part, count in heads.items():
            if f"{part}.weight" in name:  # llama.cpp turns pairs of a head side by side
                stored = value.reshape(count, 2, len(value) // count // 2, -1).swapaxes(1, 2).reshape(value.shape)
        packed = kind if value.ndim > 1 else F32
        raw = quantize(np.ascontiguousarray(stored, np.float32), packed)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), raw, raw_dtype=packed)
        exact = dequantize(raw, packed)
        for part, count in heads.items():
            if f"{part}.weight" in name:
                exact = exact.reshape(count, len(exact) // count // 2, 2, -1).swapaxes(1, 2).reshape(exact.shape)
        kept[name] = exact
    return kept
