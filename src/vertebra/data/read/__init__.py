"""Where rows come from and what they mean: files of every usual kind, data sets, iterables; formats and conversations."""
