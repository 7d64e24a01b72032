"""Prompt formats as data: the marks around a system prompt, a question and an answer, and what a format cannot say.

A row says everything in which one format differs from another; the builders read it. It knows no tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

SystemRule = Literal["carry", "inside", "refuse", "drop"]
"""What happens to a system prompt: it has a block of its own; it stands inside the first question; the format has no
place for it, which is an error; or it vanishes, as it did in the historical builders."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One format. A pair is what stands before and after a message."""

    name: str
    user: tuple[str, str]
    answer: tuple[str, str]
    stop: str
    """How much of `answer[1]` the model must say itself in order to stop."""
    system: tuple[str, str] = ("", "")
    system_rule: SystemRule = "refuse"
    default_system: str | None = None
    """Written when no system prompt is given."""
    start: str = ""
    """Written once, before everything."""
    bos: str | None = None
    """The BOS that this format was made for. Never written into the text; rendering sees to it that it is there once."""
    strips: bool = True
    """Outer white space of messages is cut off."""
    image_mark: str | None = None
    """A mark of the data, not text: cut out of messages that are plain strings."""
    to_the_letter: bool = False
    """OpenVLA's own builders, faults and all, for old checkpoints: an empty system prompt is written and keeps its marks,
    `image_mark` stays in it, is cut from the others when rendering too, an empty question is one, and
    `get_potential_prompt` cleans nothing. Otherwise an image is a part, and a typed mark stays text."""
    empty_answer: str = ""
    """What an empty answer becomes."""
    trims_open: bool = False
    """An open prompt ends without the white space that precedes the answer."""
    marks: tuple[str, ...] = ()
    """Marks that are plain text, so that a user can type them: they are warned of."""

    def __post_init__(self) -> None:
        assert self.answer[1].startswith(self.stop), f"{self.name}: what follows an answer begins with its stop mark"

    def ending(self, eos: str) -> Template:
        """The same format, its answers stopped by another token: for tokenizers without `</s>`."""
        old = self.stop.strip()
        after = self.answer[1].replace(old, eos)
        return replace(self, answer=(self.answer[0], after), stop=self.stop.replace(old, eos))


_OPENVLA_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


def _historical(
    name: str, user: tuple[str, str], marks: tuple[str, ...], *, stop: str = "</s>", bos: str | None = "<s>"
) -> Template:
    """The habits that OpenVLA's builders share."""
    return Template(
        name=name,
        user=user,
        answer=("", stop),
        stop=stop,
        bos=bos,
        image_mark="<image>",
        empty_answer=" ",
        trims_open=True,
        marks=marks,
    )


def _turns(name: str, before: str, after: str, *, answerer: str = "assistant", **facts: object) -> Template:
    """A format whose blocks differ only in the speaker's name, written where `{}` stands."""
    gap = "\n" if after.endswith("\n") else ""
    return Template(
        name=name,
        user=(before.format("user"), after),
        answer=(before.format(answerer), after),
        stop=after.removesuffix(gap),
        system=(before.format("system"), after),
        **facts,  # type: ignore[arg-type]
    )


BARE = Template(name="bare", user=("", ""), answer=("", "</s>"), stop="</s>", bos="<s>")
PURE = _historical("pure", ("In: ", "\nOut: "), ("In:", "Out:"))
LLAMA2_CHAT = replace(
    _historical("llama2-chat", ("[INST] ", " [/INST] "), ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")),
    system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
    system_rule="inside",
    default_system=_OPENVLA_SYSTEM,
)
VICUNA_V15 = replace(
    _historical("vicuna-v15", ("USER: ", " ASSISTANT: "), ("USER:", "ASSISTANT:")),
    system=("", " "),
    system_rule="carry",
    default_system=_VICUNA_SYSTEM,
)
MISTRAL_INSTRUCT = _historical("mistral-instruct", ("[INST] ", " [/INST] "), ("[INST]", "[/INST]"))
PHI = replace(
    # Phi's tokenizer adds no BOS: the format writes its own, and the same token ends an answer.
    _historical("phi", ("Input: ", "\nOutput: "), ("Input:", "Output:"), stop="\n<|endoftext|>", bos=None),
    start="<|endoftext|>",
)
CHATML = _turns("chatml", "<|im_start|>{}\n", "<|im_end|>\n", system_rule="carry", strips=False)
LLAMA3 = _turns(
    "llama3",
    "<|start_header_id|>{}<|end_header_id|>\n\n",
    "<|eot_id|>",
    system_rule="carry",
    bos="<|begin_of_text|>",
)
GEMMA = _turns("gemma", "<start_of_turn>{}\n", "<end_of_turn>\n", answerer="model", bos="<bos>")
PHI3 = _turns("phi3", "<|{}|>\n", "<|end|>\n", system_rule="carry", strips=False)
PHI4 = _turns("phi4", "<|{}|>", "<|end|>", system_rule="carry", strips=False)


def _legacy(template: Template, name: str, **changes: object) -> Template:
    """The spelling with which OpenVLA-era checkpoints were trained."""
    return replace(template, name=name, to_the_letter=True, **changes)  # type: ignore[arg-type]


PURE_LEGACY = _legacy(PURE, "pure-legacy", system_rule="drop")
LLAMA2_CHAT_LEGACY = _legacy(LLAMA2_CHAT, "llama2-chat-legacy", system=("<<SYS>\n", "\n<</SYS>>\n\n"))
VICUNA_V15_LEGACY = _legacy(VICUNA_V15, "vicuna-v15-legacy")
MISTRAL_LEGACY = _legacy(MISTRAL_INSTRUCT, "mistral-legacy", system_rule="drop")
PHI_LEGACY = _legacy(PHI, "phi-legacy", system_rule="drop")

TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        BARE,
        PURE,
        LLAMA2_CHAT,
        VICUNA_V15,
        MISTRAL_INSTRUCT,
        PHI,
        CHATML,
        LLAMA3,
        GEMMA,
        PHI3,
        PHI4,
        PURE_LEGACY,
        LLAMA2_CHAT_LEGACY,
        VICUNA_V15_LEGACY,
        MISTRAL_LEGACY,
        PHI_LEGACY,
    )
}
"""Every format by name."""
