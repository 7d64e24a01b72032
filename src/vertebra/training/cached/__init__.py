"""What a frozen part computes is computed once: an image tower's features, the lower layers' hidden states."""
