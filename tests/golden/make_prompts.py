"""Write the golden prompts: exact text, ids and trained ids of every builder, by plain f-strings.

An independent implementation: it imports `tokenizers` and `jinja2` alone, never the library. Run it by hand when a
format is added; a change in an existing file is a change of the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import jinja2
from tokenizers import Tokenizer

HERE = Path(__file__).parent
Turns = list[tuple[str, str]]  # ("user" | "assistant", text)

OPENVLA = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)
# A chat template with habits of several real ones: BOS as a variable, trimmed text, a default system prompt.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# A format writes text and says where answers (with their stop) lie: (text, [(start, stop)]).
Written = tuple[str, list[tuple[int, int]]]


def by_rule(turns: Turns, begin: str, user: Callable[[str, bool], str], answer: str, stop: str, after: str) -> Written:
    text, answers = begin, []
    for number, (role, reply) in enumerate(turns):
        if role == "user":
            text += user(reply, number == 0)
        else:
            text += answer
            answers.append((len(text), len(text) + len(reply) + len(stop)))
            text += f"{reply}{stop}{after}"
    return text, answers


def historical(turns: Turns) -> Turns:
    """OpenVLA's habits: no `<image>`, no outer white space, an empty answer is a space."""
    clean = [(role, text.replace("<image>", "").strip()) for role, text in turns]
    return [(role, " " if role == "assistant" and text == "" else text) for role, text in clean]


def trimmed_if_open(written: Written, turns: Turns) -> Written:
    text, answers = written
    answers = [(len(text[:start].rstrip()), stop) for start, stop in answers]  # what an open prompt leaves to be said
    return (text.rstrip() if turns[-1][0] == "user" else text), answers


def pure(system: str | None, turns: Turns, eos: str = "</s>") -> Written:
    turns = historical(turns)
    written = by_rule(turns, "", lambda reply, first: f"In: {reply}\nOut: ", "", eos, "")
    return trimmed_if_open(written, turns)


def bare(system: str | None, turns: Turns) -> Written:
    turns = [(role, reply.strip()) for role, reply in turns]
    return by_rule(turns, "", lambda reply, first: reply, "", "</s>", "")


def llama2(system: str | None, turns: Turns, opening: str = "<<SYS>>") -> Written:
    turns = historical(turns)
    system = OPENVLA if system is None else system.strip()
    block = f"{opening}\n{system}\n<</SYS>>\n\n"
    written = by_rule(
        turns, "", lambda reply, first: f"[INST] {block if first else ''}{reply} [/INST] ", "", "</s>", ""
    )
    return trimmed_if_open(written, turns)


def llama2_legacy(system: str | None, turns: Turns) -> Written:
    return llama2(system, turns, "<<SYS>")


# A system prompt of the originals is stripped and nothing else; an empty one is said all the same.
SYSTEMS = ("", "  ", " Look at <image> first. ")


def vicuna(system: str | None, turns: Turns) -> Written:
    turns = historical(turns)
    system = VICUNA if system is None else system.strip()
    written = by_rule(turns, f"{system} ", lambda reply, first: f"USER: {reply} ASSISTANT: ", "", "</s>", "")
    return trimmed_if_open(written, turns)


def mistral(system: str | None, turns: Turns) -> Written:
    turns = historical(turns)
    written = by_rule(turns, "", lambda reply, first: f"[INST] {reply} [/INST] ", "", "</s>", "")
    return trimmed_if_open(written, turns)


def phi(system: str | None, turns: Turns) -> Written:
    turns = historical(turns)
    begin = "<|endoftext|>"
    written = by_rule(turns, begin, lambda reply, first: f"Input: {reply}\nOutput: ", "", "\n<|endoftext|>", "")
    return trimmed_if_open(written, turns)


def blocks(system: str | None, turns: Turns, head: str, end: str, gap: str, answerer: str, trim: bool) -> Written:
    if trim:
        turns = [(role, message.strip()) for role, message in turns]
        system = system and system.strip()
    begin = head.format("system") + system + end + gap if system else ""
    ask = head.format("user")
    text, answers = by_rule(
        turns, begin, lambda message, first: f"{ask}{message}{end}{gap}", head.format(answerer), end, gap
    )
    return (text + head.format(answerer) if turns[-1][0] == "user" else text), answers


def chatml(system: str | None, turns: Turns) -> Written:
    return blocks(system, turns, "<|im_start|>{}\n", "<|im_end|>", "\n", "assistant", False)


def llama3(system: str | None, turns: Turns) -> Written:
    return blocks(system, turns, "<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>", "", "assistant", True)


def gemma(system: str | None, turns: Turns) -> Written:
    return blocks(None, turns, "<start_of_turn>{}\n", "<end_of_turn>", "\n", "model", True)


def phi3(system: str | None, turns: Turns) -> Written:
    return blocks(system, turns, "<|{}|>\n", "<|end|>", "\n", "assistant", False)


def phi4(system: str | None, turns: Turns) -> Written:
    return blocks(system, turns, "<|{}|>", "<|end|>", "", "assistant", False)


def template(system: str | None, turns: Turns) -> Written:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": role, "content": message} for role, message in turns]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(CHAT_TEMPLATE).render(
        messages=messages, bos_token="<bos>", add_generation_prompt=turns[-1][0] == "user"
    )
    answers, at = [], 0
    for role, message in turns:
        message = message.strip() + "<|im_end|>"
        at = text.index(f"<|im_start|>{role}\n{message}", at) + len(f"<|im_start|>{role}\n")
        if role == "assistant":
            answers.append((at, at + len(message)))
    return text, answers


# builder -> (format, tokenizer, BOS put in front: by the tokenizer, or by the format; can it say a system prompt)
FORMATS: dict[str, tuple[Callable[[str | None, Turns], Written], str, str | None, bool]] = {
    "bare": (bare, "llama", "<s>", False),
    "pure": (pure, "llama", "<s>", False),
    "llama2-chat": (llama2, "llama", "<s>", True),
    "vicuna-v15": (vicuna, "llama", "<s>", True),
    "mistral-instruct": (mistral, "llama", "<s>", False),
    "phi": (phi, "gpt2", None, False),
    "chatml": (chatml, "chat", None, True),
    "llama3": (llama3, "chat", "<|begin_of_text|>", True),
    "gemma": (gemma, "chat", "<bos>", False),
    "phi3": (phi3, "chat", None, True),
    "phi4": (phi4, "chat", None, True),
    "pure-legacy": (pure, "llama", "<s>", True),
    "llama2-chat-legacy": (llama2_legacy, "llama", "<s>", True),
    "vicuna-v15-legacy": (vicuna, "llama", "<s>", True),
    "mistral-legacy": (mistral, "llama", "<s>", True),
    "phi-legacy": (phi, "gpt2", None, True),
    "template": (template, "chat", None, True),
}

ROBOT: Turns = [
    ("user", " <image>\nHello "),
    ("assistant", "Hi there. "),
    ("user", "What next?"),
    ("assistant", "Go left."),
]
CONVERSATIONS: dict[str, Turns] = {
    "question": [("user", "What next?")],
    "one turn": [("user", "What next?"), ("assistant", "Go left.")],
    "three turns": [
        ("user", "Hello!"),
        ("assistant", "Hi there."),
        ("user", "Which line holds the total?"),
        ("assistant", "The third line:\n12.50"),
        ("user", "And the tax?"),
        ("assistant", "2.00"),
    ],
    "two turns and a question": [("user", "Hello!"), ("assistant", "Hi there."), ("user", "What next?")],
    "empty answer": [("user", "Hello!"), ("assistant", ""), ("user", "What next?"), ("assistant", "")],
    "unicode": [("user", "Où est la 茶 🤖?"), ("assistant", "ここです. Ça va, naïve Straße\u200d")],
    "outer white space": [("user", "\n  Hello \t"), ("assistant", "  Hi there.\n\n")],
    "borders": [("user", "12"), ("assistant", "\nfirst\n  second"), ("user", "?\n?"), ("assistant", "1")],
}
EMPTY = ("", " \n", " <image>")
FOLDED = ("question", "one turn", "three turns", "unicode")
SYSTEM = "You are a robot."


def case(name: str, builder: str, system: str | None, turns: Turns, *, fold: bool = False) -> dict[str, object]:
    write, file, bos, _ = FORMATS[builder]
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizers" / f"{file}.json"))
    if fold:
        text, answers = write(None, [("user", f"{system}\n\n{turns[0][1].strip()}"), *turns[1:]])
    else:
        text, answers = write(system, turns)
    added = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()}
    tokenizer.post_processor = None  # type: ignore[assignment]
    encoded = tokenizer.encode(text, add_special_tokens=False)
    ids = [tokenizer.token_to_id(bos)] if bos else []
    trained = [False] * len(ids)
    for number, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True):
        ids.append(number)
        trained.append(any(start < last and stop > first for first, last in answers))
        assert number not in added or text[start:stop] == added[number]
    return {
        "name": name,
        "system": system,
        "fold": fold,
        "turns": turns,
        "text": text,
        "ids": ids,
        "trained": [number for number, is_trained in enumerate(trained) if is_trained],
    }


def main() -> None:
    for builder, (_, file, bos, says_system) in FORMATS.items():
        cases = []
        for system in [None, SYSTEM] if says_system else [None]:
            suffix = "" if system is None else ", system"
            cases += [case(name + suffix, builder, system, turns) for name, turns in CONVERSATIONS.items()]
        if not says_system:
            cases += [case(f"{name}, folded", builder, SYSTEM, CONVERSATIONS[name], fold=True) for name in FOLDED]
        if builder.endswith("-legacy"):
            cases.append(case("robot", builder, SYSTEM, ROBOT))
            cases += [case(f"system {system!r}", builder, system, ROBOT) for system in SYSTEMS]
            cases += [
                case(f"nothing asked, {reply!r}", builder, None, [("user", reply), *ROBOT[1:]]) for reply in EMPTY
            ]
        golden = {"builder": builder, "tokenizer": file, "bos": bos, "cases": cases}
        if builder == "template":
            golden["chat_template"] = CHAT_TEMPLATE
        lines = json.dumps(golden, ensure_ascii=False, indent=1)
        (HERE / "prompts" / f"{builder}.json").write_text(_compact(lines) + "\n", encoding="utf-8")


def _compact(text: str) -> str:
    """Lists of numbers on one line."""
    return re.sub(r"\[\s+((?:\d+,?\s+)+)\]", lambda match: "[" + " ".join(match[1].split()) + "]", text)


if __name__ == "__main__":
    main()
