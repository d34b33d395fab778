"""Servers that the benches measure beside this one: each as its own documentation would write it, without tricks.

They all answer `ping`, `login` and `chat`, whose answer is scripted, and do nothing else: no accounts, no limits, no
storage, no log of an answer. Each is a program: `python -m tests.bench.peers.bare_starlette 8001`.
"""
