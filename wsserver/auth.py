"""Who is speaking, and how that is proven: login by WeChat, tokens bound to revocable sessions, guests' own namespace.

A token is a JWT (HS256) that names a session in Redis. It is good while its signature, its audience, its time and
that session are; ending the session ends all its tokens. WeChat's session_key lies in Redis encrypted and nowhere
else.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jwt.algorithms import HMACAlgorithm
from pydantic_core import to_json

from protocol.accounts import Authenticated, Caller, LoggedIn
from protocol.errors import (
    GUEST_NOT_FOUND,
    GUESTS_OFF,
    SESSION_REVOKED,
    TOKEN_EXPIRED,
    TOKEN_INVALID,
    OperationError,
)
from protocol.operation import GuestClaim
from storage.accounts import Sessions, StoredSession
from wsserver.vendors.wechat import WeChatLogin

ISSUER = "cinewire"
AUDIENCE = "cinewire"
ALGORITHM = "HS256"
GUEST = "guest"
CLOCK_SKEW_S = 10
"""Nodes' clocks are kept by NTP; ten seconds is far more than they differ."""

MAX_VERIFIED = 4_096
"""Tokens whose signatures were checked lately: a client that comes back brings the same one, and checking takes 0.1 ms.
About 2 MiB. Whether the session still is, is asked each time.
"""

CLAIM_POLL_S = 0.05
"""How often a second login with the same code looks whether the first has its answer: WeChat takes 50 ms and more."""

CONVERSATIONS = uuid.UUID("6f0c1c0e-3b1f-5f0e-9a54-0e6a3f7f5d11")
"""Namespace (RFC 9562 §5.5) of standing conversations: their ids follow from whose they are."""


class CodeExchange(Protocol):
    """Where a wx.login code is turned into an openid: WeChat, or the local stand-in of development."""

    async def code_to_session(self, code: str) -> WeChatLogin: ...


class _KnownKey(HMACAlgorithm):
    """HS256 with a secret that PyJWT has looked at once. It would for each token, four times as long as it signs."""

    def __init__(self, secret: bytes) -> None:
        super().__init__(hashlib.sha256)
        self._checked = super().prepare_key(secret)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._checked


class Authenticator:
    """Turns codes, tokens and guests' claims into callers."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        exchange: CodeExchange,
        appid: str,
        secret: str,
        token_ttl_s: int,
        guests_allowed: bool,
    ) -> None:
        self._sessions = sessions
        self._exchange = exchange
        self._appid = appid
        self._secret = secret.encode()
        self._signer = jwt.PyJWS(algorithms=[])
        self._signer.register_algorithm(ALGORITHM, _KnownKey(self._secret))
        self._seal = AESGCM(_derive(self._secret, b"cinewire session_key"))
        self._token_ttl_s = token_ttl_s
        self._guests_allowed = guests_allowed
        self._watchers: list[Callable[[str], None]] = []
        self._verified: dict[str, tuple[str, float]] = {}

    def when_session_ends(self, watcher: Callable[[str], None]) -> None:
        """Have `watcher` told the id of every session that is revoked here."""
        self._watchers.append(watcher)

    async def log_in(self, code: str) -> tuple[Caller, LoggedIn]:
        """Exchange a wx.login code for a session. The same code again leads to the same session.

        Raises LOGIN_* and WECHAT_* as WeChat answers.
        """
        session = await self._session_of_code(code)
        caller, token = self._issue(session)
        return caller, LoggedIn(
            openid=session.openid,
            unionid=session.unionid,
            session_id=session.session_id,
            token=token,
            expires_in=self._token_ttl_s,
        )

    async def _session_of_code(self, code: str) -> StoredSession:
        code_hash = hashlib.sha256(f"{self._appid}:{code}".encode()).hexdigest()
        while (known := await self._sessions.claim_code(code_hash)) is not None:
            if known.session_id is None:
                await asyncio.sleep(CLAIM_POLL_S)
                continue
            session = await self._sessions.find(known.session_id, prolong_s=self._token_ttl_s)
            if session is not None:
                return session
            # That session was ended: whether the code is still worth anything is for WeChat to say.
            await self._sessions.release_code(code_hash)
        try:
            login = await self._exchange.code_to_session(code)
        except OperationError:
            await self._sessions.release_code(code_hash)
            raise
        session_id = secrets.token_urlsafe(24)
        session = StoredSession(
            session_id,
            user_id=_opaque("wx", self._appid, login.openid),
            openid=login.openid,
            unionid=login.unionid,
            sealed_key=self._seal_key(session_id, login.session_key),
        )
        await self._sessions.create(session, self._token_ttl_s, code_hash=code_hash)
        return session

    async def authenticate(self, token: str) -> Caller:
        """Whose token this is. Raises TOKEN_INVALID, TOKEN_EXPIRED or SESSION_REVOKED."""
        session_id, expires_at = self._verify(token)
        session = await self._sessions.find(session_id)
        if session is None:
            raise OperationError(SESSION_REVOKED)
        return _caller(session, expires_at)

    async def refresh(self, token: str) -> tuple[Caller, Authenticated]:
        """A new token for the same session, which lives that much longer. Raises as `authenticate`."""
        session_id, _ = self._verify(token)
        session = await self._sessions.find(session_id, prolong_s=self._token_ttl_s)
        if session is None:
            raise OperationError(SESSION_REVOKED)
        caller, fresh = self._issue(session)
        return caller, Authenticated(
            openid=session.openid, session_id=session.session_id, token=fresh, expires_in=self._token_ttl_s
        )

    async def log_out(self, caller: Caller) -> None:
        """End the caller's session and with it all its tokens."""
        await self._end(caller.session_id)

    async def log_out_everywhere(self, caller: Caller) -> None:
        """End all sessions of the caller's user, the caller's own last: whatever fails may be tried again with it."""
        for session_id in await self._sessions.of_user(caller.user_id):
            if session_id != caller.session_id:
                await self._end(session_id)
        await self._end(caller.session_id)

    async def _end(self, session_id: str) -> None:
        await self._sessions.revoke(session_id)
        for watcher in self._watchers:
            watcher(session_id)

    def guest(self, claim: GuestClaim | None) -> Caller:
        """A guest, named by nobody's word but its own; one that gives no name is new each time. Raises GUESTS_OFF."""
        if not self._guests_allowed:
            raise OperationError(GUESTS_OFF)
        if claim is None:
            user_id = _opaque(GUEST, "anonymous", secrets.token_hex(16))
            session = ""
        else:
            user_id = _opaque(GUEST, claim.surface, claim.name)
            session = claim.session
        conversation_id = uuid.uuid5(CONVERSATIONS, f"{user_id}\n{session}")
        return Caller("guest", user_id, session or str(conversation_id), conversation_id)

    def open_key(self, session: StoredSession) -> str:
        """WeChat's session_key of a session, for checking its signatures."""
        nonce, sealed = session.sealed_key[:12], session.sealed_key[12:]
        return self._seal.decrypt(nonce, sealed, session.session_id.encode()).decode()

    def _seal_key(self, session_id: str, session_key: str) -> bytes:
        # A random 96-bit nonce is safe for 2^32 keys under one secret (NIST SP 800-38D §8.3).
        nonce = os.urandom(12)
        return nonce + self._seal.encrypt(nonce, session_key.encode(), session_id.encode())

    def _issue(self, session: StoredSession) -> tuple[Caller, str]:
        now = int(time.time())
        expires_at = now + self._token_ttl_s
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": session.user_id,
            "sid": session.session_id,
            "jti": secrets.token_urlsafe(12),
            "iat": now,
            "exp": expires_at,
        }
        return _caller(session, float(expires_at)), self._signer.encode(to_json(claims), self._secret, ALGORITHM)

    def _verify(self, token: str) -> tuple[str, float]:
        """The session of a token and when the token expires."""
        known = self._verified.get(token)
        if known is None:
            claims = self._decode(token)
            known = claims["sid"], float(claims["exp"])
            if len(self._verified) >= MAX_VERIFIED:
                del self._verified[next(iter(self._verified))]
            self._verified[token] = known
        elif time.time() >= known[1] + CLOCK_SKEW_S:
            raise OperationError(TOKEN_EXPIRED)
        return known

    def _decode(self, token: str) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=CLOCK_SKEW_S,
                options={"require": ["exp", "iat", "jti", "sub", "sid"]},
            )
        except jwt.ExpiredSignatureError:
            raise OperationError(TOKEN_EXPIRED) from None
        except jwt.InvalidTokenError:
            raise OperationError(TOKEN_INVALID) from None
        if not isinstance(claims["sid"], str):
            raise OperationError(TOKEN_INVALID)
        return claims


class GuestSecrets:
    """What proves that one was a guest: it is given out once, and nothing of it is stored.

    It is the guest's id, a dot, and a MAC (RFC 2104, SHA-256) over that and a nonce that is stored with the guest.
    """

    def __init__(self, secret: str) -> None:
        self._key = _derive(secret.encode(), b"cinewire guest")

    def of(self, guest_id: str, nonce: UUID) -> str:
        """The guest's secret."""
        proof = hmac.digest(self._key, f"{guest_id}\n{nonce}".encode(), "sha256")
        return f"{guest_id}.{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"

    def names(self, secret: str) -> str:
        """Whose secret it says that it is. Raises GUEST_NOT_FOUND."""
        guest_id, _, _ = secret.partition(".")
        if not is_guest(guest_id):
            raise OperationError(GUEST_NOT_FOUND)
        return guest_id

    def proves(self, secret: str, guest_id: str, nonce: UUID) -> bool:
        """Whether it is the guest's secret."""
        return hmac.compare_digest(secret.encode(), self.of(guest_id, nonce).encode())


def is_guest(user_id: str) -> bool:
    """Whether the id is a guest's."""
    return user_id.startswith(f"{GUEST}_")


def bearer_token(authorization: str) -> str:
    """The token in an `Authorization` header (RFC 6750 §2.1). Raises TOKEN_INVALID when it holds none."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise OperationError(TOKEN_INVALID)
    return token.strip()


def _caller(session: StoredSession, expires_at: float) -> Caller:
    conversation_id = uuid.uuid5(CONVERSATIONS, f"{session.user_id}\n")
    return Caller("user", session.user_id, session.session_id, conversation_id, session.openid, expires_at)


def _opaque(kind: str, *names: str) -> str:
    """An id that may stand in logs and tokens: it names nobody, and the kinds cannot meet."""
    digest = hashlib.sha256("\n".join((kind, *names)).encode()).digest()
    return f"{kind}_{base64.b32encode(digest[:16]).decode().rstrip('=').lower()}"


def _derive(secret: bytes, purpose: bytes) -> bytes:
    """A key of its own for each purpose, so that a token's signature says nothing about a sealed key."""
    return HKDF(SHA256(), 32, None, purpose).derive(secret)
