"""What a name means, wherever it comes from: packages that carry weights, and formats of other projects.

It uses backbones and encoders, and neither training nor the command line.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "packages": "get",
        "openvla.options": "ImportOptions",
        "openvla.read": "load_openvla",
        "openvla.write": "write_openvla",
    },
)
