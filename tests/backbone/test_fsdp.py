"""The layer class that the FSDP policy names also drives FSDP2: sharded logits and gradients are the plain ones."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy, fully_shard
from torch.distributed.tensor import DTensor

from vertebra.backbone.registry import load_backbone


@pytest.fixture
def process_group(tmp_path):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["tiny-llama2", "tiny-gpt2"])
def test_fsdp2_by_the_layer_class(process_group, name):
    plain, sharded = (load_backbone(name, dtype="float32").eval() for _ in range(2))
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    for layer in sharded.llm.modules():
        if isinstance(layer, sharded.transformer_layer_cls):
            fully_shard(layer, mesh=dist.init_device_mesh("cpu", (1,)))
    fully_shard(sharded.llm, mesh=dist.init_device_mesh("cpu", (1,)))
    assert all(isinstance(p, DTensor) for p in sharded.llm.parameters())
    losses = [backbone(ids, labels=ids).loss for backbone in (plain, sharded)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (label, one), (_, other) in zip(plain.llm.named_parameters(), sharded.llm.named_parameters(), strict=True):
        assert isinstance(other.grad, DTensor)
        torch.testing.assert_close(one.grad, other.grad.full_tensor(), msg=label)


def test_fsdp1_by_the_policy(process_group):
    plain, wrapped = (load_backbone("tiny-llama2", dtype="float32").eval() for _ in range(2))
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    policy = wrapped.get_fsdp_wrapping_policy()
    units = FullyShardedDataParallel(
        wrapped.llm,
        auto_wrap_policy=policy,
        sharding_strategy=ShardingStrategy.NO_SHARD,  # what one process makes of every other strategy, with a warning
        device_id=torch.device("cpu"),
        use_orig_params=True,
    )
    inner = [m for m in units.modules() if isinstance(m, FullyShardedDataParallel)]
    assert len(inner) == len(plain.layers) + 1
    torch.testing.assert_close(units(input_ids=ids, labels=ids).loss, plain(ids, labels=ids).loss)
