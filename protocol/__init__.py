"""What goes over the wire: nouns, operations, errors, the rules of one connection. pydantic and stdlib only, no IO."""
