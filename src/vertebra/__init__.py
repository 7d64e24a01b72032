"""Vertebra: the language backbone of vision-language-action and document models.

Importing this package imports neither torch nor transformers, sets no seed, configures no logging and touches no
network: each public name is resolved on first use.
"""

from __future__ import annotations

from vertebra.lazy import offer

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        # the verbs
        "interop.load": "load",
        "prompt.rendering": "render",
        "interop.verbs": "generate stream trace score fill",
        "interop.acting": "policy",
        "interop.documents": "extract",
        "checks.run": "check",
        "training.verbs": "train plan",
        "tune.merge": "merge",
        # what they take and give
        "model.model": "Model",
        "sequence.tokens": "TokenSequence",
        "sequence.batch": "Batch collate",
        "errors": "VertebraError",
        "backbone.interface": "LLMBackbone",
        "backbone.causal": "HFCausalLLMBackbone",
        "backbone.families.llama2": "LLaMa2LLMBackbone",
        "backbone.families.mistral": "MistralLLMBackbone",
        "backbone.families.phi": "PhiLLMBackbone",
        "backbone.registry": "load_backbone get_llm_backbone_and_tokenizer register_family register_model",
        "backbone.vocabulary": "grow_vocabulary undo_growth",
        "prompt.builders": "PromptBuilder",
        "prompt.formats": "PurePromptBuilder LLaMa2ChatPromptBuilder VicunaV15ChatPromptBuilder "
        "MistralInstructPromptBuilder PhiPromptBuilder",
        "prompt.registry": "register_prompt_builder",
        "model.encoders.kinds": "register_encoder",
        "model.heads.kinds": "register_head",
        "model.hook": "inject_at_prefill",
        # the rooms behind: everything else, by one spelling
        "": "action backbone bulk checks client data decode documents episodes evaluate layout model page policies "
        "prompt sequence serve simulate tasks training tune",
    },
)
