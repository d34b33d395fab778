"""Parts of the tests that need more than Python: each says whether it ran, or why not. pytest's last lines show it."""

PARTS: dict[str, str] = {}
