"""Where rows come from: files of every usual kind, Hugging Face datasets, Python iterables, and parts of all these."""
