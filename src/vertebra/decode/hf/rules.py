"""Our rules as a logits processor of transformers: what reads the prompt's text reads the same text there.

The library's own penalties see ids alone: the reserved ones of slots too where a prompt is ids, and none of the prompt
where it is embeddings. Beams change places from step to step, so that nothing is kept from one to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from vertebra.decode.choose.constraint import Follower
from vertebra.decode.choose.history import History
from vertebra.decode.choose.sampling import NEVER, Call, Context, Rule, Space, needs_history, rules_of
from vertebra.decode.settings import DecodeConfig
from vertebra.decode.start import Start
from vertebra.decode.state.inputs import encoded
from vertebra.errors import GenerationError


class OurRules(LogitsProcessor):
    """Everything that comes before temperature and top-k, and what a constraint leaves."""

    def __init__(self, begun: Start, rules: list[Rule], follower: Follower | None, *, reads: bool) -> None:
        self._rules, self._follower, self._reads = rules, follower, reads
        self._vocabulary, self._pad = begun.language.num_logits, begun.model.backbone.pad_token_id
        self._ids = begun.batch["input_ids"]
        state = begun.state
        self._text = begun.model.text(begun.batch, encoded(begun.model, begun.batch)) if state is None else state.text
        self._columns: int | None = None

    @classmethod
    def of(cls, begun: Start, settings: DecodeConfig, eos: Sequence[int]) -> OurRules | None:
        """The processor of a call, or None where there is nothing to do."""
        vocabulary = begun.language.num_logits
        call = Call(ends=eos, vocabulary=vocabulary, last_step=begun.most - 1, prompt=begun.batch.length)
        rules = rules_of(settings, call, before=True)
        follower = None
        if settings.constraint is not None:
            follower = settings.constraint.follow(
                begun.batch.rows,
                tokenizer=begun.model.backbone.tokenizer,
                vocabulary=vocabulary,
                ends=eos,
                steps=begun.most,
                device=begun.language.device,
            )
            if follower.ids(0) is None:
                raise GenerationError('a grammar follows each row, and beams change places; use engine="vertebra"')
        return cls(begun, rules, follower, reads=needs_history(settings)) if rules or follower is not None else None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self._columns is None:
            self._columns = input_ids.shape[1]  # at the first step: the prompt, or nothing where it is embeddings
        new = input_ids[:, self._columns :]
        step = new.shape[1]
        context = Context(self._history(new, len(scores)) if self._reads else None, Space(), step)
        changed: torch.Tensor = scores
        if self._follower is not None:
            ids = self._follower.ids(step)
            assert ids is not None
            changed = torch.full_like(scores, NEVER).index_copy(1, ids, scores[:, ids])
        for rule in self._rules:
            changed = rule(changed, context)
        return changed  # type: ignore[return-value]

    def _history(self, new: torch.Tensor, rows: int) -> History:
        times = rows // len(self._ids)
        generated = torch.ones_like(new, dtype=torch.bool)
        ids = torch.cat([self._ids.repeat_interleave(times, 0), new], 1)
        text = torch.cat([self._text.repeat_interleave(times, 0), generated], 1)
        return History(ids, text, vocabulary=self._vocabulary, pad_id=self._pad)
