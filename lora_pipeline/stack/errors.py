"""What can go wrong with the embedded stack."""

from __future__ import annotations


class StackError(Exception):
    """The stack cannot start, or cannot go on; the message says which part, why, and where its log is."""


class StackRunning(StackError):
    """Another stack works on this home."""
