"""Everything that a user has here: taking it along, and having it deleted with the account."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from protocol.chat import EXAMPLE_MESSAGE, Message
from protocol.conversations import EXAMPLE_CONVERSATION, Conversation, Feedback
from protocol.operation import Access, Body, Noun, OperationTable, Request, Route, Shape
from protocol.watchlist import WatchlistSource, WatchlistState

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

_CURSOR = re.compile(rf"conversations:{_UUID}|messages:{_UUID}/\d{{1,18}}|feedback:{_UUID}|watchlist:\d{{1,18}}")


def _is_cursor(cursor: str) -> str:
    if not _CURSOR.fullmatch(cursor) or not cursor.isascii():
        raise ValueError("不是导出返回的 next_after")
    return cursor


ExportCursor = Annotated[str, Field(max_length=80), AfterValidator(_is_cursor)]


class ExportAccount(Request):
    """A page of everything that the user has. `after` is the `next_after` of the page before."""

    type: Literal["account_export"]
    after: ExportCursor | None = None


class ExportedFilm(Noun):
    """A film of the watchlist."""

    tmdb_id: int
    state: WatchlistState
    source: WatchlistSource
    added_at: datetime
    changed_at: datetime


class Profile(Noun):
    """What WeChat calls the user, and when it first was here; null is what is not known."""

    openid: str | None
    unionid: str | None
    created_at: datetime


class ExportPage(Noun):
    """Put together, the lists of all pages are everything. `next_after` is null on the last page.

    What is changed while it is exported may be on two pages. `profile` is on the first one.
    """

    profile: Annotated[Profile | None, Field(exclude_if=lambda profile: profile is None)] = None
    conversations: list[Conversation] = Field(default_factory=list)
    messages: list[Message] = Field(default_factory=list)
    feedback: list[Feedback] = Field(default_factory=list)
    watchlist: list[ExportedFilm] = Field(default_factory=list)
    next_after: str | None = None


class DeleteAccount(Request):
    """Delete everything that the user has, for ever, and end all its sessions. Who logs in again begins anew."""

    type: Literal["account_delete"]


class ExportQuery(Body, strict=False):
    after: ExportCursor | None = None


class DeleteQuery(Body, strict=False):
    """Nothing is asked."""


operations = OperationTable()

ACCOUNT_EXPORT = operations.declare(
    "account_export",
    ExportAccount,
    ExportPage,
    summary="Everything that the user has, in pages",
    access=Access.USER,
    routes=(Route("GET", "/api/v1/account/export", Shape.BARE, ExportQuery),),
    example=ExportAccount(type="account_export", after=f"conversations:{EXAMPLE_CONVERSATION.id}"),
    example_reply=ExportPage(messages=[EXAMPLE_MESSAGE], next_after=f"messages:{EXAMPLE_CONVERSATION.id}/2"),
)
ACCOUNT_DELETE = operations.declare(
    "account_delete",
    DeleteAccount,
    type(None),
    summary="Delete everything that the user has and end all its sessions",
    access=Access.USER,
    message="账号数据已删除",
    deadline_s=20.0,  # its answers end first
    routes=(Route("DELETE", "/api/v1/account", Shape.BARE, DeleteQuery),),
    example=DeleteAccount(type="account_delete"),
)
