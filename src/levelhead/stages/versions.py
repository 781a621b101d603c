"""What the numbers of a run were computed with."""

from __future__ import annotations

from importlib.metadata import version

from levelhead import __version__


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    names = ("torch", "transformers", "numpy", "scipy")
    return {"levelhead": __version__} | {name: version(name) for name in names}
