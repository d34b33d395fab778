"""Which parts of the tests ran, and why those did not that need a program which is not everywhere."""

PARTS: dict[str, str] = {}
"""Part → "ran", or the reason why not."""
