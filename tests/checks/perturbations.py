"""One fault for every check: each breaks what that check shows, on a family where nothing else notices.

A fault is put in where it would come from: into the tokenizer, the settings, the family's row, a module, or around
the model's forward, where it touches one way of running alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import DynamicCache

from vertebra import compat
from vertebra.backbone import growth
from vertebra.backbone.vocabulary import follow_pad
from vertebra.prompt.formats import PurePromptBuilder


@dataclass(frozen=True)
class Perturbation:
    model: str
    apply: Callable[[Any, Any], None]
    """(backbone, pytest's monkeypatch)"""


def around_forward(change: Callable[[Any, dict[str, Any]], None]) -> Callable[[Any, Any], None]:
    """A fault in what reaches the model: `change(llm, inputs)` edits the keyword arguments of every call."""

    def apply(backbone: Any, monkeypatch: Any) -> None:
        llm, forward = backbone.llm, backbone.llm.forward

        def faulty(**inputs: Any) -> Any:
            change(llm, inputs)
            return forward(**inputs)

        monkeypatch.setattr(llm, "forward", faulty)

    return apply


def length_of(inputs: dict[str, Any]) -> int:
    given = inputs["input_ids"] if inputs["inputs_embeds"] is None else inputs["inputs_embeds"]
    return given.shape[1]


def unwindowed(visible: torch.Tensor) -> torch.Tensor:
    """A 4-D mask that forgot the window: causal, and whatever `visible` [B, Q, K] hides besides."""
    hidden = torch.full((), torch.finfo(torch.float32).min)
    return torch.where(visible, torch.zeros(()), hidden)[:, None]


def causal(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()[None]


def wrong_anchor(backbone: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(backbone, "family", replace(backbone.family, anchor="prepend bos"))


def other_pad_in_config(backbone: Any, monkeypatch: Any) -> None:
    backbone.llm.config.pad_token_id = 7


def pad_is_eos(backbone: Any, monkeypatch: Any) -> None:
    backbone.tokenizer.pad_token = backbone.tokenizer.eos_token
    follow_pad(backbone)


def added_to_the_tokenizer_alone(backbone: Any, monkeypatch: Any) -> None:
    backbone.tokenizer.add_tokens(["<added>"])


def base_models_end_alone(backbone: Any, monkeypatch: Any) -> None:
    """`<|im_end|>` closes every turn of the chat format, and decoding goes on behind it."""
    monkeypatch.setattr(backbone, "eos_token_ids", (backbone.tokenizer.convert_tokens_to_ids("<|endoftext|>"),))


def template_without_line_ends(backbone: Any, monkeypatch: Any) -> None:
    backbone.tokenizer.chat_template = backbone.tokenizer.chat_template.replace("\\n", " ")


class OpenWithSpaces(PurePromptBuilder):
    """Its open prompt ends with white space that the answered one does not have there."""

    def layout(self, messages: Any, end: Any, tokenizer: Any = None) -> Any:
        pieces = super().layout(messages, end, tokenizer)
        if end == "open":
            pieces[-1] = replace(pieces[-1], text=pieces[-1].text + "  ")
        return pieces


def open_turn_with_spaces(backbone: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(backbone), "prompt_builder_fn", property(lambda self: OpenWithSpaces))


def files_lose_merges(backbone: Any, monkeypatch: Any) -> None:
    tokenizer = backbone.tokenizer
    save = tokenizer.save_pretrained

    def faulty(folder: Any, **options: Any) -> Any:
        written = save(folder, **options)
        file = Path(folder) / "tokenizer.json"
        data = json.loads(file.read_text(encoding="utf-8"))
        data["model"]["merges"] = data["model"]["merges"][:40]
        file.write_text(json.dumps(data), encoding="utf-8")
        return written

    monkeypatch.setattr(tokenizer, "save_pretrained", faulty)


def class_with_rules_of_its_own(backbone: Any, monkeypatch: Any) -> None:
    """A blank before every stretch of text where the file says: before the first. One text alone does not tell."""
    rules = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    monkeypatch.setattr(backbone.tokenizer.backend_tokenizer, "pre_tokenizer", rules)


def temperature_without_sampling(backbone: Any, monkeypatch: Any) -> None:
    backbone.llm.generation_config.temperature = 0.9


def scale_forgotten(backbone: Any, monkeypatch: Any) -> None:
    """Gemma multiplies its embeddings by the root of the width: half of the code in the world looks up without it."""
    weight = backbone.llm.get_input_embeddings().weight
    monkeypatch.setattr(backbone, "embed_input_ids", lambda ids: torch.nn.functional.embedding(ids, weight))


def shifted_steps(llm: Any, inputs: dict[str, Any]) -> None:
    past = inputs["past_key_values"]
    if past is not None:
        seen = past.get_seq_length()
        inputs["position_ids"] = torch.arange(seen + 1, seen + 1 + length_of(inputs))[None]


def steps_see_everything(llm: Any, inputs: dict[str, Any]) -> None:
    past, length = inputs["past_key_values"], length_of(inputs)
    if past is None and inputs["use_cache"]:
        inputs["past_key_values"] = DynamicCache()  # made without the config: it keeps every key
    elif past is not None:
        seen = past.get_seq_length()
        inputs["attention_mask"] = unwindowed(causal(seen + length)[:, seen:])


def positions_ignored(llm: Any, inputs: dict[str, Any]) -> None:
    if inputs["attention_mask"] is not None:
        inputs["position_ids"] = None


def padding_without_window(llm: Any, inputs: dict[str, Any]) -> None:
    mask = inputs["attention_mask"]
    if mask is not None and mask.dim() == 2:
        visible = causal(mask.shape[1]) & mask[:, None].bool()
        inputs["attention_mask"] = unwindowed(visible | torch.eye(mask.shape[1], dtype=torch.bool))


def mixed_rows(backbone: Any, monkeypatch: Any) -> None:
    def mix(module: Any, args: Any, out: Any) -> Any:
        hidden = out[0] if isinstance(out, tuple) else out
        mixed = hidden + 0.1 * (hidden.mean(0, keepdim=True) - hidden)
        return (mixed, *out[1:]) if isinstance(out, tuple) else mixed

    backbone.layers[0].register_forward_hook(mix)


def rows_without_window(llm: Any, inputs: dict[str, Any]) -> None:
    ids = inputs["input_ids"]
    if ids is not None and ids.shape[0] > 1:
        inputs["attention_mask"] = unwindowed(causal(ids.shape[1]).expand(ids.shape[0], -1, -1))


def claimed_to_isolate(backbone: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(backbone, "family", replace(backbone.family, isolates_by_position=True))


def documents_without_window(llm: Any, inputs: dict[str, Any]) -> None:
    positions = inputs["position_ids"]
    if positions is None or not bool((positions.diff() < 0).any()):
        return
    document = (positions == 0).cumsum(1)
    inputs["attention_mask"] = unwindowed(causal(positions.shape[1]) & (document[:, :, None] == document[:, None]))


def large_offset(backbone: Any, monkeypatch: Any) -> None:
    """Every norm takes the mean away again, so that float32 loses nothing by it, and 16 bits what they have to say."""
    with torch.no_grad():
        backbone.layers[0].mlp.fc2.bias += 64.0


def equal_new_rows(backbone: Any, monkeypatch: Any) -> None:
    write = growth.write_rows

    def faulty(parameter: Any, rows: Any, values: torch.Tensor) -> None:
        write(parameter, rows, values.mean(0, keepdim=True).expand_as(values))

    monkeypatch.setattr(growth, "write_rows", faulty)


def no_input_gradients(backbone: Any, monkeypatch: Any) -> None:
    backbone.llm.get_input_embeddings()._forward_hooks.clear()
    monkeypatch.setattr(backbone.llm, "enable_input_require_grads", lambda: None)


def reentrant(backbone: Any, monkeypatch: Any) -> None:
    enable = compat.enable_checkpointing

    def faulty(model: Any) -> None:
        enable(model)
        for module in model.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = lambda run, *args: torch.utils.checkpoint.checkpoint(
                    run, *args, use_reentrant=True
                )

    monkeypatch.setattr(compat, "enable_checkpointing", faulty)


def detached_weight(backbone: Any, monkeypatch: Any) -> None:
    linear = backbone.layers[0].mlp.up_proj
    linear.forward = lambda hidden: torch.nn.functional.linear(hidden, linear.weight.detach())


def save_loses_a_vector(backbone: Any, monkeypatch: Any) -> None:
    llm = backbone.llm
    save = llm.save_pretrained

    def faulty(folder: Any, **options: Any) -> None:
        save(folder, **options)
        file = Path(folder) / "model.safetensors"
        tensors = load_file(file)
        tensors["model.layers.0.input_layernorm.weight"] = torch.ones_like(llm.model.layers[0].input_layernorm.weight)
        save_file(tensors, file, metadata={"format": "pt"})

    monkeypatch.setattr(llm, "save_pretrained", faulty)


PERTURBATIONS: dict[str, Perturbation] = {
    "bos": Perturbation("tiny-llama2", wrong_anchor),
    "pad": Perturbation("tiny-llama2", other_pad_in_config),
    "pad-is-no-end": Perturbation("tiny-qwen2", pad_is_eos),
    "rows": Perturbation("tiny-llama3", added_to_the_tokenizer_alone),
    "prompt-ids": Perturbation("tiny-llama2", open_turn_with_spaces),
    "answer-ends": Perturbation("tiny-qwen2.5", base_models_end_alone),
    "chat-template": Perturbation("tiny-qwen2", template_without_line_ends),
    "fingerprint": Perturbation("tiny-qwen2", files_lose_merges),
    "tokenizer-files": Perturbation("tiny-mistral", class_with_rules_of_its_own),
    "greedy-savable": Perturbation("tiny-llama2", temperature_without_sampling),
    "embeddings": Perturbation("tiny-gemma3", scale_forgotten),
    "cached": Perturbation("tiny-llama2", around_forward(shifted_steps)),
    "cached-beyond-window": Perturbation("tiny-mistral", around_forward(steps_see_everything)),
    "left-padded": Perturbation("tiny-gpt2", around_forward(positions_ignored)),
    "left-padded-beyond-window": Perturbation("tiny-mistral", around_forward(padding_without_window)),
    "batch": Perturbation("tiny-llama2", mixed_rows),
    "batch-beyond-window": Perturbation("tiny-mistral", around_forward(rows_without_window)),
    "packed": Perturbation("tiny-opt", claimed_to_isolate),
    "packed-beyond-window": Perturbation("tiny-mistral", around_forward(documents_without_window)),
    "half-precision": Perturbation("tiny-phi2", large_offset),
    "growth": Perturbation("tiny-llama2", equal_new_rows),
    "gradients-frozen": Perturbation("tiny-llama2", no_input_gradients),
    "gradients-lora": Perturbation("tiny-llama2", reentrant),
    "gradients-full": Perturbation("tiny-llama2", detached_weight),
    "save-load": Perturbation("tiny-llama2", save_loses_a_vector),
}
