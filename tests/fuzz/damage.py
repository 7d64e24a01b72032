"""Ways to damage the files of a folder, drawn from a seeded generator: values, keys, bytes, names and whole files.

What cannot be written with `json.dumps` (a number of 5,000 digits, a nesting of 100,000) stands in the tree as a mark,
and takes its place in the text.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz.templates import HOSTILE

DIGITS, DEEP, HUGE = "@digits@", "@deep@", "@huge@"
_WRITTEN = {DIGITS: "7" * 5000, DEEP: "[" * 100_000 + "]" * 100_000, HUGE: "1e400"}
ODD = (
    None, True, False, 0, 1, -1, 3, 10**6, 10**12, 2**63, -(10**12), 0.5, float("nan"), float("inf"), DIGITS, DEEP, HUGE,
    "", " ", "a", "0", "None", "\ud800", "\x00", "x" * 70_000, "<s>", "../outside.safetensors", "/etc/hostname", "..",
    [], {}, [[]], [None], [1, "a"], [0] * 50, {"": None}, {"a": {"b": [1]}}, [{}], ["a"], {"0": 0},
)  # fmt: skip

# Names that readers look for, whether a folder has them or not.
NAMES = {
    "config.json": (
        "auto_map", "quantization_config", "transformers_weights", "_attn_implementation", "text_config", "rope_scaling",
        "rope_parameters", "pad_token_id", "eos_token_id", "layer_types", "tie_word_embeddings", "dtype", "torch_dtype",
        "max_position_embeddings", "n_positions", "vocab_size", "sliding_window", "is_decoder", "num_hidden_layers",
        "_name_or_path", "architectures", "id2label", "num_labels", "head_dim", "base_model_tp_plan", "model_type",
    ),
    "tokenizer_config.json": (
        "tokenizer_class", "chat_template", "tokenizer_file", "vocab_file", "merges_file", "extra_special_tokens",
        "added_tokens_decoder", "auto_map", "model_max_length", "additional_special_tokens", "pad_token", "bos_token",
        "add_bos_token", "fast_tokenizer_files", "padding_side", "truncation_side", "model_input_names", "backend",
        "special_tokens", "is_local", "clean_up_tokenization_spaces", "name_or_path", "unk_token", "eos_token",
    ),
    "generation_config.json": ("eos_token_id", "bos_token_id", "temperature", "do_sample"),
    "tokenizer.json": ("truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"),
}  # fmt: skip


def damage(folder: Path, draw: random.Random, outside: Path) -> str:
    """Damage one thing in a folder; says what."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    json_files = [path for path in files if path.suffix == ".json"]
    templates = [path for path in files if path.suffix == ".jinja"]
    tensors = [path for path in files if path.suffix == ".safetensors"]
    ways: list[tuple[int, Callable[[], str]]] = (
        [(12, lambda: _in_tree(draw.choice(json_files), draw))] if json_files else []
    )
    if tensors:
        ways.append((4, lambda: _in_header(draw.choice(tensors), draw)))
    if templates:
        ways.append((2, lambda: _template(draw.choice(templates), draw)))
    ways += [
        (4, lambda: in_bytes(draw.choice(files), draw)),
        (2, lambda: _whole_file(draw.choice(files), files, draw)),
    ]
    ways.append((1, lambda: _points_outside(folder, draw, outside)))
    return draw.choices([way for _, way in ways], [weight for weight, _ in ways])[0]()


def replace(path: Path, content: bytes | str) -> None:
    """Other content under the same name; a link to the sound folder's file is left behind."""
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def written(tree: Any) -> str:
    text = json.dumps(tree)
    for mark, put in _WRITTEN.items():
        text = text.replace(json.dumps(mark), put)
    return text


def _in_tree(path: Path, draw: random.Random) -> str:
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return in_bytes(path, draw)
    tree, what = damaged_tree(tree, draw, NAMES.get(path.name, ()))
    replace(path, written(tree))
    return f"{path.name}: {what}"


def damaged_tree(tree: Any, draw: random.Random, names: tuple[str, ...] = ()) -> tuple[Any, str]:
    """A tree with one value, key or item changed, most often near its root."""
    odd = draw.choice(ODD)
    if draw.random() < 0.04:
        return odd, f"is {_short(odd)}"
    if names and isinstance(tree, dict) and draw.random() < 0.3:
        name = draw.choice(names)
        return {**tree, name: odd}, f"{name} = {_short(odd)}"
    holder, way = tree, ""
    while True:
        if not isinstance(holder, dict | list) or not holder:
            return odd, f"is {_short(odd)}"
        key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
        way += f"/{key}"
        below = holder[key]
        if isinstance(below, dict | list) and below and draw.random() < 0.7:
            holder = below
            continue
        break
    act = draw.choice(("set", "set", "set", "drop", "wrap", "rename", "twice"))
    if act == "drop" or (act == "rename" and isinstance(holder, list)):
        del holder[key]
    elif act == "wrap":
        holder[key] = draw.choice(([below], {"a": below}, str(below), [below] * 3))
    elif act == "rename":
        holder[draw.choice((f"{key}x", "", "type", "id"))] = holder.pop(key)
    elif act == "twice" and isinstance(holder, list):
        holder.insert(key, below)
    else:
        holder[key], act = odd, _short(odd)
    return tree, f"{way[-60:]}: {act}"


def _in_header(path: Path, draw: random.Random) -> str:
    """The header of a safetensors file, its length made to fit."""
    data = path.read_bytes()
    try:
        length = struct.unpack("<Q", data[:8])[0]
        tree, what = damaged_tree(json.loads(data[8 : 8 + length]), draw)
    except (ValueError, struct.error):
        return in_bytes(path, draw)
    header = written(tree).encode("utf-8", "surrogatepass")
    replace(path, struct.pack("<Q", len(header)) + header + data[8 + length :])
    return f"{path.name} header: {what}"


def in_bytes(path: Path, draw: random.Random) -> str:
    data = bytearray(path.read_bytes())
    act = draw.choice(("flip", "flip", "cut", "insert", "empty", "zeros", "double"))
    at = draw.randrange(len(data)) if data else 0
    if draw.random() < 0.5:
        at = min(at, 200)  # where headers are
    if act == "flip" and data:
        for _ in range(draw.choice((1, 1, 20))):
            data[draw.randrange(len(data)) if draw.random() < 0.5 else at] = draw.randrange(256)
    elif act == "cut":
        del data[at:]
    elif act == "insert":
        data[at:at] = draw.choice((b"\x00", b"\xff\xfe", b'"', b"}", b"\xed\xa0\x80", b"{" * 3000))
    elif act == "zeros":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    elif act == "double":
        data += bytes(data)
    else:
        data.clear()
    replace(path, bytes(data))
    return f"{path.name}: {act} at {at}"


def _whole_file(path: Path, files: list[Path], draw: random.Random) -> str:
    act = draw.choice(("remove", "folder", "other", "dangling", "loop"))
    other = draw.choice(files)
    content = other.read_bytes()
    path.unlink()
    if act == "folder":
        path.mkdir()
    elif act == "other":
        path.write_bytes(content)
    elif act == "dangling":
        path.symlink_to("nowhere")
    elif act == "loop":
        path.symlink_to(path.name)
    return f"{path.name}: {act}{f' ({other.name})' if act == 'other' else ''}"


def _points_outside(folder: Path, draw: random.Random, outside: Path) -> str:
    """A file of the folder names one that lies beside it, and which is sound: whoever obeys reads it."""
    relative = os.path.relpath(outside, folder)
    where = draw.choice((relative, str(outside), f"x/../{relative}"))
    act = draw.choice(("index", "tokenizer_file", "vocab_file", "transformers_weights", "adapter", "name_or_path"))
    if act == "index":
        for path in folder.glob("*.safetensors"):
            path.unlink()
        names = outside / "names.json"
        index = {
            "metadata": {},
            "weight_map": dict.fromkeys(json.loads(names.read_text()), f"{where}/model.safetensors"),
        }
        replace(folder / "model.safetensors.index.json", json.dumps(index))
        return "index names a shard outside"
    name = "config.json" if act in ("transformers_weights", "name_or_path") else "tokenizer_config.json"
    if act == "adapter":
        settings = {"peft_type": "LORA", "base_model_name_or_path": where, "r": 2, "target_modules": ["q_proj"]}
        replace(folder / "adapter_config.json", json.dumps(settings))
        return "adapter_config.json names a base outside"
    missing = {"tokenizer_file": "tokenizer.json", "transformers_weights": "model.safetensors"}.get(act)
    if missing is not None and draw.random() < 0.7:
        (folder / missing).unlink(missing_ok=True)
    target = {"tokenizer_file": "/tokenizer.json", "vocab_file": "/tokenizer.json"}.get(act, "/model.safetensors")
    if act == "name_or_path":
        act, target = "_name_or_path", ""
    path = folder / name
    try:
        settings = json.loads(path.read_bytes())
        replace(path, json.dumps({**settings, act: where + target}))
    except (OSError, ValueError, TypeError):
        replace(path, json.dumps({act: where + target}))
    return f"{name}: {act} names a file outside"


def _template(path: Path, draw: random.Random) -> str:
    number = draw.randrange(len(HOSTILE) + 40)
    if number >= len(HOSTILE):
        return in_bytes(path, draw)
    before = path.read_text() if draw.random() < 0.2 else ""
    replace(path, before + HOSTILE[number])
    return f"{path.name}: template {HOSTILE[number]:.80}"


def _short(value: Any) -> str:
    return f"{value!r:.40}"
