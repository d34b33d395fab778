"""Handlers, one file per domain: what an operation does once it was validated, authorised and limited."""
