"""GGUF files (one file with weights, tokenizer and chat template) as ordinary model folders."""
