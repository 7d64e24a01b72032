"""From a source to a model: its config and explicit class, and either pretrained weights or the bare structure.

The language half of a vision-language checkpoint becomes a plain causal model here, or is refused by name. Half-loaded
models do not leave this file: what is missing or misshapen is an error.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig

from vertebra import compat, log
from vertebra.backbone.source import CheckpointSource, read_json, require_counts, weight_files, weights_folder
from vertebra.backbone.weights import BUILDING, assign, mapped_tensors, parameters_on_meta, spelled_for
from vertebra.errors import CheckpointError, ConfigError, MissingPartError, NetworkError, UnknownNameError, did_you_mean
from vertebra.reading import reading

# Vision-language model types whose language half is a plain causal class: (causal class, settings that mean nothing
# to it). With text alone, their three-axis rotary positions are the ordinary ones.
_TEXT_HALVES: dict[str, tuple[str, tuple[str, ...]]] = {
    "gemma3": ("Gemma3ForCausalLM", ()),
    "qwen2_5_vl": ("Qwen2ForCausalLM", ("mrope_section",)),
    "qwen2_vl": ("Qwen2ForCausalLM", ("mrope_section",)),
}
QUANTIZATIONS = ("int8", "nf4")
_MEND = "correct config.json or the overrides"


def causal_class(source: CheckpointSource) -> type:
    """The explicit causal class of a checkpoint, by its config; never a class that ships with the checkpoint."""
    model_type = source.config.get("model_type")
    if model_type in _TEXT_HALVES:
        return getattr(transformers, _TEXT_HALVES[model_type][0])
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    if model_type not in CAUSAL:
        raise CheckpointError(
            f"`{source.name}` is of model type `{model_type}`, which has no causal language model in transformers "
            f"{transformers.__version__}.{did_you_mean(str(model_type), CAUSAL)} Language halves are known for: "
            f"{', '.join(sorted(_TEXT_HALVES))}"
        )
    if model_type in MASKED and not (source.config.get("is_decoder") or source.config.get("is_encoder_decoder")):
        raise CheckpointError(
            f"`{source.name}` is an encoder of type `{model_type}`, which sees both ways; its causal class would run it "
            "all the same, and each position would know its own answer. Give a causal language model"
        )
    if "text_config" in source.config and "text_config" in getattr(_config_class(model_type), "sub_configs", {}):
        raise CheckpointError(
            f"`{source.name}` is a vision-language checkpoint of type `{model_type}`, whose language half has no causal "
            f"class of its own here. Known: {', '.join(sorted(_TEXT_HALVES))}"
        )
    return getattr(transformers, CAUSAL[model_type])


def _config_class(model_type: Any) -> type:
    return transformers.AutoConfig.for_model(model_type).__class__


def class_named(name: str) -> type:
    found = getattr(transformers, name, None)
    if found is None:
        raise UnknownNameError("transformers class", name, (n for n in dir(transformers) if n.endswith("CausalLM")))
    return found


def require_causal(llm_cls: Any, source: CheckpointSource) -> Any:
    """The class to load with: the given one where it is causal, for None the one that the checkpoint's config names."""
    if llm_cls is None:
        return causal_class(source)
    if not (isinstance(llm_cls, type) and hasattr(llm_cls, "_from_config") and getattr(llm_cls, "config_class", None)):
        raise ConfigError(
            f"llm_cls is {llm_cls!r:.80}; expected a causal class of transformers, such as LlamaForCausalLM, or None, which "
            "takes the one that config.json names"
        )
    return llm_cls


def build_config(
    source: CheckpointSource, llm_cls: Any, kernel: str, dtype: torch.dtype, overrides: dict[str, Any]
) -> Any:
    """The config of the explicit class, with the user's overrides; an unknown key fails with the nearest name."""
    model_type = source.config.get("model_type")
    config_cls = llm_cls.config_class
    if model_type in _TEXT_HALVES and config_cls.model_type != model_type:
        with reading(f"the config of `{source.name}` has no language half that can be read", _MEND):
            config = _text_half(source, config_cls)
    elif model_type != config_cls.model_type:
        raise CheckpointError(
            f"`{source.name}` is of model type `{model_type}`, but {llm_cls.__name__} loads `{config_cls.model_type}`"
        )
    else:
        with reading(f"the config of `{source.name}` is no valid {config_cls.__name__}", _MEND):
            config = config_cls.from_dict(copy.deepcopy(source.config))
    for key, value in overrides.items():
        if not hasattr(config, key) or callable(getattr(config, key)):
            raise UnknownNameError("config setting", key, config.to_dict())
        require_counts(source.name, {key: value})
        with reading(f"config setting `{key}` cannot be {value!r:.80}", _MEND):
            setattr(config, key, value)
    config._attn_implementation = kernel
    config.dtype = dtype
    return config


def _text_half(source: CheckpointSource, config_cls: Any) -> Any:
    full = transformers.AutoConfig.for_model(source.config["model_type"]).__class__.from_dict(source.config)
    text = full.get_text_config().to_dict()
    for key in ("model_type", "architectures", "_name_or_path"):
        text.pop(key, None)
    foreign = _TEXT_HALVES[source.config["model_type"]][1]
    if isinstance(text.get("rope_parameters"), dict):
        text["rope_parameters"] = {k: v for k, v in text["rope_parameters"].items() if k not in foreign}
        if text["rope_parameters"].get("rope_type") == "mrope":
            text["rope_parameters"]["rope_type"] = "default"
    known = config_cls().to_dict()
    text = {key: value for key, value in text.items() if key in known}
    # A head that is tied in the whole model is tied in its half, whichever of the two configs says so.
    text["tie_word_embeddings"] = bool(source.config.get("tie_word_embeddings", text.get("tie_word_embeddings")))
    return config_cls(**text)


def load_pretrained(
    source: CheckpointSource, llm_cls: Any, config: Any, *, token: str | None, quantization: str | None
) -> Any:
    """Pretrained weights with the explicit class; whatever the checkpoint lacks is an error and never noise."""
    if config.model_type != source.config.get("model_type") or source.inside:
        llm = build_structure(llm_cls, config)  # a language half, or inside one of our models: other tensor names
        assign(
            llm,
            spelled_for(llm, mapped_tensors(weights_folder(source, token=token))),
            dtype=config.dtype,
            where=source.name,
        )
        return (llm if quantization is None else packed(llm, quantization)).train()
    if source.local:
        weight_files(source.folder)
    settings = {
        "config": config,
        "dtype": config.dtype,
        "attn_implementation": config._attn_implementation,
        # never the shipped file: LLaMA-2-chat's is invalid by today's rules, and merely reading it warns
        "generation_config": GenerationConfig(),
    }
    if quantization is not None:
        settings["quantization_config"] = quantization_config(quantization, config.dtype)
    where = str(source.folder) if source.local else source.name
    damaged = reading(
        f"`{source.name}` cannot be loaded as {llm_cls.__name__}",
        "correct config.json, or copy the weights again",
        passing=(ConnectionError, pickle.UnpicklingError),
    )
    try:
        with damaged, BUILDING, compat.bars_only_in_terminals(), compat.errors_only():
            llm, report = llm_cls.from_pretrained(
                where, token=token, output_loading_info=True, ignore_mismatched_sizes=True, **settings
            )
    except ConnectionError as error:
        raise NetworkError(f"the weights of `{source.name}` cannot be fetched: {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"the .bin files of `{source.name}` hold more than plain tensors; they are not opened, since unpickling can "
            "run code. Convert them to safetensors where you trust them"
        ) from error
    _require_whole(source, report)
    _keep_gradients(llm)
    return llm.train()


def packed(llm: Any, quantization: str) -> Any:
    """A model with weights (mapped ones, best) as it would be had a plain checkpoint packed them while it loaded."""
    config = llm.config
    with BUILDING, compat.bars_only_in_terminals(), compat.errors_only():
        made = type(llm).from_pretrained(
            None,
            config=config,
            state_dict=dict(llm.state_dict()),
            dtype=config.dtype,
            attn_implementation=config._attn_implementation,
            quantization_config=quantization_config(quantization, config.dtype),
        )
    _keep_gradients(made)
    made.generation_config, made.loss_type = llm.generation_config, llm.loss_type
    return made.train(llm.training)


def _keep_gradients(llm: Any) -> None:
    for module in llm.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes repacks 4-bit weights at the first evaluation on a CPU, and has no gradient afterwards
            module.support_avx512bf16_for_cpu = False


def _require_whole(source: CheckpointSource, report: dict[str, Any]) -> None:
    missing = sorted(report.get("missing_keys", ()))
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report.get("mismatched_keys", ()))
    if missing or wrong:
        parts = [f"{len(missing)} tensors are missing ({', '.join(missing[:4])} …)"] if missing else []
        parts += [f"{len(wrong)} have another shape ({', '.join(wrong[:4])} …)"] if wrong else []
        raise CheckpointError(f"the weights of `{source.name}` do not fit its config.json: {'; '.join(parts)}")
    unused = sorted(report.get("unexpected_keys", ()))
    if unused:
        log.warn(f"{len(unused)} tensors of `{source.name}` belong to no part of the model: {', '.join(unused[:4])} …")


def build_structure(llm_cls: Any, config: Any) -> Any:
    """The model without weights: parameters on the meta device, buffers real."""
    damaged = reading(f"a {llm_cls.__name__} cannot be built from this config", _MEND)
    with damaged, BUILDING, parameters_on_meta():
        return llm_cls._from_config(config, dtype=config.dtype, attn_implementation=config._attn_implementation)


def quantization_config(name: str, dtype: torch.dtype) -> Any:
    """int8 or nf4 through bitsandbytes, int8 through torchao where only that is present."""
    import importlib.util

    if name not in QUANTIZATIONS:
        raise UnknownNameError("quantization", name, QUANTIZATIONS)
    if importlib.util.find_spec("bitsandbytes") is not None:
        if name == "int8":
            return transformers.BitsAndBytesConfig(load_in_8bit=True)
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    if name == "int8" and importlib.util.find_spec("torchao") is not None:
        from torchao.quantization import Int8WeightOnlyConfig

        return transformers.TorchAoConfig(Int8WeightOnlyConfig())
    packages = "bitsandbytes or torchao" if name == "int8" else "bitsandbytes"
    raise MissingPartError(f"quantization=`{name}` ({packages})", packages.split(" ")[0])


def converted_by_library(llm: Any, folder: Path) -> dict[str, torch.Tensor] | None:
    """The tensors as transformers' own loader names and shapes them, or None where it finds no more than we do."""
    with BUILDING, compat.bars_only_in_terminals(), compat.errors_only():
        loaded, report = type(llm).from_pretrained(
            folder, dtype=llm.dtype, output_loading_info=True, generation_config=GenerationConfig()
        )
    return None if report.get("missing_keys") else dict(loaded.state_dict())


def greedy_generation(source: CheckpointSource, tokenizer: Any, token: str | None = None) -> GenerationConfig:
    """Decoding that is greedy until set otherwise, with the end ids that the checkpoint ships.

    LLaMA-2-chat and Vicuna ship a temperature without sampling; transformers warns at every call then, and refuses to
    save, so that a training run dies at its first checkpoint.
    """
    shipped = source.file("generation_config.json", token=token)
    ends = read_json(shipped).get("eos_token_id") if shipped else source.config.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and (type(end) is not int or not 0 <= end < 2**31):
            raise CheckpointError(
                f"`{source.name}` ends answers with the token {end!r:.40} (eos_token_id of "
                f"{shipped.name if shipped else 'config.json'}); expected an id, or a list of ids"
            )
    return GenerationConfig(
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if ends is None or ends == [] else ends,
        pad_token_id=tokenizer.pad_token_id,
    )
