"""What a model's actions are, as plain data that travels in its folder: `Model.record["policy"]`.

    instruction ──template──► text                  cameras, proprio ──► slots
                                 └──────► sequence ◄──────┘
                     head: tokens │ parallel │ l1 │ flow      lead ids, slots, tail ids, who sees whom
                                     ▼
                  [chunk, dims] in −1…1 ──normalization, statistics[key]──► the robot's own units

Whoever makes a policy (a task, an importer) writes it, whoever asks one for actions reads it; neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from vertebra import config
from vertebra.action.frames import Frame, Gripper
from vertebra.action.normalization import Norm
from vertebra.config import Bound
from vertebra.errors import ConfigError

POLICY = "policy"
"""Its place in a model's record."""
PROPRIO = "proprio"
"""The segment of what a robot reports of itself."""
VERSION = 1
"""Of what is written."""

Head = Literal["tokens", "parallel", "l1", "flow", "ddim"]
DENOISE = ("flow", "ddim")
"""Heads that take steps."""
Sees = Literal["causal", "block", "row"]
_COUNT = Bound(least=1)


@dataclass(frozen=True, kw_only=True)
class ActionRecord:
    """How an observation becomes a chunk of actions, with everything that training decided about it."""

    version: int = VERSION
    head: Head
    """`tokens` one after the other, `parallel` tokens in slots, `l1` and `flow`: numbers from hidden states."""
    dims: Annotated[int, _COUNT]
    """Numbers in one action."""
    chunk: Annotated[int, _COUNT] = 1
    """Actions that one call predicts."""
    execute: int | None = None
    """How many of them, from the first, are carried out before the next call; None: all."""
    bins: dict[str, Any] | None = None
    """Numbers ⇄ ids, for the heads that say tokens: a record of `action.bins.Bins`. None for the others."""
    cameras: tuple[str, ...] = ("image",)
    """Names, in the order of the sequence. `image` fills the segment `image`, any other `NAME` fills `image:NAME`."""
    history: Annotated[int, Bound(least=0)] = 0
    """Earlier images of each camera that stand before the present one, the oldest first."""
    proprio: Annotated[int | None, _COUNT] = None
    """Numbers that the robot reports of itself (the segment `proprio`); None: it is not asked."""
    template: str = "{instruction}"
    """What is asked, with the instruction in it: a user's message in the model's own prompt format, …"""
    raw: bool = False
    """… or, with `raw`, the whole text as it stands behind the anchor and the slots of cameras and proprio."""
    images: Literal["before", "after"] = "before"
    """Where the images of a message stand: before its text, or after it."""
    lower: bool = False
    """Whether instructions are written in small letters."""
    lead: tuple[int, ...] = ()
    """Ids between the text and the action: OpenVLA's 29871, the `<ACT>` of others."""
    tail: tuple[int, ...] = ()
    """Ids behind the slots of heads that fill slots: OFT's `</s>`."""
    attention: Sees = "causal"
    """Who sees whom among slots, as in `fill(see=…)`: `row` is both ways over everything."""
    steps: Annotated[int | None, _COUNT] = None
    """Denoising steps of `flow`."""
    normalization: Norm | tuple[Norm, ...] = "quantile"
    """How actions come to −1…1, or one entry a dimension."""
    proprio_normalization: Norm | tuple[Norm, ...] = "quantile"
    frame: Frame = "absolute"
    """What was predicted: actions as they were recorded, differences from the action before, or from the state."""
    frame_dims: tuple[bool, ...] | None = None
    """Dimensions that `frame` is about; None: all."""
    gripper: Gripper = "as-is"
    """What becomes of the last dimension, in the robot's units."""
    view: dict[str, Any] = field(default_factory=dict)
    """How a simulator drew what it was trained on (`size`, `bare_wrist` …); its images are drawn so again."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """By dataset, as OpenVLA's `norm_stats`: {key: {"action": {q01, q99, mean, std, min, max, mask}, "proprio": …}}."""

    def __post_init__(self) -> None:
        faults = [*self._unfit_heads(), *self._unfit_sizes()]
        if faults:
            raise ConfigError("an action record contradicts itself:\n" + "\n".join(f"  {fault}" for fault in faults))

    def _unfit_heads(self) -> list[str]:
        by_tokens = self.head in ("tokens", "parallel")
        faults = (
            [] if self.version == VERSION else [f"version {self.version}; {VERSION} is read here: upgrade vertebra"]
        )
        if by_tokens != (self.bins is not None):
            faults.append(f"head `{self.head}` needs {'`bins`' if by_tokens else 'no `bins`, for it gives numbers'}")
        if (self.steps is not None) and self.head not in DENOISE:
            faults.append(f"steps={self.steps} without effect: only `flow` takes steps, and the head is `{self.head}`")
        if self.raw and self.images == "after":
            faults.append('images="after" is about a message, and `raw` has none: its images stand behind the anchor')
        if self.head == "tokens" and (self.tail or self.attention != "causal"):
            faults.append("`tail` and `attention` are about slots, and the head `tokens` has none")
        return faults

    def _unfit_sizes(self) -> list[str]:
        faults = []
        if self.execute is not None and not 1 <= self.execute <= self.chunk:
            faults.append(f"execute={self.execute}; expected 1 to {self.chunk}, the length of a chunk")
        if "{instruction}" not in self.template:
            faults.append(f"the template {self.template!r:.80} has no place for {{instruction}}")
        if len(set(self.cameras)) < len(self.cameras):
            faults.append(f"cameras are {self.cameras}; expected each once")
        for name, size in (("normalization", self.dims), ("proprio_normalization", self.proprio)):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != (size or 0):
                faults.append(f"`{name}` has {len(given)} entries for {size or 0} dimensions")
        if self.frame_dims is not None and len(self.frame_dims) != self.dims:
            faults.append(f"`frame_dims` has {len(self.frame_dims)} entries for {self.dims} dimensions")
        return faults

    def to_json(self) -> dict[str, Any]:
        """Plain data for `Model.record["policy"]`."""
        return dict(config.plain(self))

    @classmethod
    def of(cls, record: Mapping[str, Any], *, where: str = "this model") -> ActionRecord:
        """The record in a model's `record`; one that is missing or damaged is an error."""
        advice = "so it is no policy; train a task that acts, or import a folder of OpenVLA's"
        return config.recorded(cls, record, POLICY, where=where, of="actions", advice=advice)

    def asked(self, instruction: str) -> str:
        """The text that is asked of the model."""
        return self.template.replace("{instruction}", instruction.lower() if self.lower else instruction)

    def message(self, text: str, counts: Mapping[str, int]) -> list[dict[str, Any]]:
        """What a user's message holds: the text, and `counts` items of each segment, in the order of the sequence."""
        images = [
            {"type": "image", "name": name} for name, count in counts.items() if name != PROPRIO for _ in range(count)
        ]
        vectors = [{"type": "vector", "name": PROPRIO}] * counts.get(PROPRIO, 0)
        words = [{"type": "text", "text": text}]
        return [*images, *vectors, *words] if self.images == "before" else [*words, *vectors, *images]


def segment_of(camera: str) -> str:
    """The segment whose slots a camera's image fills."""
    return camera if camera == "image" else f"image:{camera}"


def drawn(record: ActionRecord) -> str:
    """How a policy acts, as text: what `vertebra info` shows.

    policy    tokens: 1 × 7 numbers by 256 bins (openvla)      statistics: bridge_orig, fractal
    """
    how = {
        "tokens": "tokens one after the other",
        "parallel": "tokens in one pass",
        "l1": "regression",
        "flow": "flow matching",
        "ddim": "diffusion",
    }
    bins = record.bins or {}
    count = bins.get("count") or len(bins.get("ids", ()))
    scheme = f" by {count} bins ({bins.get('scheme')})" if count else ""
    eyes = f"sees {', '.join(record.cameras) or 'nothing'}" + (
        f", {record.history + 1} images of each" if record.history else ""
    )
    own = f", {record.proprio} numbers of proprio" if record.proprio else ""
    kept = record.statistics
    names = ", ".join(sorted(kept)) if len(kept) <= 6 else f"{len(kept)} data sets"
    norm = record.normalization if isinstance(record.normalization, str) else "a rule for each dimension"
    view = ", ".join(f"{name} {value}" for name, value in sorted(record.view.items()))
    eyes += f" (drawn with {view})" if view else ""
    lines = [
        f"policy    {record.chunk} × {record.dims} numbers, {how[record.head]}{scheme}",
        f"          {eyes}{own}; asked {record.asked('…')!r}",
        f"          units: {names or 'no statistics'} ({norm}, {record.frame})",
    ]
    return "\n".join(lines)
