"""Kind `chat`: a language model on conversations, rendered by its own prompt builder; the answers are what is learned.

Sentence pairs become conversations too: a question whose answer is the name of the class.
"""

from __future__ import annotations

from typing import ClassVar

from vertebra.data.encode.added import trusted_roles
from vertebra.data.encode.chat import ChatEncoder, speaker
from vertebra.data.encode.encoders import Encoder
from vertebra.prompt.rendering import render
from vertebra.sequence.tokens import TokenSequence
from vertebra.tasks.classes import classes_of
from vertebra.tasks.task import Job, Task


class Chat(Task):
    """Answers are predicted from what was asked."""

    name: ClassVar[str] = "chat"
    reads: ClassVar[tuple[str, ...]] = ("messages", "sharegpt", "alpaca", "prompt_completion", "pairs")
    settings: ClassVar[tuple[str, ...]] = ("block", "too_long", "system", "fold_system", "trusted", "labels")
    supervised: ClassVar[float] = 0.35

    def encoder(self, job: Job) -> Encoder:
        data, model = job.data, job.model
        return ChatEncoder.of(
            model.backbone,
            system=data.system,
            fold_system=data.fold_system,
            sizes=model.sizes,
            anchored=model.anchored,
            trusted=data.trusted,
            labels=model.labels or classes_of(data),
        )

    def prompt(self, text: str, job: Job) -> TokenSequence:
        backbone, data = job.model.backbone, job.data
        return render(
            [{"role": "user", "content": text}],
            speaker(backbone, data.system, fold=data.fold_system),
            backbone.tokenizer,
            anchor=backbone.anchor,
            trusted=trusted_roles(data.trusted),
        )
