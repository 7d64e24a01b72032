"""Episodes of robots on the disk: read, written, checked and converted, with pyarrow and PyAV alone (extra `robots`).

    from vertebra.episodes import open_episodes, EpisodeWriter

Knows LeRobot's formats (v2.0, v2.1, v3.0) and GR00T's `modality.json`. It does without torch, without models, and
without what a training makes of the frames.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "episode_set": "open_episodes EpisodeSet",
        "check": "check_episodes",
        "convert": "convert_episodes",
        "schema": "EpisodesSchema",
        "report": "EpisodesReport EpisodesFinding",
        "facts": "Camera Episode Numbers",
        "writer": "EpisodeWriter",
    },
)
