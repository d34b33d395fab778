"""The log of a run in Redis: its frames in order, for whoever comes back to it from any node.

A run's frames lie in a Redis Stream. One entry holds several consecutive frames and its id is `{last seq}-0`, so that
"everything after seq n" is one range read, and Redis itself refuses an entry that goes back. The log is written
behind the live path: nobody who streams waits for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import ResponseError

from storage.redis import RUN_LOG, RUN_META, Redis, reachable


@dataclass(frozen=True, slots=True)
class Entry:
    """Consecutive encoded frames of one run; `last_seq` is that of the last of them."""

    request_id: str
    last_seq: int
    frames: Sequence[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class LoggedFrame:
    seq: int
    encoded: bytes = field(repr=False)


class RunLogs:
    """Writes and reads the logs of runs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def write(self, metas: Mapping[str, Mapping[str, str]], entries: Sequence[Entry]) -> None:
        """Describe runs (whose they are, how they stand) and add to their logs, all in one round trip.

        What is there already (a write repeated because its answer was lost) is left as it is. Raises
        STORAGE_UNAVAILABLE.
        """
        async with reachable():
            # Runs lie in different hash slots, so this is a pipeline and no transaction.
            pipeline = self._redis.pipeline(transaction=False)
            for request_id, meta in metas.items():
                fields: dict[Any, Any] = dict(meta)
                pipeline.hset(RUN_META(request_id), mapping=fields)
                pipeline.expire(RUN_META(request_id), RUN_META.ttl_s)
            for entry in entries:
                log = RUN_LOG(entry.request_id)
                pipeline.xadd(log, {"frames": b"\n".join(entry.frames)}, id=f"{entry.last_seq}-0")
                pipeline.expire(log, RUN_LOG.ttl_s)
                pipeline.expire(RUN_META(entry.request_id), RUN_META.ttl_s)
            for result in await pipeline.execute(raise_on_error=False):
                if isinstance(result, Exception) and not _was_there(result):
                    raise result

    async def meta(self, request_id: str) -> dict[str, str]:
        """What is known of the run, empty when the window is over. Raises STORAGE_UNAVAILABLE."""
        async with reachable():
            raw: Any = await self._redis.hgetall(RUN_META(request_id))
        return {key.decode(): value.decode() for key, value in raw.items()}

    async def read(self, request_id: str, after_seq: int, max_entries: int = 100) -> list[LoggedFrame]:
        """The frames after `after_seq`, in order, from at most `max_entries` entries. Raises STORAGE_UNAVAILABLE."""
        async with reachable():
            entries: Any = await self._redis.xrange(
                RUN_LOG(request_id), min=f"{after_seq + 1}-0", max="+", count=max_entries
            )
        frames = []
        for entry_id, fields in entries:
            last_seq = int(entry_id.split(b"-")[0])
            encoded = fields[b"frames"].split(b"\n")
            for seq, frame in enumerate(encoded, last_seq - len(encoded) + 1):
                if seq > after_seq:
                    frames.append(LoggedFrame(seq, frame))
        return frames


def _was_there(error: Exception) -> bool:
    return isinstance(error, ResponseError) and "equal or smaller" in str(error)
