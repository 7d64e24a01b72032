"""What trains: stages, patterns, LoRA on PEFT and its merge. It knows models and folders, and no optimizer."""
