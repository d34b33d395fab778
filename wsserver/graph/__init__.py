"""`run.py export-graph`: what a graph is told about films, and how it or a file for it is told."""
