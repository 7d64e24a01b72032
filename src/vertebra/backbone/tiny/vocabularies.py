"""The tokenizers of the tiny checkpoints, one a family: which tokens are special, in which order, and what is added.

The order is the real repositories' (`<unk> <s> </s>` first, Qwen's marks last), their number is smaller. It knows
nothing of models.
"""

from __future__ import annotations

from typing import Any

from vertebra.backbone.tiny.spec import TinyTokenizer

END = "<|endoftext|>"

_LLAMA_FIRST = ("<unk>", "<s>", "</s>")
_GPT2_NAMES = {"unk_token": END, "bos_token": END, "eos_token": END}
_RESERVED = tuple(f"<|reserved_special_token_{n}|>" for n in range(20))
_QWEN = (END, "<|im_start|>", "<|im_end|>")
_QWEN_VISION = (
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
_QWEN_TOOLS = (
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)
_GEMMA_FIRST = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"),
    *(f"<unused{n}>" for n in range(8)),
    *("<start_of_turn>", "<end_of_turn>"),
)
_SMOLLM2_FIRST = (
    *(END, "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>"),
    *("<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>"),
    *("<jupyter_output>", "<jupyter_script>", "<empty_output>"),
)
# Phi-2 and Pythia have runs of white space as added tokens that are not special.
_SPACES = tuple(" " * n for n in range(31, 1, -1))
_TABS = tuple("\t" * n for n in range(9, 1, -1))


def _llama() -> TinyTokenizer:
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    settings = {**names, "add_bos_token": True, "legacy": False}
    return TinyTokenizer(kind="metaspace", cls="LlamaTokenizer", size=960, first=_LLAMA_FIRST, settings=settings)


def _qwen(size: int, last: tuple[str, ...] = _QWEN, plain: tuple[str, ...] = ()) -> TinyTokenizer:
    names = {"unk_token": None, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": END}
    return TinyTokenizer(kind="qwen", cls="Qwen2Tokenizer", size=size, last=last, plain=plain, settings=names)


def _gemma() -> TinyTokenizer:
    names = {name + "_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk", "mask")}
    settings = {**names, "add_bos_token": True}
    return TinyTokenizer(kind="gemma", cls="GemmaTokenizer", size=960, first=_GEMMA_FIRST, settings=settings)


def _opt() -> TinyTokenizer:
    names = {"unk_token": "</s>", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return TinyTokenizer(
        kind="gpt2",
        cls="GPT2Tokenizer",
        size=762,
        first=("<s>", "<pad>", "</s>", "<unk>"),
        settings={**names, "add_bos_token": True},
    )


def _gpt2_like(cls: str, size: int, *, last: tuple[str, ...] = (END,), **parts: Any) -> TinyTokenizer:
    return TinyTokenizer(kind="gpt2", cls=cls, size=size, last=last, **{"settings": _GPT2_NAMES, **parts})


# Phi-3's own tokens, all but the first of which swallow the newline that its template writes after them.
_PHI3_LAST = (
    *(END, "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>"),
    *("<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"),
)

TOKENIZERS: dict[str, TinyTokenizer] = {
    "llama2": _llama(),
    "mistral": _llama(),
    "phi3": TinyTokenizer(
        kind="prepend",
        cls="TokenizersBackend",
        size=971,
        first=_LLAMA_FIRST,
        last=_PHI3_LAST,
        swallow=True,
        settings={"unk_token": "<unk>", "bos_token": "<s>", "eos_token": END, "pad_token": END},
    ),
    "llama3": TinyTokenizer(
        kind="llama3",
        cls="TokenizersBackend",
        size=768,
        last=(
            *("<|begin_of_text|>", "<|end_of_text|>", *_RESERVED[:4], "<|start_header_id|>", "<|end_header_id|>"),
            *(_RESERVED[4], "<|eot_id|>", *_RESERVED[5:]),
        ),
        settings={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "add_bos_token": True},
    ),
    "smollm3": TinyTokenizer(
        kind="llama3",
        cls="TokenizersBackend",
        size=768,
        last=(
            *("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", *_RESERVED[:6]),
            *("<|im_start|>", "<|im_end|>"),
        ),
        plain=("<think>", "</think>", "<tool_call>", "</tool_call>"),
        settings={"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    ),
    "phi": _gpt2_like("CodeGenTokenizer", 760, plain=(*_SPACES, *_TABS)),
    "gpt2": _gpt2_like("GPT2Tokenizer", 768),
    "smollm2": _gpt2_like(
        "GPT2Tokenizer",
        768,
        first=_SMOLLM2_FIRST,
        last=(),
        settings={"unk_token": END, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    ),
    "opt": _opt(),
    "qwen2": _qwen(763),
    "qwen2.5": _qwen(782, (*_QWEN, *_QWEN_VISION), _QWEN_TOOLS),
    "qwen3": _qwen(
        786, (*_QWEN, *_QWEN_VISION), (*_QWEN_TOOLS, "<tool_response>", "</tool_response>", "<think>", "</think>")
    ),
    "gemma2": _gemma(),
    "gemma3": _gemma(),
    "pythia": TinyTokenizer(
        kind="neox",
        cls="GPTNeoXTokenizer",
        size=760,
        first=(END, "<|padding|>"),
        plain=_SPACES[7:],
        settings={**_GPT2_NAMES, "pad_token": "<|padding|>"},
    ),
    "bert": TinyTokenizer(
        kind="wordpiece",
        cls="BertTokenizer",
        size=1000,
        first=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        settings={
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
            "do_lower_case": True,
        },
    ),
}
