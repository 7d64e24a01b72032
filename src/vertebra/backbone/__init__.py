"""Any causal language model behind one interface: families as data, loading, vocabulary, tiny real checkpoints.

This floor knows transformers and tokenizers; it does not know images, decoding or training.
"""
