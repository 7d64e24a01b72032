"""What a run will need before it runs: memory by rehearsal without weights, sharding that fits, days and cost."""
