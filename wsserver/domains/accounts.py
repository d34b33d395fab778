"""Logging in, refreshing, logging out, and the ping that anyone may send."""

import asyncio

import structlog

from protocol import accounts
from protocol.accounts import Authenticate, Authenticated, LoggedIn, LogIn, LogOut, Ping
from protocol.errors import OperationError
from storage.users import Known, Users
from wsserver.auth import Authenticator
from wsserver.dispatch import Call, Handlers

log = structlog.get_logger(__name__)

NOTE_S = 0.3
"""How long a login waits for PostgreSQL, which takes a millisecond, to note it; WeChat has taken 50 ms and more."""


def account_handlers(authenticator: Authenticator, users: Users) -> Handlers:
    """Handlers of the account operations."""
    handlers = Handlers()

    @handlers.on_at_once(accounts.PING)
    def ping(_call: Call, _request: Ping) -> None:
        return None

    @handlers.on(accounts.LOGIN)
    async def log_in(call: Call, request: LogIn) -> LoggedIn:
        caller, reply = await authenticator.log_in(request.code)
        try:
            async with asyncio.timeout(NOTE_S):
                await users.logged_in(Known(caller.user_id, reply.openid, reply.unionid))
        except (OperationError, TimeoutError):
            # The session is in Redis and is what counts.
            log.warning("login is not noted")
        call.caller = caller
        return reply

    @handlers.on(accounts.AUTH)
    async def authenticate(call: Call, request: Authenticate) -> Authenticated:
        call.caller, reply = await authenticator.refresh(request.token)
        return reply

    @handlers.on(accounts.LOGOUT)
    async def log_out(call: Call, _request: LogOut) -> None:
        await authenticator.log_out(call.known_caller)

    return handlers
