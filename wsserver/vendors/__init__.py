"""Clients of other companies' APIs, one small class each. They raise OperationError and know nothing of sockets."""
