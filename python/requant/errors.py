"""The one exception for input that a user can correct."""

from __future__ import annotations


class InputError(ValueError):
    """A single clear line: what was wrong, what it was, what was expected. The command line exits with code 2 on it."""
