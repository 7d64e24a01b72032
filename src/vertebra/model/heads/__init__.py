"""Heads that answer in numbers: chunks of actions from a backbone's hidden states, or from the keys of its layers."""
