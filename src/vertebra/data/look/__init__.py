"""A data set as a model will see it: faults, counts, pictures of lengths."""
