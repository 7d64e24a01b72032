"""Several processes: weights sharded at the start, over the steps, in checkpoints, and written out whole at the end."""
