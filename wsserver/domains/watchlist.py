"""The watchlist: listing it, changing it, and undoing what a chat noted in it."""

from protocol import watchlist
from protocol.errors import MOVIE_NOT_FOUND, OperationError
from protocol.movies import MovieCard
from protocol.watchlist import (
    AddToWatchlist,
    CaptureUndone,
    ListWatchlist,
    RemoveFromWatchlist,
    UndoCapture,
    WatchlistAdded,
    WatchlistItem,
    WatchlistPage,
    WatchlistRemoved,
)
from storage.movies import Movies
from storage.watchlist import Watchlist, WatchlistRow
from wsserver.dispatch import Call, Handlers


def watchlist_handlers(lists: Watchlist, catalogue: Movies) -> Handlers:
    """Handlers of the watchlist operations."""
    handlers = Handlers()

    @handlers.on(watchlist.WATCHLIST_LIST)
    async def page(call: Call, request: ListWatchlist) -> WatchlistPage:
        rows, more = await lists.page(
            user_id=call.known_caller.user_id, state=request.state, limit=request.limit, before=request.before
        )
        cards = await catalogue.cards([row.tmdb_id for row in rows]) if rows else {}
        return WatchlistPage.model_construct(
            items=[_item(row, cards.get(row.tmdb_id)) for row in rows], next_before=rows[-1].change if more else None
        )

    @handlers.on(watchlist.WATCHLIST_ADD)
    async def add(call: Call, request: AddToWatchlist) -> WatchlistAdded:
        cards = await catalogue.cards([request.tmdb_id])
        if request.tmdb_id not in cards:
            raise OperationError(MOVIE_NOT_FOUND)
        row = await lists.add(user_id=call.known_caller.user_id, tmdb_id=request.tmdb_id, state=request.state)
        return WatchlistAdded.model_construct(item=_item(row, cards[request.tmdb_id]))

    @handlers.on(watchlist.WATCHLIST_REMOVE)
    async def remove(call: Call, request: RemoveFromWatchlist) -> WatchlistRemoved:
        removed = await lists.remove(user_id=call.known_caller.user_id, tmdb_id=request.tmdb_id)
        return WatchlistRemoved(tmdb_id=request.tmdb_id, removed=removed)

    @handlers.on(watchlist.WATCHLIST_UNDO)
    async def undo(call: Call, request: UndoCapture) -> CaptureUndone:
        return await lists.undo(user_id=call.known_caller.user_id, capture_id=request.capture_id)

    return handlers


def _item(row: WatchlistRow, movie: MovieCard | None) -> WatchlistItem:
    return WatchlistItem.model_construct(
        tmdb_id=row.tmdb_id,
        movie=movie,
        state=row.state,
        source=row.source,
        added_at=row.added_at,
        changed_at=row.changed_at,
    )
