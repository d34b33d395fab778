"""Parts of the tests that need more than Python brings: which of them ran, and why the others did not.

Does not answer whether they passed. Whoever adds a part sets it here; the end of every run says them all.
"""

PARTS: dict[str, str] = {}
"""A part's name to `RAN`, or to the reason why it did not run."""

RAN = "ran"

REQUIRE_ALL = "CINEWIRE_REQUIRE_ALL"
"""With this set to 1 in the environment, a part that cannot run fails instead of being skipped."""
