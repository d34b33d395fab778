"""The log of a run in Redis: its frames in order, for whoever comes back to it from any node.

A run's frames lie in a Redis Stream. One entry holds several consecutive frames and its id is `{last seq}-0`, so that
"everything after seq n" is one range read. An entry is taken only from the run's present owner and only right after
the one before it: what a lost write or a restarted Redis left out is found at once, and the owner sends it again.
The log is written behind the live path: nobody who streams waits for it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from protocol.envelope import ends_run
from storage.redis import RUN_LOG, RUN_META, Redis, reachable

PAGE_ENTRIES = 64
"""Entries in one page of a replay: about 16 s of a run, some tens of kilobytes."""

APPEND = """
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0')
if epoch == 0 then return {'unknown'} end
if epoch > tonumber(ARGV[1]) then return {'fenced'} end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local at = newest and tonumber(string.match(newest[1], '^%d+')) or 0
if at >= tonumber(ARGV[3]) then return {'there'} end
if at ~= tonumber(ARGV[2]) then return {'gap', at} end
redis.call('XADD', KEYS[2], ARGV[3] .. '-0', 'frames', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return {'added', redis.call('HGET', KEYS[1], 'watched') or '0'}
"""
"""KEYS: meta, log. ARGV: the owner's epoch, the seq before the entry, its last seq, its frames, the keys' life in s."""

OWN = """
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') <= tonumber(ARGV[1]) then
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1], unpack(ARGV, 3))
    redis.call('EXPIRE', KEYS[1], ARGV[2])
end
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
return newest and tonumber(string.match(newest[1], '^%d+')) or 0
"""
"""KEYS: meta, log. ARGV: the new owner's epoch, the keys' life in s, then fields and values of the description."""

DESCRIBE = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
"""
"""KEYS: meta. ARGV: fields and values. A script, so that no key is left without an end."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run whose log is to be this owner's."""

    request_id: str
    epoch: int
    description: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """Consecutive encoded frames of one run: those after `after_seq` up to `last_seq`."""

    request_id: str
    epoch: int
    after_seq: int
    last_seq: int
    frames: Sequence[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of an entry. `gap`: the log ends at `at`, the frames after it are missing."""

    outcome: Literal["added", "there", "gap", "fenced", "unknown"]
    at: int = 0
    watched: bool = False


@dataclass(slots=True, init=False)
class LoggedFrame:
    """An encoded frame. Not frozen, which would cost as much again as encoding it."""

    seq: int
    encoded: bytes = field(repr=False)
    last: bool = field(repr=False, compare=False)

    def __init__(self, seq: int, encoded: bytes) -> None:
        self.seq = seq
        self.encoded = encoded
        self.last = ends_run(encoded)


class RunLogs:
    """Writes and reads the logs of runs. Every method raises STORAGE_UNAVAILABLE when Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def own(self, request_id: str, epoch: int, description: Mapping[str, str]) -> int:
        """Become the log's owner, above every earlier one, and describe the run: the log's last seq, 0 when empty.

        Where a later owner has been, nothing changes.
        """
        return (await self.own_all([Claim(request_id, epoch, description)]))[0]

    async def own_all(self, claims: Sequence[Claim]) -> list[int]:
        """The same for different runs, in one round trip."""
        async with reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for claim in claims:
                pipeline.eval(
                    OWN,
                    2,
                    RUN_META(claim.request_id),
                    RUN_LOG(claim.request_id),
                    str(claim.epoch),
                    str(RUN_META.ttl_s),
                    *(text for pair in claim.description.items() for text in pair),
                )
            last_seqs: list[Any] = await pipeline.execute()
        return [int(last_seq) for last_seq in last_seqs]

    async def append(self, entries: Sequence[Entry]) -> list[Appended]:
        """Add entries of different runs, in one round trip."""
        async with reachable():
            # Runs lie in different hash slots, so this is a pipeline and no transaction.
            pipeline = self._redis.pipeline(transaction=False)
            for entry in entries:
                pipeline.eval(
                    APPEND,
                    2,
                    RUN_META(entry.request_id),
                    RUN_LOG(entry.request_id),
                    str(entry.epoch),
                    str(entry.after_seq),
                    str(entry.last_seq),
                    b"\n".join(entry.frames),
                    str(RUN_LOG.ttl_s),
                )
            results: list[Any] = await pipeline.execute()
        return [_appended(result) for result in results]

    async def describe(self, request_ids: Sequence[str], description: Mapping[str, str]) -> None:
        """Change what is known of runs, of those of which anything is."""
        fields = [text for pair in description.items() for text in pair]
        async with reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for request_id in request_ids:
                pipeline.eval(DESCRIBE, 1, RUN_META(request_id), *fields)
            await pipeline.execute()

    async def meta(self, request_id: str) -> dict[str, str]:
        """What is known of the run, empty when the window is over."""
        async with reachable():
            raw: Any = await self._redis.hgetall(RUN_META(request_id))
        return {key.decode(): value.decode() for key, value in raw.items()}

    async def newest(self, request_id: str) -> LoggedFrame | None:
        """The newest logged frame."""
        async with reachable():
            entries: Any = await self._redis.xrevrange(RUN_LOG(request_id), count=1)
        frames = list(_frames(entries, 0))
        return frames[-1] if frames else None

    async def read(self, request_id: str, after_seq: int, max_entries: int = PAGE_ENTRIES) -> list[LoggedFrame]:
        """The frames after `after_seq`, in order, from at most `max_entries` entries."""
        async with reachable():
            entries: Any = await self._redis.xrange(
                RUN_LOG(request_id), min=f"{after_seq + 1}-0", max="+", count=max_entries
            )
        return list(_frames(entries, after_seq))

    async def read_many(self, after: Mapping[str, int], *, watch: Collection[str]) -> dict[str, list[LoggedFrame]]:
        """The same of several runs in one round trip; the owners of those in `watch` are asked to log more often."""
        async with reachable():
            pipeline = self._redis.pipeline(transaction=False)
            for request_id, after_seq in after.items():
                pipeline.xrange(RUN_LOG(request_id), min=f"{after_seq + 1}-0", max="+", count=PAGE_ENTRIES)
            for request_id in watch:
                pipeline.hset(RUN_META(request_id), "watched", "1")
                pipeline.expire(RUN_META(request_id), RUN_META.ttl_s)
            results: list[Any] = await pipeline.execute()
        pages = zip(after.items(), results, strict=False)
        return {request_id: list(_frames(entries, after_seq)) for (request_id, after_seq), entries in pages}


def _appended(result: Any) -> Appended:
    outcome = result[0].decode()
    if outcome == "gap":
        return Appended("gap", at=int(result[1]))
    return Appended(outcome, watched=outcome == "added" and result[1] != b"0")


def _frames(entries: Any, after_seq: int) -> Iterable[LoggedFrame]:
    for entry_id, fields in entries:
        last_seq = int(entry_id.split(b"-")[0])
        encoded = fields[b"frames"].split(b"\n")
        for seq, frame in enumerate(encoded, last_seq - len(encoded) + 1):
            if seq > after_seq:
                yield LoggedFrame(seq, frame)
