"""Guests who have logged in: their secret is checked, and what was theirs is the user's."""

from protocol import guests
from protocol.errors import GUEST_NOT_FOUND, OperationError
from protocol.guests import AdoptGuest, GuestAdopted
from storage.guests import Guests
from wsserver.auth import GuestSecrets
from wsserver.dispatch import Call, Handlers


def guest_handlers(known: Guests, secrets: GuestSecrets) -> Handlers:
    """Handlers of the operations on guests."""
    handlers = Handlers()

    @handlers.on(guests.ADOPT_GUEST)
    async def adopt(call: Call, request: AdoptGuest) -> GuestAdopted:
        guest_id = secrets.names(request.secret)
        nonce = await known.nonce(guest_id)
        if nonce is None or not secrets.proves(request.secret, guest_id, nonce):
            raise OperationError(GUEST_NOT_FOUND)
        return await known.adopt(guest_id=guest_id, user_id=call.known_caller.user_id)

    return handlers
