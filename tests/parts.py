"""What became of the parts of the tests that need something which not every machine has."""

PARTS: dict[str, str] = {}
"""By the name of the part: `ran`, or the reason why it did not."""
