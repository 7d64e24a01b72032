"""Train the three small tokenizers of the golden files, with the `tokenizers` library alone. Run once; files are kept.

llama   SentencePiece-like: `▁`, byte fallback, BOS in front
gpt2    byte-level, no BOS
chat    byte-level with LLaMA-3's cut, and the control tokens of the chat formats
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent / "tokenizers"
SIZE = 900

TEXT = """
A robot looks at the table. What action should the robot take to pick up the red cup? It moves the arm to the left,
opens the gripper, and goes down. Then it closes the gripper and lifts the cup. Hello! Hi there. What next? Go left.
The page says: total 12.50, tax 2.00, date 2024-05-17. Which line holds the total? The third line holds the total.
You are a helpful assistant. You answer questions about images and documents, and you say so when you do not know.
A user asks, the assistant answers; a system prompt stands first. In: Out: Input: Output: USER: ASSISTANT: [INST]
In the morning the light falls through the window onto the wooden floor. The children are still asleep, and the house
is quiet. Nobody would have thought that this day would end as it did. Outside, the garden waits for the rain.
Wo ist der Bahnhof? Gehen Sie geradeaus und dann links. Où est la gare? Allez tout droit, puis à gauche.
    if value is None:
        return [item for item in items if item > 0]
"""

CONTROL = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|im_start|>", "<|im_end|>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
)
LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def special(*tokens: str) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def llama() -> Tokenizer:
    """BPE with byte fallback; vocabulary in LLaMA's order: special tokens, bytes, pieces."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.train_from_iterator(TEXT.split("\n"), trainers.BpeTrainer(vocab_size=SIZE, show_progress=False))
    learnt = json.loads(learner.to_str())["model"]
    vocab = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>"])}
    for token in [*(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]:
        vocab.setdefault(token, len(vocab))
    merges = [tuple(pair) for pair in learnt["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(special("<unk>", "<s>", "</s>"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def byte_level(cut: str | None, tokens: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None)
    if cut is None:
        tokenizer.pre_tokenizer = whole
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(cut), "isolated"), whole])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.add_special_tokens(special(*tokens))
    return tokenizer


def main() -> None:
    HERE.mkdir(exist_ok=True)
    made = {
        "llama": llama(),
        "gpt2": byte_level(None, ("<|endoftext|>",)),
        "chat": byte_level(LLAMA3_CUT, CONTROL),
    }
    for name, tokenizer in made.items():
        (HERE / f"{name}.json").write_text(tokenizer.to_str(), encoding="utf-8")


if __name__ == "__main__":
    main()
