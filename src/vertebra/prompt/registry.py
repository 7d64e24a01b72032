"""Prompt builders by name: what family tables, configs and model folders hold is the plain string."""

from __future__ import annotations

from vertebra.errors import ConfigError, UnknownNameError
from vertebra.prompt import formats
from vertebra.prompt.builders import PromptBuilder, TurnPromptBuilder
from vertebra.prompt.chat_template import TemplatePromptBuilder

_BUILDERS: dict[str, type[PromptBuilder]] = {
    cls.name: cls
    for cls in (
        formats.BarePromptBuilder,
        formats.PurePromptBuilder,
        formats.LLaMa2ChatPromptBuilder,
        formats.VicunaV15ChatPromptBuilder,
        formats.MistralInstructPromptBuilder,
        formats.PhiPromptBuilder,
        formats.ChatMLPromptBuilder,
        formats.LLaMa3PromptBuilder,
        formats.GemmaPromptBuilder,
        formats.Phi3PromptBuilder,
        formats.Phi4PromptBuilder,
        formats.PureLegacyPromptBuilder,
        formats.LLaMa2ChatLegacyPromptBuilder,
        formats.VicunaV15LegacyPromptBuilder,
        formats.MistralLegacyPromptBuilder,
        formats.PhiLegacyPromptBuilder,
        TemplatePromptBuilder,
    )
}


def prompt_builder(name: str, *, eos: str | None = None) -> type[PromptBuilder]:
    """The builder class of a name, such as `pure`, `chatml` or `llama2-chat-legacy`.

    `eos`: end answers with this token instead of the format's own, for a plain-text format such as `pure` on a
    tokenizer that has no `</s>`.
    """
    cls = _BUILDERS.get(name) if isinstance(name, str) else None
    if cls is None:
        raise UnknownNameError("prompt builder", name, _BUILDERS)
    if eos is None:
        return cls
    if not issubclass(cls, TurnPromptBuilder):
        raise ConfigError(f"the `{name}` builder takes its stop tokens from the tokenizer's template; leave `eos` out")
    return cls.ending(eos)


def prompt_builder_names() -> list[str]:
    """Every name that `prompt_builder` accepts."""
    return list(_BUILDERS)


def register_prompt_builder(name: str, cls: type[PromptBuilder]) -> None:
    """Make a builder of one's own known by name."""
    if name in _BUILDERS:
        raise ConfigError(f"a prompt builder `{name}` exists ({_BUILDERS[name].__name__}); choose another name")
    if not (isinstance(cls, type) and issubclass(cls, PromptBuilder)):
        raise ConfigError(f"a prompt builder is a class that extends PromptBuilder, not {cls!r:.80}")
    _BUILDERS[name] = cls
