"""From logits to a token: sampling, what was said before, constraints, and when a row ends."""
