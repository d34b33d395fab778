"""Logging in, refreshing, logging out, and the ping that anyone may send."""

from protocol import accounts
from protocol.accounts import Authenticate, Authenticated, LoggedIn, LogIn, LogOut, Ping
from wsserver.auth import Authenticator
from wsserver.dispatch import Call, Handlers


def account_handlers(authenticator: Authenticator) -> Handlers:
    """Handlers of the account operations."""
    handlers = Handlers()

    @handlers.on(accounts.PING)
    async def ping(_call: Call, _request: Ping) -> None:
        return None

    @handlers.on(accounts.LOGIN)
    async def log_in(call: Call, request: LogIn) -> LoggedIn:
        call.caller, reply = await authenticator.log_in(request.code)
        return reply

    @handlers.on(accounts.AUTH)
    async def authenticate(call: Call, request: Authenticate) -> Authenticated:
        call.caller, reply = await authenticator.refresh(request.token)
        return reply

    @handlers.on(accounts.LOGOUT)
    async def log_out(call: Call, _request: LogOut) -> None:
        await authenticator.log_out(call.known_caller)

    return handlers
