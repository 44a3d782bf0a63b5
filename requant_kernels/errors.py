"""The one error a damaged, incomplete or foreign checkpoint raises."""

from __future__ import annotations


class CheckpointError(ValueError):
    """Says which file is wrong, what is wrong with it, and what was expected."""
