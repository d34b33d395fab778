"""What is kept, in PostgreSQL and Redis. Takes DSNs, returns the protocol's nouns."""
