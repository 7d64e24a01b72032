"""How the files of other recorders become episodes: a small YAML file that names what is where.

    fps: 10
    files: "*.hdf5"                      # .npz, .hdf5 / .h5, or TFRecord
    episodes: data/*                     # HDF5: the groups that are an episode each; without it a file is one
    sentence_from: language              # a column, an attribute or a text; or `sentence:` for all of them
    cameras: {observation.images.top: obs/agentview_image}
    numbers:
      observation.state: [obs/eef_pos, obs/gripper]
      action: actions
    names: {action: [x, y, z, gripper]}

It reads no episodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from vertebra.config import Filled
from vertebra.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EpisodesSchema:
    """What is where in the files of a recorder."""

    fps: int
    numbers: dict[str, str | list[str]]
    """Ours: theirs, or several of theirs that are joined."""
    cameras: dict[str, str] = field(default_factory=dict)
    """Ours: theirs; uint8 images, or encoded ones."""
    files: Annotated[str, Filled()] = "*"
    """Which files of the folder, in the order of their names."""
    episodes: str | None = None
    """HDF5: which groups are an episode each, as `data/*`."""
    sentence: str | None = None
    """The same for all episodes."""
    sentence_from: str | None = None
    """Where the sentence of an episode stands."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """Names of the dimensions, where they are to have some."""
    robot: str | None = None
    codec: Literal["h264", "av1", "image"] = "h264"

    def __post_init__(self) -> None:
        if (self.sentence is None) == (self.sentence_from is None):
            raise ConfigError(
                "the schema needs either `sentence` (of all episodes) or `sentence_from` (where it stands)"
            )
        if unknown := sorted(set(self.names) - set(self.numbers)):
            raise ConfigError(f"`names` has {', '.join(unknown)}, and `numbers` has {', '.join(self.numbers)}")
