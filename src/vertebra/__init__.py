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
    "choose": "vertebra.tune.choose",
    "TuneConfig": "vertebra.tune.choose",
    "LoraSettings": "vertebra.tune.lora",
    "load_adapter": "vertebra.tune.adapter",
    "save_adapter": "vertebra.tune.adapter",
    "merge": "vertebra.tune.merge",
    "RunConfig": "vertebra.train.config",
    "read_recipe": "vertebra.train.recipes",
    "consolidate": "vertebra.train.scale.shards",
    "MultimodalModel": "vertebra.multimodal.model",
    "ModelFiles": "vertebra.multimodal.folder",
    "new_part": "vertebra.multimodal.fresh",
    "new_queries": "vertebra.multimodal.fresh",
    "VisionTower": "vertebra.multimodal.vision.tower",
    "FusedTowers": "vertebra.multimodal.vision.fused",
    "PatchEncoder": "vertebra.multimodal.patches",
    "BoxTables": "vertebra.multimodal.layout",
    "BoxWaves": "vertebra.multimodal.layout",
    "VectorEncoder": "vertebra.multimodal.vector",
    "register_encoder": "vertebra.multimodal.kinds",
    "inject_at_prefill": "vertebra.multimodal.hook",
    "stream": "vertebra.generate.call",
    "prefill": "vertebra.generate.prefilling",
    "score": "vertebra.generate.scoring",
    "fill": "vertebra.generate.parallel",
    "DecodeState": "vertebra.generate.state",
    "Generation": "vertebra.generate.result",
    "AllowedIds": "vertebra.generate.constraint",
    "AllowedSteps": "vertebra.generate.constraint",
    "open_source": "vertebra.data.sources.open",
    "Mixture": "vertebra.data.mixture",
    "prepare": "vertebra.data.prepare",
    "TextEncoder": "vertebra.data.encoders",
    "WordEncoder": "vertebra.data.encoders",
    "ChatEncoder": "vertebra.data.chat",
    "PairEncoder": "vertebra.data.pairs",
    "Blocks": "vertebra.data.causal",
    "Windows": "vertebra.data.causal",
    "KeyTokens": "vertebra.data.keytokens",
    "Collator": "vertebra.data.collate",
    "Shuffled": "vertebra.data.samplers",
    "LengthGrouped": "vertebra.data.samplers",
    "Packed": "vertebra.data.samplers",
    "Loader": "vertebra.data.loader",
    "StreamLoader": "vertebra.data.stream",
    "load_masked_lm": "vertebra.data.masked.model",
    "masked_blocks": "vertebra.data.masked.masks",
    "check_backbone": "vertebra.check.run",
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
