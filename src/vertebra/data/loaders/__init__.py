"""From samples to batches that can be resumed at any place: order, collation, loaders, ranks."""
