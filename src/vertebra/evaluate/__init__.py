"""Policies in a closed loop: success with intervals, arms on the same seeds, films (`vertebra.evaluate.evaluate_policy`).
Models of documents on pages with known answers (`evaluate_documents`).

Whatever has `act` and `reset` is evaluated in whatever is a `Simulation`; neither knows of the other.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "running": "evaluate_policy",
        "settings": "EvaluationSettings",
        "arms": "Arm",
        "records": "EpisodeRecord",
        "results": "Results",
        "intervals": "wilson mcnemar paired_difference",
        "page": "evaluation_page",
        "documents.running": "evaluate_documents",
        "documents.results": "DocumentResults AnswerRecord",
        "documents.arms": "DocumentArm",
        "documents.page": "documents_page write_documents_page",
    },
)
