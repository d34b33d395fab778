"""How a pool of connections is doing, whichever server they lead to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolUse:
    """Callers wait when all connections are in use, and while one is opened for them."""

    in_use: int
    idle: int
    waiting: int
