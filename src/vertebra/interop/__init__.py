"""What a name means, wherever it comes from: packages that carry weights, and formats of other projects.

This floor knows backbones and encoders; it does not know training or the command line.
"""

from __future__ import annotations

from vertebra.lazy import offer

__getattr__, __dir__, __all__ = offer(
    __name__,
    {
        "packages": "get",
    },
)
