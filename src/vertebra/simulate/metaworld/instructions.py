"""Meta-World's tasks as rows: the instruction, other words for the same, whose scene it shares.

`paraphrases` are held out: nothing here ever writes them into a set of demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass

from vertebra.simulate.metaworld.measured import MEASURED

LONGEST = 500
"""Steps that Meta-World itself allows."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A scene in which both tasks of a pair are still to be done: where its joint stands, and where the object may."""

    joint: str
    at: float
    low: tuple[float, float, float]
    high: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class InstructedTask:
    """One task."""

    instruction: str
    paraphrases: tuple[str, ...]
    partner: str | None = None
    shared: Shared | None = None
    marked: bool = False
    """The goal is a place that only a mark shows; elsewhere marks are hidden, for they would give the task away."""


# the drawer half out, the window half open, the faucet as it always stands: the words alone decide which way
_DRAWER = Shared(joint="goal_slidey", at=-0.12, low=(-0.1, 0.9, 0.0), high=(0.1, 0.9, 0.0))
_WINDOW = Shared(joint="window_slide", at=0.1, low=(-0.1, 0.7, 0.16), high=(0.1, 0.9, 0.16))
_FAUCET = Shared(joint="knob_Joint_1", at=0.0, low=(-0.1, 0.8, 0.0), high=(0.1, 0.85, 0.0))


def _row(instruction: str, *paraphrases: str, **more: object) -> InstructedTask:
    return InstructedTask(instruction=instruction, paraphrases=paraphrases, **more)  # type: ignore[arg-type]


TASKS: dict[str, InstructedTask] = {
    "assembly": _row(
        "put the ring on the peg", "place the ring over the peg", "slip the ring onto the peg", marked=True
    ),
    "basketball": _row("throw the ball into the basket", "dunk the ball", "put the ball into the hoop"),
    "bin-picking": _row("move the block to the other bin", "pick the block and place it in the other bin"),
    "box-close": _row("put the lid on the box", "close the box", "cover the box with its lid"),
    "button-press-topdown": _row(
        "press the button from above", "push the button down from the top", "hit the button on top"
    ),
    "button-press-topdown-wall": _row("press the button from above, behind the wall", "reach over the wall and press"),
    "button-press": _row("press the button", "push the button in", "hit the button"),
    "button-press-wall": _row("press the button behind the wall", "reach past the wall and push the button"),
    "coffee-button": _row("press the button of the coffee machine", "start the coffee machine"),
    "coffee-pull": _row("pull the mug away from the coffee machine", "take the mug to the mark", marked=True),
    "coffee-push": _row("push the mug under the coffee machine", "slide the mug into the coffee machine"),
    "dial-turn": _row("turn the dial", "rotate the knob", "twist the dial"),
    "disassemble": _row("take the ring off the peg", "lift the ring from the peg"),
    "door-close": _row("close the door", "push the door shut", "shut the door"),
    "door-lock": _row("lock the door", "turn the lock shut", "bolt the door"),
    "door-open": _row("open the door", "pull the door open", "swing the door open"),
    "door-unlock": _row("unlock the door", "turn the lock open", "release the lock of the door"),
    "hand-insert": _row("put the hand into the hole", "insert the gripper into the hole"),
    "drawer-close": _row(
        "close the drawer", "push the drawer shut", "slide the drawer in", partner="drawer-open", shared=_DRAWER
    ),
    "drawer-open": _row(
        "open the drawer", "pull the drawer open", "slide the drawer out", partner="drawer-close", shared=_DRAWER
    ),
    "faucet-open": _row(
        "open the faucet", "turn the faucet on", "rotate the faucet open", partner="faucet-close", shared=_FAUCET
    ),
    "faucet-close": _row(
        "close the faucet", "turn the faucet off", "rotate the faucet shut", partner="faucet-open", shared=_FAUCET
    ),
    "hammer": _row("hammer the nail in", "drive the nail in with the hammer"),
    "handle-press-side": _row("press the handle down from the side", "push the handle down sideways"),
    "handle-press": _row("press the handle down", "push the handle down", "lower the handle"),
    "handle-pull-side": _row("pull the handle up from the side", "lift the handle sideways"),
    "handle-pull": _row("pull the handle up", "lift the handle", "raise the handle"),
    "lever-pull": _row("pull the lever up", "lift the lever", "raise the lever"),
    "pick-place-wall": _row("carry the block over the wall to the mark", "lift the block past the wall", marked=True),
    "pick-out-of-hole": _row("take the block out of the hole", "lift the block out of the hole", marked=True),
    "pick-place": _row("put the block at the mark", "carry the block to the mark", "lift the block there", marked=True),
    "plate-slide": _row("slide the plate into the cabinet", "push the plate into the goal"),
    "plate-slide-side": _row("slide the plate sideways into the cabinet", "push the plate to the side"),
    "plate-slide-back": _row("slide the plate back out of the cabinet", "pull the plate back"),
    "plate-slide-back-side": _row("slide the plate back sideways", "pull the plate out to the side"),
    "peg-insert-side": _row("insert the peg into the hole", "put the peg in the side of the box", "plug the peg in"),
    "peg-unplug-side": _row("pull the peg out of the hole", "unplug the peg"),
    "soccer": _row("push the ball into the goal", "kick the ball into the goal", "roll the ball into the goal"),
    "stick-push": _row("push the box with the stick", "take the stick and push the box away", marked=True),
    "stick-pull": _row("pull the box with the stick", "take the stick and draw the box near", marked=True),
    "push": _row("push the block to the mark", "slide the block to the mark", "shove the block there", marked=True),
    "push-wall": _row("push the block around the wall to the mark", "slide the block past the wall", marked=True),
    "push-back": _row("push the block back to the mark", "slide the block back", marked=True),
    "reach": _row("reach the mark", "move the hand to the mark", "go to the mark", marked=True),
    "reach-wall": _row("reach the mark behind the wall", "move the hand past the wall to the mark", marked=True),
    "shelf-place": _row("put the block on the shelf", "place the block onto the shelf", marked=True),
    "sweep-into": _row("sweep the block into the hole", "push the block into the hole"),
    "sweep": _row("sweep the block off the table", "push the block off the table"),
    "window-open": _row(
        "open the window", "slide the window open", "push the window open", partner="window-close", shared=_WINDOW
    ),
    "window-close": _row(
        "close the window", "slide the window shut", "push the window shut", partner="window-open", shared=_WINDOW
    ),
}
MT10 = (
    "reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close", "button-press-topdown", "peg-insert-side",
    "window-open", "window-close",
)  # fmt: skip
"""The ten tasks of the benchmark of that name."""


def limit_of(task: str) -> int:
    """Steps of an episode: at least twice what the slowest expert takes, 200 or more, in whole fifties."""
    found = MEASURED.get(task)
    return LONGEST if found is None else min(LONGEST, max(200, -(-2 * found.steps // 50) * 50))
