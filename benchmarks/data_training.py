"""Training on data, by sampler: useful tokens a second of small models, and what each sampler makes them compute."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from data_made import cpu, log_normal, scaled, table_of
from vertebra.data.loaders.collate import Collator
from vertebra.data.loaders.loader import Loader
from vertebra.data.loaders.samplers import LengthGrouped, Packed, Sampler, Shuffled, slots_per_token
from vertebra.data.samples.table import Table
from vertebra.sequence.batch import Batch
from vertebra.sequence.loss import sequence_loss
from vertebra.sequence.masks import AttentionFacts, plan_attention

# width, layers, heads: of 21 M and of 9 M parameters
SHAPES = ((512, 4, 8), (256, 6, 4))


class SmallModel:
    """A language model of a few million parameters, with random weights."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=8000,
            hidden_size=width,
            intermediate_size=width * 43 // 16,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=1024,
            attn_implementation="sdpa",
        )
        self.llm = LlamaForCausalLM(config)
        self.facts = AttentionFacts(kernel="sdpa")
        self.parameters = sum(parameter.numel() for parameter in self.llm.parameters())

    def step(self, batch: Batch) -> None:
        made = plan_attention(batch, self.facts, dtype=torch.float32)
        logits = self.llm(
            input_ids=batch["input_ids"],
            attention_mask=made.attention_mask,
            position_ids=made.position_ids,
            use_cache=made.use_cache,
        ).logits
        sequence_loss(logits, batch["targets"], batch["weights"], document=batch["document"]).backward()
        self.llm.zero_grad()


def scores_per_token(table: Table, sampler: Sampler) -> float:
    """Attention scores computed for each useful token: a row of L positions has L × L, seen or not."""
    made = sampler.plan(table, 0)
    widths = [batch.length**2 * batch.rows for batch in Loader(table, sampler, Collator(0), pin_memory=False)]
    return sum(widths) / int(table.lengths[made.members].sum())


def bench_training() -> None:
    """Useful tokens a second of forward and backward, by sampler, on the same samples; the smaller the model, the more
    of its time goes into attention, of which packing does not spare as much as of all else."""
    table = table_of(log_normal(max(64, scaled(128))))
    samplers: dict[str, Sampler] = {
        "random, padded": Shuffled(8),
        "length-grouped": LengthGrouped(8),
        "packed": Packed(2, 1024),
    }
    for shape in SHAPES:
        model = SmallModel(*shape)

        def epoch(sampler: Sampler, model: SmallModel = model) -> None:
            for batch in Loader(table, sampler, Collator(0), pin_memory=False):
                model.step(batch)

        taken = cpu({name: lambda sampler=sampler: epoch(sampler) for name, sampler in samplers.items()}, rounds=3)
        print(f"training, forward and backward of {model.parameters / 1e6:.0f} M parameters")
        for name, seconds in taken.items():
            ratio = taken["random, padded"] / seconds
            slots = slots_per_token(table, samplers[name].plan(table, 0), multiple_of=8)
            speed = f"{table.tokens / seconds:8.0f} useful tokens/s   {ratio:4.2f} x random, padded"
            scores = scores_per_token(table, samplers[name])
            print(f"  {name:18s} {speed}   {slots:.2f} slots and {scores:5.0f} scores a useful token")
