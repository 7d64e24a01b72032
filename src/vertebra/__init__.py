"""Vertebra: the language backbone of vision-language-action and document models.

Importing this package imports neither torch nor transformers, sets no seed, configures no logging and touches no
network: each public name is resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# One line a public name: where it lives. The exports test walks this table.
_HOME = {
    "TokenSequence": "vertebra.sequence.tokens",
    "Role": "vertebra.sequence.tokens",
    "PromptBuilder": "vertebra.prompt.builders",
    "PurePromptBuilder": "vertebra.prompt.formats",
    "LLaMa2ChatPromptBuilder": "vertebra.prompt.formats",
    "VicunaV15ChatPromptBuilder": "vertebra.prompt.formats",
    "MistralInstructPromptBuilder": "vertebra.prompt.formats",
    "PhiPromptBuilder": "vertebra.prompt.formats",
    "ChatMLPromptBuilder": "vertebra.prompt.formats",
    "LLaMa3PromptBuilder": "vertebra.prompt.formats",
    "GemmaPromptBuilder": "vertebra.prompt.formats",
    "TemplatePromptBuilder": "vertebra.prompt.chat_template",
    "prompt_builder": "vertebra.prompt.registry",
    "register_prompt_builder": "vertebra.prompt.registry",
    "render": "vertebra.prompt.rendering",
    "render_many": "vertebra.prompt.rendering",
    "LLMBackbone": "vertebra.backbone.interface",
    "HFCausalLLMBackbone": "vertebra.backbone.causal",
    "LLaMa2LLMBackbone": "vertebra.backbone.families.llama2",
    "MistralLLMBackbone": "vertebra.backbone.families.mistral",
    "PhiLLMBackbone": "vertebra.backbone.families.phi",
    "load": "vertebra.interop.load",
    "load_backbone": "vertebra.backbone.registry",
    "get_llm_backbone_and_tokenizer": "vertebra.backbone.registry",
    "register_family": "vertebra.backbone.registry",
    "register_model": "vertebra.backbone.registry",
    "Family": "vertebra.backbone.families.table",
    "grow_vocabulary": "vertebra.backbone.vocabulary",
    "undo_growth": "vertebra.backbone.vocabulary",
    "fingerprint": "vertebra.backbone.habits",
    "Batch": "vertebra.sequence.batch",
    "collate": "vertebra.sequence.batch",
    "uncollate": "vertebra.sequence.batch",
    "AttentionFacts": "vertebra.sequence.masks",
    "AttentionPlan": "vertebra.sequence.masks",
    "pack_sequences": "vertebra.sequence.packing",
    "StreamPacker": "vertebra.sequence.packing",
    "sequence_loss": "vertebra.sequence.loss",
    "supervised_positions": "vertebra.sequence.loss",
    "mask_takes_effect": "vertebra.sequence.probe",
    "choose": "vertebra.tune.stages",
    "TuneConfig": "vertebra.tune.stages",
    "LoraSettings": "vertebra.tune.lora",
    "load_adapter": "vertebra.tune.adapter",
    "save_adapter": "vertebra.tune.adapter",
    "merge": "vertebra.tune.merge",
    "RunConfig": "vertebra.training.config",
    "read_recipe": "vertebra.training.recipes",
    "consolidate": "vertebra.training.scale.shards",
    "Model": "vertebra.model.model",
    "ModelFiles": "vertebra.model.folder",
    "new_part": "vertebra.model.fresh",
    "new_queries": "vertebra.model.fresh",
    "VisionTower": "vertebra.model.encoders.vision.tower",
    "FusedTowers": "vertebra.model.encoders.vision.fused",
    "PatchEncoder": "vertebra.model.encoders.patches",
    "BoxTables": "vertebra.model.encoders.boxes",
    "BoxWaves": "vertebra.model.encoders.boxes",
    "VectorEncoder": "vertebra.model.encoders.vector",
    "register_encoder": "vertebra.model.encoders.kinds",
    "inject_at_prefill": "vertebra.model.hook",
    "generate": "vertebra.decode.call",
    "stream": "vertebra.decode.call",
    "trace": "vertebra.decode.tracing.trace",
    "prefill": "vertebra.decode.state.prefill",
    "score": "vertebra.decode.scoring",
    "fill": "vertebra.decode.parallel",
    "DecodeState": "vertebra.decode.state.decoding",
    "Generation": "vertebra.decode.result",
    "AllowedIds": "vertebra.decode.choose.constraint",
    "AllowedSteps": "vertebra.decode.choose.constraint",
    "open_source": "vertebra.data.read.open",
    "Mixture": "vertebra.data.samples.mixture",
    "prepare": "vertebra.data.encode.prepare",
    "TextEncoder": "vertebra.data.encode.encoders",
    "WordEncoder": "vertebra.data.encode.encoders",
    "ChatEncoder": "vertebra.data.encode.chat",
    "PairEncoder": "vertebra.data.encode.pairs",
    "Blocks": "vertebra.data.samples.causal",
    "Windows": "vertebra.data.samples.causal",
    "KeyTokens": "vertebra.data.encode.keytokens",
    "Collator": "vertebra.data.loaders.collate",
    "Shuffled": "vertebra.data.loaders.samplers",
    "LengthGrouped": "vertebra.data.loaders.samplers",
    "Packed": "vertebra.data.loaders.samplers",
    "Loader": "vertebra.data.loaders.loader",
    "StreamLoader": "vertebra.data.loaders.stream",
    "load_masked_lm": "vertebra.data.encode.masked_model",
    "masked_blocks": "vertebra.data.encode.masks",
    "check_backbone": "vertebra.checks.run",
    "VertebraError": "vertebra.errors",
    "TINY": "vertebra.backbone.tiny",
    "tiny_checkpoint": "vertebra.backbone.tiny",
    "write_tiny": "vertebra.backbone.tiny",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        from vertebra.errors import did_you_mean

        raise AttributeError(f"module 'vertebra' has no attribute '{name}'.{did_you_mean(name, _HOME)}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
