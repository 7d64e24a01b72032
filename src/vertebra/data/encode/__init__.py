"""Samples in vectors: text, words, conversations and pairs encoded; masks over them; the cache of what was encoded."""
