"""What trains: stages, patterns, LoRA on PEFT and its merge. It uses models and folders, and no optimizer."""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "stages": "choose TuneConfig STAGES",
        "lora": "LoraConfig add_lora",
        "adapter": "load_adapter save_adapter",
        "gradients": "check_gradients",
        "pieces": "what_trains as_text",
    },
)
