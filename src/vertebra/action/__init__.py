"""Actions as numbers, ids and statistics: bins, normalisation, chunks, and the record that a policy's folder keeps.

It does without models, without torch, and without the source of episodes.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "record": "ActionRecord segment_of",
        "bins": "Bins openvla_bins uniform_bins quantile_bins quantile_edges",
        "tokens": "action_tokens token_ids reserved_ids",
        "statistics": "Moments DatasetStatistics envelope lookup",
        "counting": "Counter",
        "files": "read_statistics",
        "normalization": "normalize unnormalize outside",
        "frames": "to_frame from_frame gripped",
        "chunks": "windows first Ensemble prefix_weights guidance_weight remaining",
    },
)
