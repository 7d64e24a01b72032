"""What differs between transformers versions, tried on the one that is here."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
import transformers
from transformers.utils import logging as transformers_logging

from vertebra import compat
from vertebra.backbone.registry import load_backbone
from vertebra.backbone.tiny import TINY


def test_this_version_is_one_of_the_supported():
    assert str(compat.VERSION) == transformers.__version__
    assert compat.Version(compat.OLDEST) <= compat.VERSION


def test_an_older_version_is_refused_with_a_message():
    code = "import transformers; transformers.__version__ = '5.2.0'\nimport vertebra.compat"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "vertebra needs transformers >= 5.17; found 5.2.0. Upgrade transformers." in ended.stderr


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2"])
def test_recomputing_gives_the_same_gradients_and_warns_of_nothing(name: str):
    plain, recomputed = (load_backbone(name, dtype="float32").llm.eval() for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compat.enable_checkpointing(recomputed)
    recomputed.train()
    for module in recomputed.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ran: list[int] = []
    inside = next(m for m in recomputed.modules() if type(m).__name__.endswith("MLP"))
    inside.register_forward_pre_hook(lambda module, given: ran.append(1))
    ids = torch.arange(5, 15)[None]
    losses = [model(input_ids=ids, labels=ids, use_cache=False).loss for model in (plain, recomputed)]
    for loss in losses:
        loss.backward()
    assert len(ran) == 2, "once forward, once again in the backward pass"
    for (parameter_name, a), b in zip(plain.named_parameters(), recomputed.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), parameter_name


def test_a_cache_from_older_codes_pairs_goes_on_where_it_was():
    llm = load_backbone("tiny-llama2", dtype="float32").llm.eval()
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        expected = llm(input_ids=ids).logits[:, 7:]
        first = llm(input_ids=ids[:, :7], use_cache=True).past_key_values
        pairs = [(layer.keys, layer.values) for layer in first.layers]
        cache = compat.cache_from_pairs(pairs, llm.config)
        assert cache.get_seq_length() == 7
        found = llm(input_ids=ids[:, 7:], past_key_values=cache, use_cache=True).logits
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_sdpa_is_offered_only_where_it_is_exact(name: str):
    llm_cls = getattr(transformers, TINY[name].llm_cls)
    assert compat.supports_sdpa(llm_cls) == (llm_cls.__name__ != "Gemma2ForCausalLM")


def test_bars_and_reports_come_back_as_they_were():
    transformers_logging.enable_progress_bar()
    with compat.bars_only_in_terminals():
        assert transformers_logging.is_progress_bar_enabled() == sys.stderr.isatty()
    assert transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    with compat.bars_only_in_terminals():
        assert not transformers_logging.is_progress_bar_enabled()
    assert not transformers_logging.is_progress_bar_enabled()
    transformers_logging.enable_progress_bar()
    before = transformers_logging.get_verbosity()
    with compat.errors_only():
        assert transformers_logging.get_verbosity() == transformers_logging.ERROR
    assert transformers_logging.get_verbosity() == before
