"""Guests who log in: bringing along what they have, with the secret that came with their first answer."""

from typing import Annotated, Literal

from pydantic import Field

from protocol import errors
from protocol.operation import NOT_BLANK, STORABLE, Access, Body, Noun, OperationTable, Request, Route, Shape

GuestSecret = Annotated[str, Field(min_length=1, max_length=256), NOT_BLANK, STORABLE]
"""`guest_secret` of a guest's first answer: opaque, about 80 characters today."""


class AdoptGuest(Request):
    """Make one's own what one asked and kept as a guest: once for a guest, for ever. Sent again it answers the same.

    What both have of a film in their watchlists stays as the user has it. Standing conversations of the guest get new
    ids, and its name begins anew.
    """

    type: Literal["adopt_guest"]
    secret: GuestSecret


class GuestAdopted(Noun):
    """How many conversations and how many films of the watchlist the user has more."""

    conversations: int
    films: int


class AdoptBody(Body):
    secret: GuestSecret


operations = OperationTable()

ADOPT_GUEST = operations.declare(
    "adopt_guest",
    AdoptGuest,
    GuestAdopted,
    summary="Make one's own what one asked and kept as a guest",
    access=Access.USER,
    deadline_s=20.0,  # all messages of standing conversations are written once
    routes=(Route("POST", "/api/v1/guests/adopt", Shape.BARE, AdoptBody),),
    errors=(
        errors.GUEST_NOT_FOUND,
        errors.GUEST_ADOPTED,
        errors.CONVERSATION_BUSY,
        errors.TOO_MANY_CONVERSATIONS,
        errors.WATCHLIST_FULL,
    ),
    example=AdoptGuest(
        type="adopt_guest",
        secret="guest_qvj2k5xw7y3bnr4d6tqhs2m5oe.Yk3v0p7XqS1bN8cR5tW2uE9aZ4hJ6mL0fD3gK7iO1sQ",  # noqa: S106 (of nobody)
    ),
    example_reply=GuestAdopted(conversations=2, films=5),
)
