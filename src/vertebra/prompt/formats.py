"""The builders of the named formats: each is a row of `templates` with a name of its own."""

from __future__ import annotations

from vertebra.prompt import templates
from vertebra.prompt.builders import TurnPromptBuilder


class BarePromptBuilder(TurnPromptBuilder):
    """`……</s>`: the answer follows its question with nothing between them, for small models from scratch."""

    template = templates.BARE


class PurePromptBuilder(TurnPromptBuilder):
    """`In: …\\nOut: …</s>`: for models without a chat format of their own."""

    template = templates.PURE


class LLaMa2ChatPromptBuilder(TurnPromptBuilder):
    """`[INST] <<SYS>>\\n…\\n<</SYS>>\\n\\n… [/INST] …</s>`, Meta's own spelling."""

    template = templates.LLAMA2_CHAT


class VicunaV15ChatPromptBuilder(TurnPromptBuilder):
    """`… USER: … ASSISTANT: …</s>`."""

    template = templates.VICUNA_V15


class MistralInstructPromptBuilder(TurnPromptBuilder):
    """`[INST] … [/INST] …</s>`."""

    template = templates.MISTRAL_INSTRUCT


class PhiPromptBuilder(TurnPromptBuilder):
    """`<|endoftext|>Input: …\\nOutput: …\\n<|endoftext|>`, for Phi-2; the string holds its BOS."""

    template = templates.PHI


class ChatMLPromptBuilder(TurnPromptBuilder):
    """`<|im_start|>user\\n…<|im_end|>\\n`: Qwen, SmolLM. No default system prompt; their own templates have one."""

    template = templates.CHATML


class LLaMa3PromptBuilder(TurnPromptBuilder):
    """`<|start_header_id|>user<|end_header_id|>\\n\\n…<|eot_id|>`; without the dates that LLaMA-3.1's template writes."""

    template = templates.LLAMA3


class GemmaPromptBuilder(TurnPromptBuilder):
    """`<start_of_turn>user\\n…<end_of_turn>\\n`, the answerer is `model`."""

    template = templates.GEMMA


class Phi3PromptBuilder(TurnPromptBuilder):
    """`<|user|>\\n…<|end|>\\n`."""

    template = templates.PHI3


class Phi4PromptBuilder(TurnPromptBuilder):
    """`<|user|>…<|end|>`: Phi-4-mini."""

    template = templates.PHI4


class PureLegacyPromptBuilder(PurePromptBuilder):
    """OpenVLA's own: a system prompt vanishes, `<image>` in text is cut out."""

    template = templates.PURE_LEGACY


class LLaMa2ChatLegacyPromptBuilder(LLaMa2ChatPromptBuilder):
    """OpenVLA's own spelling, `<<SYS>` with one `>`, with which its checkpoints were trained."""

    template = templates.LLAMA2_CHAT_LEGACY


class VicunaV15LegacyPromptBuilder(VicunaV15ChatPromptBuilder):
    """OpenVLA's own: `<image>` in text is cut out."""

    template = templates.VICUNA_V15_LEGACY


class MistralLegacyPromptBuilder(MistralInstructPromptBuilder):
    """OpenVLA's own: a system prompt vanishes, `<image>` in text is cut out."""

    template = templates.MISTRAL_LEGACY


class PhiLegacyPromptBuilder(PhiPromptBuilder):
    """OpenVLA's own: a system prompt vanishes, `<image>` in text is cut out."""

    template = templates.PHI_LEGACY
