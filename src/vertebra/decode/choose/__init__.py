"""From logits to a token: sampling, what was generated before, constraints, and when a row ends."""
