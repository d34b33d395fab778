"""Film lookups from the catalogue. What it lacks is fetched, if so configured; what it has never waits for that."""

from datetime import UTC, datetime

from protocol import movies
from protocol.errors import FILM_SOURCE_UNAVAILABLE, INVALID_FIELD, MOVIE_NOT_FOUND, OperationError
from protocol.movies import (
    MAX_BULK_IDS,
    FeedPage,
    FindMovies,
    FoundMovies,
    GetMovie,
    GotMovie,
    ListFeed,
    MovieDetail,
    SearchedMovies,
    SearchMovies,
)
from storage.film_search import FilmSearch
from storage.movies import Movies
from wsserver.dispatch import Call, Handlers
from wsserver.domains.film_fetch import FilmFetch, Outcome


def movie_handlers(catalogue: Movies, search: FilmSearch, fetch: FilmFetch | None) -> Handlers:
    """Handlers of the film operations; without `fetch` a film is in the catalogue or it is not."""
    handlers = Handlers()

    @handlers.on(movies.MOVIES_BULK)
    async def find(_call: Call, request: FindMovies) -> FoundMovies:
        ids = list(dict.fromkeys(request.ids))
        if len(ids) > MAX_BULK_IDS:
            raise OperationError(INVALID_FIELD, f"字段 ids：去重后最多 {MAX_BULK_IDS} 项", field="ids")
        cards = await catalogue.cards(ids)
        lacking = [tmdb_id for tmdb_id in ids if tmdb_id not in cards]
        if lacking and fetch is not None and (stored := (await fetch.fetch(lacking)).stored):
            cards |= await catalogue.cards(stored)
        return FoundMovies.model_construct(
            items=[cards[tmdb_id] for tmdb_id in ids if tmdb_id in cards],
            missing_ids=[tmdb_id for tmdb_id in ids if tmdb_id not in cards],
        )

    @handlers.on(movies.MOVIE_DETAIL)
    async def get(_call: Call, request: GetMovie) -> GotMovie:
        movie = await catalogue.detail(request.tmdb_id)
        if movie is None and fetch is not None:
            movie = await _fetched(request.tmdb_id, catalogue, fetch)
        if movie is None:
            raise OperationError(MOVIE_NOT_FOUND)
        return GotMovie.model_construct(movie=movie)

    @handlers.on(movies.MOVIES_SEARCH)
    async def find_typed(_call: Call, request: SearchMovies) -> SearchedMovies:
        ids = await search.find(request.query, limit=request.limit)
        cards = await catalogue.cards(ids)
        # A film may have gone between the two.
        return SearchedMovies.model_construct(items=[cards[tmdb_id] for tmdb_id in ids if tmdb_id in cards])

    @handlers.on(movies.MOVIES_FEED)
    async def feed(_call: Call, request: ListFeed) -> FeedPage:
        # One more than asked for says whether there is a next page.
        today = datetime.now(UTC).date()
        cards = await catalogue.feed(request.feed, limit=request.limit + 1, offset=request.offset, today=today)
        more = len(cards) > request.limit
        return FeedPage.model_construct(
            items=cards[: request.limit], next_offset=request.offset + request.limit if more else None
        )

    return handlers


async def _fetched(tmdb_id: int, catalogue: Movies, fetch: FilmFetch) -> MovieDetail | None:
    """The page of a film that the catalogue lacked. Raises FILM_SOURCE_UNAVAILABLE when it may come later."""
    fetched = await fetch.fetch([tmdb_id])
    outcome = fetched.outcomes[tmdb_id]
    if outcome is Outcome.LATE:
        raise OperationError(FILM_SOURCE_UNAVAILABLE, retry_after_ms=round(fetched.retry_after_s * 1000))
    return await catalogue.detail(tmdb_id) if outcome is Outcome.STORED else None
