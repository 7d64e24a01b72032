"""The one token sequence: its vectors, masks, packing, batches and loss. It does not know where tokens come from."""
