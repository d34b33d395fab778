"""The server: two edges, one dispatcher, the runs of this node, and the handlers of each domain."""
