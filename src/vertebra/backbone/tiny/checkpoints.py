"""The table of tiny checkpoints: for every family its true classes, small sizes, and the real habits that tests need.

A row imitates one real repository (`hub_name`): the ids in its config, the size of its matrix beside its vocabulary,
its windows, its chat format, and what it ships in `generation_config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vertebra.backbone.tiny.spec import TinySpec
from vertebra.backbone.tiny.vocabularies import END, TOKENIZERS

WINDOW = 8
"""The sliding window of the families that have one: short, so that a short prompt already leaves it."""

_LLAMA_IDS = {"bos_token_id": "<s>", "eos_token_id": "</s>"}
_END_IDS = {"bos_token_id": END, "eos_token_id": END}
_QWEN_IDS = {"bos_token_id": END, "eos_token_id": "<|im_end|>"}
_OPT_IDS = {"bos_token_id": "</s>", "eos_token_id": "</s>", "pad_token_id": "<pad>"}
_GEMMA_IDS = {"bos_token_id": "<bos>", "eos_token_id": "<eos>", "pad_token_id": "<pad>"}


def _rope(theta: float, **settings: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **settings}


def _row(
    family: str,
    hub_name: str,
    cls: str,
    ids: Mapping[str, str | tuple[str, ...]],
    *,
    name: str | None = None,
    rows: int | None = None,
    template: str | None = None,
    generation: Mapping[str, Any] | None = None,
    generation_ids: Mapping[str, str | tuple[str, ...]] | None = None,
    **config: Any,
) -> TinySpec:
    """A rotary model of the usual sizes; only what differs is given."""
    tokenizer = TOKENIZERS[family]
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    }
    return TinySpec(
        name=name or f"tiny-{family}",
        family=family,
        hub_name=hub_name,
        llm_cls=f"{cls}ForCausalLM",
        config_cls="Gemma3TextConfig" if cls == "Gemma3" else f"{cls}Config",
        config={**sizes, **config},
        ids=ids,
        tokenizer=tokenizer,
        rows=rows or tokenizer.size,
        template=template,
        generation=generation,
        generation_ids=generation_ids or {},
    )


def _opt(name: str, hub_name: str, **config: Any) -> TinySpec:
    sizes = {
        "hidden_size": 64,
        "ffn_dim": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "activation_function": "relu",
        "dropout": 0.1,
    }
    return TinySpec(
        name=name,
        family="opt",
        hub_name=hub_name,
        llm_cls="OPTForCausalLM",
        config_cls="OPTConfig",
        config={**sizes, **config},
        ids=_OPT_IDS,
        tokenizer=TOKENIZERS["opt"],
        rows=768,
    )


_ROWS = (
    _row(
        "llama2",
        "meta-llama/Llama-2-7b-hf",
        "Llama",
        _LLAMA_IDS,
        template="llama2",
        # Sampling settings without sampling, and unk as pad: what Vicuna and the LLaMA-2 chat models really ship.
        generation={"_from_model_config": True, "max_length": 512, "temperature": 0.9, "top_p": 0.6},
        generation_ids={"pad_token_id": "<unk>"},
        rms_norm_eps=1e-5,
        rope_parameters=_rope(10_000.0),
    ),
    _row(
        "llama3",
        "meta-llama/Meta-Llama-3-8B-Instruct",
        "Llama",
        {"bos_token_id": "<|begin_of_text|>", "eos_token_id": "<|eot_id|>"},
        template="llama3",
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 512},
        generation_ids={"eos_token_id": ("<|end_of_text|>", "<|eot_id|>")},
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_parameters=_rope(500_000.0),
    ),
    _row(
        "mistral",
        "mistralai/Mistral-7B-Instruct-v0.1",
        "Mistral",
        _LLAMA_IDS,
        template="mistral",
        num_key_value_heads=2,
        sliding_window=WINDOW,
        rms_norm_eps=1e-5,
        rope_parameters=_rope(10_000.0),
    ),
    _row(
        "phi",
        "microsoft/phi-2",
        "Phi",
        _END_IDS,
        name="tiny-phi2",
        rows=832,
        hidden_act="gelu_new",
        layer_norm_eps=1e-5,
        resid_pdrop=0.1,
        rope_parameters=_rope(10_000.0, partial_rotary_factor=0.5),
    ),
    _row(
        "phi3",
        "microsoft/Phi-3-mini-4k-instruct",
        "Phi3",
        {"bos_token_id": "<s>", "eos_token_id": END, "pad_token_id": END},
        rows=1024,
        template="phi3",
        generation={},
        generation_ids={"eos_token_id": (END, "<|assistant|>", "<|end|>")},
        original_max_position_embeddings=512,
        sliding_window=WINDOW,
        rms_norm_eps=1e-5,
        rope_parameters=_rope(10_000.0),
    ),
    _row(
        "qwen2",
        "Qwen/Qwen2-7B-Instruct",
        "Qwen2",
        _QWEN_IDS,
        rows=832,
        template="qwen2",
        num_key_value_heads=2,
        use_sliding_window=False,
        sliding_window=WINDOW,
        max_window_layers=2,
        rms_norm_eps=1e-6,
        rope_parameters=_rope(1_000_000.0),
    ),
    _row(
        "qwen2.5",
        "Qwen/Qwen2.5-0.5B-Instruct",
        "Qwen2",
        _QWEN_IDS,
        rows=832,
        template="qwen2.5",
        generation={"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1},
        generation_ids={"pad_token_id": END, "eos_token_id": ("<|im_end|>", END)},
        num_key_value_heads=2,
        use_sliding_window=False,
        sliding_window=WINDOW,
        max_window_layers=2,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        rope_parameters=_rope(1_000_000.0),
    ),
    _row(
        "qwen3",
        "Qwen/Qwen3-0.6B",
        "Qwen3",
        _QWEN_IDS,
        rows=832,
        template="qwen3",
        num_key_value_heads=2,
        head_dim=24,
        use_sliding_window=False,
        max_window_layers=2,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        rope_parameters=_rope(1_000_000.0),
    ),
    _opt("tiny-opt", "facebook/opt-125m", do_layer_norm_before=True),
    _opt("tiny-opt-narrow", "facebook/opt-350m", do_layer_norm_before=False, word_embed_proj_dim=32),
    TinySpec(
        name="tiny-gpt2",
        family="gpt2",
        hub_name="openai-community/gpt2",
        llm_cls="GPT2LMHeadModel",
        config_cls="GPT2Config",
        config={"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
        ids=_END_IDS,
        tokenizer=TOKENIZERS["gpt2"],
        rows=768,
    ),
    _row(
        "gemma2",
        "google/gemma-2-2b-it",
        "Gemma2",
        _GEMMA_IDS,
        template="gemma2",
        generation={"_from_model_config": True},
        generation_ids={"eos_token_id": ("<eos>", "<end_of_turn>")},
        num_key_value_heads=2,
        head_dim=24,
        query_pre_attn_scalar=24,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        hidden_activation="gelu_pytorch_tanh",
        attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
        rms_norm_eps=1e-6,
        rope_parameters=_rope(10_000.0),
    ),
    _row(
        "gemma3",
        "google/gemma-3-1b-it",
        "Gemma3",
        _GEMMA_IDS,
        template="gemma3",
        generation={"do_sample": True, "top_k": 64, "top_p": 0.95},
        generation_ids={"eos_token_id": ("<eos>", "<end_of_turn>")},
        num_hidden_layers=3,
        num_key_value_heads=1,
        head_dim=24,
        query_pre_attn_scalar=24,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        hidden_activation="gelu_pytorch_tanh",
        rms_norm_eps=1e-6,
        rope_parameters={"full_attention": _rope(1_000_000.0), "sliding_attention": _rope(10_000.0)},
    ),
    _row(
        "smollm2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Llama",
        {"bos_token_id": "<|im_start|>", "eos_token_id": "<|im_end|>", "pad_token_id": "<|im_end|>"},
        template="smollm2",
        num_key_value_heads=2,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        rope_parameters=_rope(100_000.0),
    ),
    _row(
        "smollm3",
        "HuggingFaceTB/SmolLM3-3B",
        "SmolLM3",
        {
            "bos_token_id": "<|begin_of_text|>",
            "eos_token_id": "<|im_end|>",
            "pad_token_id": "<|finetune_right_pad_id|>",
        },
        template="smollm3",
        num_hidden_layers=4,
        num_key_value_heads=2,
        no_rope_layers=[1, 1, 1, 0],
        no_rope_layer_interval=4,
        tie_word_embeddings=True,
        rms_norm_eps=1e-6,
        rope_parameters=_rope(5_000_000.0),
    ),
    _row(
        "pythia",
        "EleutherAI/pythia-160m",
        "GPTNeoX",
        _END_IDS,
        rows=768,
        hidden_act="gelu",
        use_parallel_residual=True,
        layer_norm_eps=1e-5,
        rope_parameters=_rope(10_000.0, partial_rotary_factor=0.5),
    ),
)

TINY: dict[str, TinySpec] = {spec.name: spec for spec in _ROWS}
"""Every language model, by the id that a person types."""

TINY_ENCODERS: dict[str, TinySpec] = {
    "tiny-bert": TinySpec(
        name="tiny-bert",
        family="bert",
        hub_name="google-bert/bert-base-uncased",
        llm_cls="BertForMaskedLM",
        config_cls="BertConfig",
        config={
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
        },
        ids={"pad_token_id": "[PAD]"},
        tokenizer=TOKENIZERS["bert"],
        rows=1000,
    )
}
"""Models that see both ways, for masked language modelling."""
