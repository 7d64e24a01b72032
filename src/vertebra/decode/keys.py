"""The keys of a transformers `GenerationConfig` that are no settings of ours, and what becomes of each: none is ignored.

ours      a row of `settings.py`
hf        Hugging Face's engine honors it
hf ids    the same, but only for prompts of ids: with embeddings it crashes or means something else
none      says nothing about decoding
refused   by name, with the reason
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Fate = Literal["ours", "hf", "hf ids", "none", "refused"]


@dataclass(frozen=True)
class OptionKey:
    """What becomes of one key."""

    fate: Fate
    why: str = ""
    setting: str | None = None
    """Our own name for it, where that differs."""


_REMOTE = "it needs code from a remote repository since transformers 5, which is never run here"
_ENCODER = "it belongs to models with an encoder of their own"
_DRAFT = "assisted decoding crashes with embeddings, and needs a second model"

FOREIGN: Mapping[str, OptionKey] = MappingProxyType(
    {
        # how a token is chosen
        "guidance_scale": OptionKey("hf ids", "its pass without a prompt is made of ids"),
        "watermarking_config": OptionKey("hf ids", "its mark depends on the id before, and the first has none there"),
        # beams and several answers
        "num_beams": OptionKey("hf"),
        "early_stopping": OptionKey("hf"),
        "length_penalty": OptionKey("hf"),
        "num_beam_groups": OptionKey("refused", _REMOTE),
        "diversity_penalty": OptionKey("refused", _REMOTE),
        "constraints": OptionKey("refused", _REMOTE + "; see `constraint`"),
        "force_words_ids": OptionKey("refused", _REMOTE + "; see `constraint`"),
        "penalty_alpha": OptionKey("refused", _REMOTE),
        "dola_layers": OptionKey("refused", _REMOTE),
        "low_memory": OptionKey("refused", "it belonged to contrastive search; " + _REMOTE),
        # caches and compilation
        "cache_config": OptionKey("hf"),
        "disable_compile": OptionKey("hf"),
        "compile_config": OptionKey("hf"),
        "continuous_batching_config": OptionKey("refused", "it belongs to a server of transformers' own"),
        # what is shown
        "return_dict_in_generate": OptionKey("none"),
        # guessing ahead
        "prompt_lookup_num_tokens": OptionKey("hf ids", "looking ahead in the prompt needs its ids"),
        "max_matching_ngram_size": OptionKey("hf ids", "it belongs to prompt_lookup_num_tokens"),
        "token_healing": OptionKey("refused", "it makes the prompt shorter and not its mask, and then crashes"),
        "is_assistant": OptionKey("refused", _DRAFT),
        "num_assistant_tokens": OptionKey("refused", _DRAFT),
        "num_assistant_tokens_schedule": OptionKey("refused", _DRAFT),
        "assistant_confidence_threshold": OptionKey("refused", _DRAFT),
        "assistant_early_exit": OptionKey("refused", _DRAFT),
        "assistant_ensemble_weight": OptionKey("refused", _DRAFT),
        "assistant_lookbehind": OptionKey("refused", _DRAFT),
        "target_lookbehind": OptionKey("refused", _DRAFT),
        "speculation_type": OptionKey("refused", _DRAFT),
        "use_mtp": OptionKey("refused", _DRAFT),
        # encoder-decoder models
        "encoder_repetition_penalty": OptionKey("refused", _ENCODER),
        "encoder_no_repeat_ngram_size": OptionKey("refused", _ENCODER),
        "decoder_start_token_id": OptionKey("refused", _ENCODER),
        # what a file says about itself
        "bos_token_id": OptionKey("none"),
        "transformers_version": OptionKey("none"),
        "_from_model_config": OptionKey("none"),
    }
)
