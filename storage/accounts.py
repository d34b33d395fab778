"""Login sessions, in Redis: a session that is not there is revoked or expired, whatever a token says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from storage.redis import LOGIN, SESSION, USER_SESSIONS, Redis, reachable

LOGIN_CLAIM_S = 20
"""How long one exchange of a code may hold others off: longer than WeChat's deadline of 10 s and its retries."""

CREATE = """
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return redis.call('EXPIRE', KEYS[1], ARGV[1])
"""
"""KEYS: session. ARGV: its life in s, then fields and values. A script, so that no session is left without an end."""

NOTE = """
local clock = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', clock[1])
redis.call('ZADD', KEYS[1], clock[1] + ARGV[1], ARGV[2])
return redis.call('EXPIRE', KEYS[1], ARGV[3])
"""
"""KEYS: a user's sessions. ARGV: the session's life in s, its id, the key's life in s. Those that are over go."""


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A login. `sealed_key` is WeChat's session_key, encrypted; it never leaves the server."""

    session_id: str
    user_id: str = field(repr=False)
    openid: str = field(repr=False)
    unionid: str | None = field(repr=False)
    sealed_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExchangedCode:
    """What is known of a wx.login code: None for `session_id` while its exchange is under way."""

    session_id: str | None


class Sessions:
    """Every method raises STORAGE_UNAVAILABLE when Redis does not answer."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def create(self, session: StoredSession, ttl_s: int, *, code_hash: str | None = None) -> None:
        """Keep a new session for `ttl_s` seconds.

        A code that led to it leads to it again for as long as a client may send it again.
        """

        def ask(pipeline: Any) -> None:
            # First the note, or a session would be left that nobody finds who ends all of the user's.
            pipeline.eval(NOTE, 1, *self._note(session, ttl_s))
            pipeline.eval(
                CREATE,
                1,
                SESSION(session.session_id),
                str(ttl_s),
                *("user_id", session.user_id),
                *("openid", session.openid),
                *("unionid", session.unionid or ""),
                *("sealed_key", session.sealed_key),
            )
            if code_hash is not None:
                pipeline.set(LOGIN(code_hash), to_json(session.session_id), ex=LOGIN.ttl_s)

        async with reachable():
            await self._redis.together(ask)

    @staticmethod
    def _note(session: StoredSession, ttl_s: int) -> tuple[str, str, str, str]:
        return USER_SESSIONS(session.user_id), str(ttl_s), session.session_id, str(USER_SESSIONS.ttl_s)

    async def find(self, session_id: str, *, prolong_s: int | None = None) -> StoredSession | None:
        """The session, or None when it is revoked or over; `prolong_s` gives it that many seconds from now."""
        key = SESSION(session_id)

        def ask(pipeline: Any) -> None:
            if prolong_s is not None:
                pipeline.expire(key, prolong_s)
            pipeline.hgetall(key)

        async with reachable():
            results = await self._redis.together(ask)
        raw: dict[bytes, bytes] = results[-1]
        if not raw:
            return None
        session = StoredSession(
            session_id,
            user_id=raw[b"user_id"].decode(),
            openid=raw[b"openid"].decode(),
            unionid=raw[b"unionid"].decode() or None,
            sealed_key=raw[b"sealed_key"],
        )
        if prolong_s is not None:
            async with reachable():
                await self._redis.together(lambda pipeline: pipeline.eval(NOTE, 1, *self._note(session, prolong_s)))
        return session

    async def of_user(self, user_id: str) -> list[str]:
        """The user's sessions; some may be over by now."""
        async with reachable():
            found: Any = await self._redis.zrange(USER_SESSIONS(user_id), 0, -1)
        return [session_id.decode() for session_id in found]

    async def exists(self, session_id: str) -> bool:
        """Whether the session is neither revoked nor over."""
        async with reachable():
            return bool(await self._redis.exists(SESSION(session_id)))

    async def gone(self, session_ids: Sequence[str]) -> list[str]:
        """Those of these sessions, no id given twice, that are revoked or over."""
        async with reachable():
            keys = [SESSION(session_id) for session_id in session_ids]
            # Nearly always all are there, and then one number says so.
            if not keys or await self._redis.exists(*keys) == len(keys):
                return []
            pipeline = self._redis.pipeline(transaction=False)
            for key in keys:
                pipeline.exists(key)
            there: list[int] = await pipeline.execute()
        return [session_id for session_id, found in zip(session_ids, there, strict=True) if not found]

    async def revoke(self, session_id: str) -> None:
        """End the session: every node closes what belongs to it within seconds. Ending it twice is fine."""
        async with reachable():
            await self._redis.delete(SESSION(session_id))

    async def claim_code(self, code_hash: str) -> ExchangedCode | None:
        """Take on the exchange of a code: None means that it is the caller's to do, else what is known of it."""
        key = LOGIN(code_hash)
        async with reachable():
            (known,) = await self._redis.together(
                lambda pipeline: pipeline.set(key, b"null", nx=True, ex=LOGIN_CLAIM_S, get=True)
            )
        return None if known is None else ExchangedCode(from_json(known))

    async def release_code(self, code_hash: str) -> None:
        """Give up an exchange that failed, so that the next attempt is made at once."""
        async with reachable():
            await self._redis.delete(LOGIN(code_hash))
