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
class Key:
    """What becomes of one key."""

    fate: Fate
    why: str = ""
    setting: str | None = None
    """Our own name for it, where that differs."""


_REMOTE = "it needs code from a remote repository since transformers 5, which is never run here"
_ENCODER = "it belongs to models with an encoder of their own"
_DRAFT = "assisted decoding crashes with embeddings, and needs a second model"

FOREIGN: Mapping[str, Key] = MappingProxyType(
    {
        # how a token is chosen
        "guidance_scale": Key("hf ids", "its pass without a prompt is made of ids"),
        "watermarking_config": Key("hf ids", "its mark depends on the id before, and the first has none there"),
        # beams and several answers
        "num_beams": Key("hf"),
        "early_stopping": Key("hf"),
        "length_penalty": Key("hf"),
        "num_beam_groups": Key("refused", _REMOTE),
        "diversity_penalty": Key("refused", _REMOTE),
        "constraints": Key("refused", _REMOTE + "; see `constraint`"),
        "force_words_ids": Key("refused", _REMOTE + "; see `constraint`"),
        "penalty_alpha": Key("refused", _REMOTE),
        "dola_layers": Key("refused", _REMOTE),
        "low_memory": Key("refused", "it belonged to contrastive search; " + _REMOTE),
        # caches and compilation
        "cache_config": Key("hf"),
        "disable_compile": Key("hf"),
        "compile_config": Key("hf"),
        "continuous_batching_config": Key("refused", "it belongs to a server of transformers' own"),
        # what is shown
        "return_dict_in_generate": Key("none"),
        # guessing ahead
        "prompt_lookup_num_tokens": Key("hf ids", "looking ahead in the prompt needs its ids"),
        "max_matching_ngram_size": Key("hf ids", "it belongs to prompt_lookup_num_tokens"),
        "token_healing": Key("refused", "it makes the prompt shorter and not its mask, and then crashes"),
        "is_assistant": Key("refused", _DRAFT),
        "num_assistant_tokens": Key("refused", _DRAFT),
        "num_assistant_tokens_schedule": Key("refused", _DRAFT),
        "assistant_confidence_threshold": Key("refused", _DRAFT),
        "assistant_early_exit": Key("refused", _DRAFT),
        "assistant_ensemble_weight": Key("refused", _DRAFT),
        "assistant_lookbehind": Key("refused", _DRAFT),
        "target_lookbehind": Key("refused", _DRAFT),
        "speculation_type": Key("refused", _DRAFT),
        "use_mtp": Key("refused", _DRAFT),
        # encoder-decoder models
        "encoder_repetition_penalty": Key("refused", _ENCODER),
        "encoder_no_repeat_ngram_size": Key("refused", _ENCODER),
        "decoder_start_token_id": Key("refused", _ENCODER),
        # what a file says about itself
        "bos_token_id": Key("none"),
        "transformers_version": Key("none"),
        "_from_model_config": Key("none"),
    }
)
