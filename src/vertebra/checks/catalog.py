"""The table of checks: what each one shows, the fault that turns it red, and what to do then.

`breaks_on` is the check's perturbation: the test of a check breaks exactly that, and no other check may turn red.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vertebra.checks import attention, gradients, precision, prompts, saving, tokenizer_files, tokens, vocabulary
from vertebra.checks.results import Measure, Skip
from vertebra.checks.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check: a small function of a loaded backbone."""

    name: str
    run: Callable[[Subject], Measure | Skip]
    shows: str
    breaks_on: str
    mend: str


_WINDOW_MEND = (
    "A 4-D mask replaces the model's own window. Build masks with `vertebra.sequence.plan_attention` and the model's "
    "`attention_facts`; check `sliding_window` and `layer_types` in config.json."
)

_ROWS = (
    Check(
        name="bos",
        run=tokens.bos,
        shows="the tokenizer puts before a text what the anchor policy requires, and a prompt begins with BOS once",
        breaks_on="an anchor policy that is not what the tokenizer does",
        mend="Use the tokenizer that belongs to the model, or register a family with the right anchor policy.",
    ),
    Check(
        name="pad",
        run=tokens.pad,
        shows="the pad token is a row of the matrix, and tokenizer, config and decoding settings name the same one",
        breaks_on="a config with another pad id than the tokenizer",
        mend="Set `tokenizer.pad_token`, then call `vertebra.backbone.vocabulary.follow_pad(backbone)`.",
    ),
    Check(
        name="pad-is-no-end",
        run=tokens.pad_is_no_end,
        shows="padding and the end of an answer are different tokens",
        breaks_on="a tokenizer with pad = eos",
        mend="Choose a reserved token as pad, or add one: `grow_vocabulary(backbone, ['<PAD>'], is_pad=True)`.",
    ),
    Check(
        name="rows",
        run=tokens.rows,
        shows="every id of the tokenizer has a row of the embedding and of the head",
        breaks_on="a token that was added to the tokenizer alone",
        mend="Add tokens with `grow_vocabulary(backbone, [...])`, which grows the matrices too.",
    ),
    Check(
        name="prompt-ids",
        run=prompts.prompt_ids,
        shows="the prompt of inference is, id for id, the start of the sequence of training",
        breaks_on="a format whose open turn ends otherwise than its answered one",
        mend="Compare both with `vertebra prompt`; render both with `vertebra.prompt.rendering.render`.",
    ),
    Check(
        name="answer-ends",
        run=prompts.answer_ends,
        shows="the token that an answer is trained to end with ends decoding, in padded rows too",
        breaks_on="a chat format on decoding settings that know the base model's end alone",
        mend="Name the format's end beside the model's own, as `eos_token_id` in the folder's generation_config.json.",
    ),
    Check(
        name="chat-template",
        run=prompts.chat_template,
        shows="a chat prompt is the tokenizer's own template's, but for a system prompt that the template adds",
        breaks_on="a tokenizer whose template writes turns otherwise",
        mend="Use the builder that follows the tokenizer: `--builder template`, or the one that the model was tuned with.",
    ),
    Check(
        name="fingerprint",
        run=tokens.fingerprint,
        shows="the tokenizer gives the same ids again, from a copy, and after being written and read",
        breaks_on="a tokenizer whose files lose merges",
        mend="Save the tokenizer that was used, with the class that it was loaded with, and compare tokenizer.json.",
    ),
    Check(
        name="tokenizer-files",
        run=tokenizer_files.files,
        shows="ids are those of the checkpoint's own tokenizer.json and SentencePiece model, behind special tokens too",
        breaks_on="a tokenizer whose class puts rules of its own in place of the file's",
        mend=(
            "Load it with `load_backbone`, which takes tokenizer.json at its word. Where sentencepiece alone differs, the "
            "two files do not say the same: delete the one that the model was not trained with."
        ),
    ),
    Check(
        name="greedy-savable",
        run=saving.greedy,
        shows="decoding is greedy by default, and its settings can be written and read",
        breaks_on="a temperature without sampling, as LLaMA-2-chat ships it",
        mend="Clear the settings named here in `backbone.llm.generation_config`; set them where you sample.",
    ),
    Check(
        name="embeddings",
        run=attention.from_embeddings,
        shows="logits from embed_input_ids(ids) are those from ids",
        breaks_on="an embedding scale that is forgotten",
        mend="`embed_input_ids` must give what the model itself looks up, its scale included.",
    ),
    Check(
        name="cached",
        run=attention.cached,
        shows="logits step by step with a cache are those of one pass",
        breaks_on="a cache whose steps are shifted by one position",
        mend="Look at the position ids of decoding steps and at what the forward does with `past_key_values`.",
    ),
    Check(
        name="cached-beyond-window",
        run=attention.cached_beyond,
        shows="the same where the steps cross the sliding window",
        breaks_on="decoding steps that see all of an unwindowed cache",
        mend=_WINDOW_MEND,
    ),
    Check(
        name="left-padded",
        run=attention.left_padded,
        shows="logits behind padding are those without it",
        breaks_on="position ids that are ignored, so that they count from 0 through the padding",
        mend="Hand on `attention_mask` and `position_ids`; positions restart after the padding.",
    ),
    Check(
        name="left-padded-beyond-window",
        run=attention.left_padded_beyond,
        shows="the same beyond the sliding window",
        breaks_on="a padding mask made 4-D without the window",
        mend=_WINDOW_MEND,
    ),
    Check(
        name="batch",
        run=attention.batched,
        shows="logits in a batch are those of each row alone",
        breaks_on="a layer that mixes rows",
        mend="Something computes over dimension 0: a batch norm, a cache or state kept between rows.",
    ),
    Check(
        name="batch-beyond-window",
        run=attention.batched_beyond,
        shows="the same beyond the sliding window",
        breaks_on="batches that run with a 4-D mask without the window",
        mend=_WINDOW_MEND,
    ),
    Check(
        name="packed",
        run=attention.packed,
        shows="logits of documents packed into one row are those of each alone",
        breaks_on="a family recorded as isolating by position that does not (OPT)",
        mend="Set `isolates_by_position=False` in the family's row; run packed rows with `use_cache=False`.",
    ),
    Check(
        name="packed-beyond-window",
        run=attention.packed_beyond,
        shows="the same beyond the sliding window",
        breaks_on="a block-diagonal mask without the window",
        mend=_WINDOW_MEND,
    ),
    Check(
        name="half-precision",
        run=precision.half,
        shows="logits in the model's 16-bit type are those of float32, however large single activations are",
        breaks_on="a large offset in every channel, which every norm takes away again",
        mend="Run it in the type that it was trained in: `--dtype bfloat16` where float16 overflows, else float32.",
    ),
    Check(
        name="growth",
        run=vocabulary.growth,
        shows="two tokens come and go: old rows stay, new ones are distinct in every table, undoing is exact",
        breaks_on="new rows that are copies of each other",
        mend="Grow with `grow_vocabulary` alone; never write a matrix or call `resize_token_embeddings` beside it.",
    ),
    Check(
        name="gradients-frozen",
        run=gradients.frozen,
        shows="a projector before a frozen model learns, and ids back-propagate, with checkpointing",
        breaks_on="input gradients that are switched off",
        mend="Call `backbone.llm.enable_input_require_grads()`; load in training mode.",
    ),
    Check(
        name="gradients-lora",
        run=gradients.lora,
        shows="every low-rank adapter in a frozen model gets a gradient, with checkpointing",
        breaks_on="the reentrant form of checkpointing",
        mend="Use `backbone.enable_gradient_checkpointing()`, whose call is not reentrant.",
    ),
    Check(
        name="gradients-full",
        run=gradients.full,
        shows="every tensor of the model gets a gradient, with checkpointing, from ids and from embeddings",
        breaks_on="a weight that is used detached",
        mend="Look at the tensors named here: a `detach`, a `no_grad` block, or a branch that is never run.",
    ),
    Check(
        name="save-load",
        run=saving.save_and_load,
        shows="logits after writing and reading the model are the same",
        breaks_on="a save that loses a vector",
        mend="Compare the names and shapes in model*.safetensors with `backbone.llm.state_dict()`.",
    ),
)

CHECKS: dict[str, Check] = {check.name: check for check in _ROWS}
"""Every check by name, in the order in which they run."""
