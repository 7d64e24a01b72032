"""Prompts: formats as data, builders that write turn by turn, and `render`, which makes a `TokenSequence` in one pass.

A tokenizer is two methods to this package. It uses neither models nor torch.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "formats": "ChatMLPromptBuilder LLaMa3PromptBuilder GemmaPromptBuilder Phi3PromptBuilder Phi4PromptBuilder",
        "chat_template": "TemplatePromptBuilder",
        "registry": "prompt_builder prompt_builder_names",
        "rendering": "render_many",
        "tokenizer": "Tokenizer",
        "templates": "Template",
    },
)
