"""The documents of the API, made from the declared operations: nothing in them is written a second time."""
