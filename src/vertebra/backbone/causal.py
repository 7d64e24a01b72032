"""`HFCausalLLMBackbone`: any Hugging Face causal language model, complete as it is; families add only their facts.

Training mode holds pretrained weights. Inference mode holds the structure alone until `load_weights` maps a folder in.
It does not know images, decoding or optimizers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from vertebra import compat, log
from vertebra.backbone import habits as tokenizer_habits
from vertebra.backbone import inputs as inputs_of_call
from vertebra.backbone.facts import builder_class, builder_for, family_of
from vertebra.backbone.families.models import builder_name
from vertebra.backbone.interface import LLMBackbone
from vertebra.backbone.kernels import as_device, as_dtype, choose_kernel, default_dtype
from vertebra.backbone.pads import set_pad
from vertebra.backbone.saving import LoadReport, follow_mode, load_weights, read_record, recorded_growths
from vertebra.backbone.source import find, require_tokenizer
from vertebra.backbone.state_dicts import accept_state_dicts
from vertebra.backbone.structure import (
    build_config,
    build_structure,
    greedy_generation,
    load_pretrained,
    packed,
    quantization_config,
    require_causal,
)
from vertebra.backbone.tokenizers import load_tokenizer
from vertebra.backbone.vocabulary import train_only_new_rows
from vertebra.errors import ConfigError, SequenceError
from vertebra.prompt.builders import PromptBuilder
from vertebra.prompt.registry import prompt_builder


def _require_grad(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
    """As `enable_input_require_grads` does it, by a function that pickles."""
    output.requires_grad_(True)


class HFCausalLLMBackbone(LLMBackbone):
    """A Hugging Face causal language model and its tokenizer behind the one interface."""

    def __init__(
        self,
        llm_backbone_id: str,
        llm_family: str | None,
        llm_cls: Any,
        hf_hub_path: str | Path,
        llm_max_length: int = 2048,
        hf_token: str | None = None,
        inference_mode: bool = False,
        use_flash_attention_2: bool = False,
        *,
        attn: str | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        quantization: str | None = None,
        builder: str | None = None,
        config_overrides: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(llm_backbone_id)
        self.llm_max_length = llm_max_length
        self.hf_hub_path = str(hf_hub_path)
        self.quantization = quantization
        self._device = as_device(device)
        self._hf_token = hf_token
        if not isinstance(llm_max_length, int) or llm_max_length < 1:
            raise ConfigError(f"llm_max_length is {llm_max_length!r}; expected a whole number, 1 or more")
        if builder is not None:
            prompt_builder(builder)  # a name that is none fails before anything loads

        source = find(hf_hub_path, token=hf_token)
        recorded = read_record(source)
        if source.local:
            require_tokenizer(source.folder, source.name)
        llm_cls = require_causal(llm_cls, source)
        kernel = choose_kernel(llm_cls, attn=attn, use_flash_attention_2=use_flash_attention_2)
        resolved = as_dtype(dtype) if dtype else default_dtype(source.config, inference_mode=inference_mode)
        config = build_config(source, llm_cls, kernel, resolved, config_overrides or {})
        side = "left" if inference_mode else "right"
        self.tokenizer = load_tokenizer(source, config, llm_max_length, side=side, token=hf_token)
        if inference_mode:
            if quantization is not None:
                raise ConfigError(
                    "quantization packs weights, and in inference mode the structure comes without: load_backbone(…, "
                    "weights=True), or call `quantize` once they are there"
                )
            self.llm = build_structure(llm_cls, config).eval()
            accept_state_dicts(self.llm)
        else:
            self.llm = load_pretrained(source, llm_cls, config, token=hf_token, quantization=quantization)
        self.llm.generation_config = greedy_generation(source, self.tokenizer, hf_token)
        self.llm.loss_type = "ForCausalLM"  # GPT-2's class name hides it from transformers, which then warns
        self._awaiting_weights = inference_mode
        self.inference_mode = inference_mode

        self.habits = tokenizer_habits.probe(self.tokenizer)
        self.family, self.facts_guessed = family_of(llm_family, self.llm, self.tokenizer, self.habits)
        self.llm_family = self.family.name
        tokenizer_habits.check_anchor(self.family.anchor, self.habits, self.tokenizer, llm_backbone_id)
        self._builder = builder or recorded.get("prompt_builder")
        if self._builder is None and llm_backbone_id == self.hf_hub_path:  # no id, whose marks would tell
            self._builder = builder_for(self.family, self.hf_hub_path, self.tokenizer)
        if recorded:
            self.name = source.name
            tokenizer_habits.check_fingerprint(self.tokenizer, recorded["fingerprint"], source.name)
            self.growths = recorded_growths(recorded, source, hf_token)
        set_pad(self, self.family, found=llm_family is None)
        if not inference_mode:
            # a frozen embedding would cut the graph before the first checkpointed layer
            self.llm.get_input_embeddings().register_forward_hook(_require_grad)
            if recorded.get("only_new_rows"):
                train_only_new_rows(self)
        if self._device is not None and not inference_mode and quantization is None:
            self.llm.to(self._device)

    @property
    def inference_mode(self) -> bool:
        """Whether the backbone was built to run; what is set here, the model's config follows."""
        return self._inference_mode

    @inference_mode.setter
    def inference_mode(self, runs: bool) -> None:
        self._inference_mode = runs
        follow_mode(self.llm, runs=runs)

    def load_weights(self, folder: str | Path | None = None) -> LoadReport:
        """Map the weights of a folder in and assign them; base rows are grown again, grown rows taken as they are."""
        report = load_weights(self, folder or self.hf_hub_path, token=self._hf_token)
        self._awaiting_weights = False
        if self._device is not None:
            self.llm.to(self._device)
        log.info(str(report))
        return report

    def quantize(self, quantization: str) -> None:
        """Pack the layers' matrices, now that the weights are there; what is kept of them is what checkpoints load into."""
        quantization_config(quantization, self.llm.dtype)  # a wrong name, or a package that is not there
        self._require_weights()
        self.llm = packed(self.llm, quantization)
        self.quantization = quantization

    def _weights_came(self) -> None:
        if self._device is not None:
            self.llm.to(self._device)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        """`.to(torch.bfloat16)` and its like cast parameters; tables that no checkpoint holds keep their precision.

        A rotary table in bf16 is off by 0.4 %, which is a whole radian of phase at position 2048.
        """
        before = [(m, name, m._buffers[name]) for m in self.modules() for name in m._non_persistent_buffers_set]
        super()._apply(fn, recurse)
        for module, name, exact in before:
            cast = module._buffers[name]
            if exact is not None and cast is not None and cast.dtype.itemsize < exact.dtype.itemsize:
                module._buffers[name] = exact.to(cast.device)
        return self

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        logits_to_keep: int | torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
    ) -> CausalLMOutputWithPast:
        inputs = inputs_of_call.the_one(input_ids, inputs_embeds)
        if labels is not None and logits_to_keep is not None:
            raise SequenceError("labels need the logits of every position; leave `logits_to_keep` or `labels` out")
        self._require_weights()
        llm, config = self.llm, self.llm.config
        if past_key_values is not None:
            past_key_values = inputs_of_call.as_cache(past_key_values, config)
        if attention_mask is not None and not inputs_of_call.is_plain(attention_mask):
            kernel = "eager" if output_attentions else self.attn
            attention_mask = inputs_of_call.mask_for(attention_mask, kernel, self.dtype)
        inputs_of_call.check(
            config,
            self.identifier,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            embedding=llm.get_input_embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            labels=labels,
            num_items=num_items_in_batch,
            past=past_key_values,
        )
        if position_ids is None and attention_mask is not None and inputs_of_call.is_plain(attention_mask):
            # models that count from 0 would shift a left-padded row
            position_ids = inputs_of_call.positions_of(attention_mask)[:, -inputs.shape[1] :]  # type: ignore[assignment]
        extra: dict[str, Any] = {}
        if logits_to_keep is not None:
            extra["logits_to_keep"] = logits_to_keep
        if num_items_in_batch is not None:
            extra["num_items_in_batch"] = num_items_in_batch
        run = self._with_attentions if output_attentions else llm
        return run(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=self.inference_mode if use_cache is None else use_cache,
            output_attentions=bool(output_attentions),
            output_hidden_states=bool(output_hidden_states),
            return_dict=True if return_dict is None else return_dict,
            **extra,
        )

    def _with_attentions(self, **inputs: Any) -> CausalLMOutputWithPast:
        """Only the eager kernel keeps attention weights; the chosen one returns after the call."""
        kernel = self.attn
        if kernel == "eager":
            return self.llm(**inputs)
        log.warn_once(f"attention weights were requested; `{kernel}` keeps none, so that these calls run with `eager`")
        with self.kernel("eager"):
            return self.llm(**inputs)

    def embed_input_ids(self, input_ids: torch.LongTensor) -> torch.FloatTensor:
        self._require_weights()
        return self.llm.get_input_embeddings()(input_ids)

    def enable_gradient_checkpointing(self) -> None:
        compat.enable_checkpointing(self.llm)

    def get_fsdp_wrapping_policy(self) -> Callable[..., Any]:
        from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

        return partial(transformer_auto_wrap_policy, transformer_layer_cls={self.transformer_layer_cls})

    @property
    def prompt_builder_fn(self) -> type[PromptBuilder]:
        return builder_class(self.builder, self.tokenizer)

    @property
    def builder(self) -> str:
        """The name of the prompt builder, by the model's id unless it was given or recorded."""
        return self._builder or builder_name(self.family, self.identifier)

    @property
    def transformer_layer_cls(self) -> type[nn.Module]:
        found = getattr(inspect.getmodule(type(self.llm)), self.family.layer_cls, None)
        return found or type(self.layers[0])

    @property
    def half_precision_dtype(self) -> torch.dtype:
        return as_dtype(self.family.half_precision)

    @property
    def last_layer_finetune_modules(self) -> Sequence[nn.Module]:
        return (self.llm.get_input_embeddings(), self.layers[-1], self.llm.get_output_embeddings())
