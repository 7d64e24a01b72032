"""Every key of a transformers `GenerationConfig`, and what becomes of it: one row a key, and none is ignored in silence.

ours      our engine honors it (and Hugging Face's too, where it is asked for)
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

KEYS: Mapping[str, Key] = MappingProxyType(
    {
        # how long
        "max_new_tokens": Key("ours"),
        "min_new_tokens": Key("ours"),
        "max_length": Key("ours"),
        "min_length": Key("ours"),
        "max_time": Key("ours"),
        "stop_strings": Key("ours"),
        "eos_token_id": Key("ours"),
        "pad_token_id": Key("ours"),
        # how a token is chosen
        "do_sample": Key("ours"),
        "temperature": Key("ours"),
        "top_k": Key("ours"),
        "top_p": Key("ours"),
        "min_p": Key("ours"),
        "top_h": Key("hf"),
        "typical_p": Key("hf"),
        "epsilon_cutoff": Key("hf"),
        "eta_cutoff": Key("hf"),
        "repetition_penalty": Key("ours"),
        "no_repeat_ngram_size": Key("ours"),
        "sequence_bias": Key("ours"),
        "bad_words_ids": Key("ours"),
        "suppress_tokens": Key("ours"),
        "begin_suppress_tokens": Key("ours"),
        "forced_bos_token_id": Key("ours"),
        "forced_eos_token_id": Key("ours"),
        "exponential_decay_length_penalty": Key("hf"),
        "renormalize_logits": Key("ours"),
        "remove_invalid_values": Key("ours"),
        "guidance_scale": Key("hf ids", "its pass without a prompt is made of ids"),
        "watermarking_config": Key("hf ids", "its mark depends on the id before, and the first has none there"),
        # beams and several answers
        "num_return_sequences": Key("ours"),
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
        "use_cache": Key("ours"),
        "cache_implementation": Key("ours", setting="cache"),
        "cache_config": Key("hf"),
        "max_cache_len": Key("ours", setting="cache_length"),
        "prefill_chunk_size": Key("ours", setting="chunk"),
        "disable_compile": Key("hf"),
        "compile_config": Key("hf"),
        "continuous_batching_config": Key("refused", "it belongs to a server of transformers' own"),
        # what is shown
        "output_logits": Key("ours"),
        "output_scores": Key("ours"),
        "output_hidden_states": Key("ours"),
        "output_attentions": Key("ours"),
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
