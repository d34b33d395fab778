"""The watchlist: films that somebody wants to see, has seen or does not want, and what a chat noted of them."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal, TypedDict
from uuid import UUID

from pydantic import Field

from protocol import errors
from protocol.movies import EXAMPLE_CARD, MovieCard, TmdbId
from protocol.operation import Access, Body, GuestClaim, GuestName, Noun, OperationTable, Request, Route, Shape

MAX_ITEMS = 1_000
"""Films in one watchlist: three a week for six years, and still counted in a millisecond."""

WatchlistState = Literal["to_watch", "watched", "dismissed"]
WatchlistSource = Literal["user", "chat"]

Cursor = Annotated[int, Field(ge=1, le=9_007_199_254_740_991)]
"""The number of a change, counted for each user; JavaScript must be able to hold it."""

PageSize = Annotated[int, Field(ge=1, le=100)]
CaptureId = Annotated[UUID, Field(strict=False)]


class WatchlistItem(Noun):
    """A film in the list. `movie` is null when the catalogue has lost it; `source` is who set its state last.

    Times are ISO 8601 in UTC. What a chat noted becomes the user's when the user says it too.
    """

    tmdb_id: int
    movie: MovieCard | None
    state: WatchlistState
    source: WatchlistSource
    added_at: datetime
    changed_at: datetime


class ListWatchlist(Request):
    """The newest change first. `before` is the `next_before` of the page before."""

    type: Literal["watchlist_list"]
    state: WatchlistState | None = None
    limit: PageSize = 50
    before: Cursor | None = None


class WatchlistPage(Noun):
    """`next_before` is null when nothing is older. What is added meanwhile moves nothing on the pages that follow."""

    items: list[WatchlistItem]
    next_before: int | None


class AddToWatchlist(Request):
    """Add a film, or change the state of one that is there. Said again, it changes nothing."""

    type: Literal["watchlist_add"]
    tmdb_id: TmdbId
    state: WatchlistState = "to_watch"


class WatchlistAdded(Noun):
    item: WatchlistItem


class RemoveFromWatchlist(Request):
    type: Literal["watchlist_remove"]
    tmdb_id: TmdbId


class WatchlistRemoved(Noun):
    """`removed` is false when the film was not there."""

    tmdb_id: int
    removed: bool


class UndoCapture(Request):
    """Put what a chat noted back to what it was before. Said again, it changes nothing and answers the same."""

    type: Literal["watchlist_undo"]
    capture_id: CaptureId


class RestoredFilm(Noun):
    """`state` is the one it has again, null when it is in the list no more."""

    tmdb_id: int
    state: WatchlistState | None


class CaptureUndone(Noun):
    """`kept` are films that were changed or removed after the capture: they are as they were left."""

    capture_id: UUID
    restored: list[RestoredFilm]
    kept: list[int]


class CapturedFilm(Noun):
    """`previous_state` is null for a film that was not in the list."""

    tmdb_id: int
    title: str
    state: WatchlistState
    previous_state: WatchlistState | None


class WatchlistCapturedWire(TypedDict):
    content: "WatchlistCaptured"


class WatchlistCaptured(Noun):
    """A frame of a chat: what its question said of films, as it was noted in the list; at most once an answer.

    `{"type": "watchlist", …, "content": {"capture_id": "…", "items": [{"tmdb_id": 603, "title": "黑客帝国",
    "state": "to_watch", "previous_state": null}]}}`. An answer begun anew says the same capture again.
    """

    TYPE: ClassVar[str] = "watchlist"
    capture_id: UUID
    items: list[CapturedFilm]

    def wire(self) -> WatchlistCapturedWire:
        return {"content": self}


class _GuestsBody(Body):
    """Whose list it is; believed of guests only. The same name as in `POST /api/v1/mp/chat/stream`."""

    user_id: GuestName | None = None

    def message(self) -> dict[str, object]:
        return self.model_dump(exclude_none=True, exclude={"user_id"})

    def guest(self) -> GuestClaim | None:
        return GuestClaim("mp", self.user_id) if self.user_id else None


class WatchlistQuery(_GuestsBody, strict=False):
    state: WatchlistState | None = None
    limit: PageSize = 50
    before: Cursor | None = None


class WatchlistBody(_GuestsBody):
    tmdb_id: TmdbId
    state: WatchlistState = "to_watch"


class WatchlistPath(_GuestsBody, strict=False):
    tmdb_id: TmdbId


class UndoBody(_GuestsBody):
    capture_id: CaptureId


operations = OperationTable()

_CAPTURE_ID = UUID("12153496-d07e-4900-ac0c-85168e8f5bc9")
EXAMPLE_CAPTURE = WatchlistCaptured(
    capture_id=_CAPTURE_ID,
    items=[CapturedFilm(tmdb_id=603, title="黑客帝国", state="to_watch", previous_state=None)],
)
_ITEM = WatchlistItem(
    tmdb_id=603,
    movie=EXAMPLE_CARD,
    state="to_watch",
    source="user",
    added_at=datetime(2026, 5, 1, 12, tzinfo=UTC),
    changed_at=datetime(2026, 5, 1, 12, tzinfo=UTC),
)

WATCHLIST_LIST = operations.declare(
    "watchlist_list",
    ListWatchlist,
    WatchlistPage,
    summary="Films of the watchlist, the newest change first",
    access=Access.NAMED,
    routes=(Route("GET", "/api/v1/mp/watchlist", Shape.BARE, WatchlistQuery),),
    example=ListWatchlist(type="watchlist_list", state="to_watch", limit=20),
    example_reply=WatchlistPage(items=[_ITEM], next_before=None),
)
WATCHLIST_ADD = operations.declare(
    "watchlist_add",
    AddToWatchlist,
    WatchlistAdded,
    summary="Add a film to the watchlist, or change its state",
    access=Access.NAMED,
    routes=(Route("POST", "/api/v1/mp/watchlist", Shape.BARE, WatchlistBody),),
    errors=(errors.MOVIE_NOT_FOUND, errors.WATCHLIST_FULL),
    example=AddToWatchlist(type="watchlist_add", tmdb_id=603, state="to_watch"),
    example_reply=WatchlistAdded(item=_ITEM),
)
WATCHLIST_REMOVE = operations.declare(
    "watchlist_remove",
    RemoveFromWatchlist,
    WatchlistRemoved,
    summary="Take a film out of the watchlist",
    access=Access.NAMED,
    routes=(Route("DELETE", "/api/v1/mp/watchlist/{tmdb_id}", Shape.BARE, WatchlistPath),),
    example=RemoveFromWatchlist(type="watchlist_remove", tmdb_id=603),
    example_reply=WatchlistRemoved(tmdb_id=603, removed=True),
)
WATCHLIST_UNDO = operations.declare(
    "watchlist_undo",
    UndoCapture,
    CaptureUndone,
    summary="Undo what a chat noted in the watchlist",
    access=Access.NAMED,
    routes=(Route("POST", "/api/v1/mp/watchlist/undo", Shape.BARE, UndoBody),),
    errors=(errors.CAPTURE_NOT_FOUND,),
    example=UndoCapture(type="watchlist_undo", capture_id=_CAPTURE_ID),
    example_reply=CaptureUndone(capture_id=_CAPTURE_ID, restored=[RestoredFilm(tmdb_id=603, state=None)], kept=[]),
)
