"""`run.py doctor`: whether this host, its settings and what they name are fit to serve."""
