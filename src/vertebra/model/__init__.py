"""Outside embeddings: encoders, projectors, the one place where they enter, and the model that holds them all.

This floor knows sequences and backbones; it does not know decoding, optimizers or where images come from.
"""
