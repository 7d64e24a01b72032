"""How one model writes prompts, in one object: format, tokenizer, sizes of its slots, the rule for BOS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vertebra.prompt.assembly import Traced
from vertebra.prompt.rendering import Anchor, Conversation, render_traced
from vertebra.prompt.tokenizer import tokenizer_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Renderer:
    """Writes conversations as one model reads them."""

    builder: Any
    tokenizer: Any
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Slots of each part of the model."""
    anchored: tuple[str, ...] = ()
    """Parts whose slots stand right after BOS."""
    anchor: Anchor | None = None

    @classmethod
    def of(cls, model: Any) -> Renderer:
        """Of a `Model`, or of the `ModelFacts` of one."""
        backbone = model.backbone
        form = backbone.prompt_builder_fn
        return cls(
            builder=form.of(model.tokenizer) if form.follows_tokenizer else form,
            tokenizer=model.tokenizer,
            sizes=dict(model.sizes),
            anchored=tuple(model.anchored),
            anchor=backbone.anchor,
        )

    def __call__(self, turns: Conversation, *, open_turn: bool | None = None) -> Traced:
        """The conversation as a sequence, with the way back to the lines of its pages."""
        return render_traced(
            [turns],
            self.builder,
            self.tokenizer,
            self.sizes,
            open_turn=open_turn,
            anchor=self.anchor,
            anchored=self.anchored,
        )[0]

    def count(self, texts: list[str]) -> list[int]:
        """How many tokens each text is, by itself."""
        encoded = tokenizer_of(self.tokenizer).encode(texts, [[(0, len(text))] for text in texts]) if texts else []
        return [len(one.ids) for one in encoded]
