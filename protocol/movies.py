"""Films: what a card and a detail page show, and the operations that look them up."""

from typing import Annotated, Literal

from pydantic import Field

from protocol import errors
from protocol.operation import NOT_BLANK, STORABLE, Access, Body, Noun, OperationTable, Request, Route, Shape

MAX_BULK_IDS = 50
"""Distinct ids in one `movies_bulk`: a page of recommendations is 20 cards, a long list two pages and a half."""

TmdbId = Annotated[int, Field(ge=1, le=2_147_483_647)]
"""TMDB's id of a film; PostgreSQL keeps it as a 4-byte integer."""

Typed = Annotated[str, Field(min_length=1, max_length=100), STORABLE, NOT_BLANK]
"""What somebody types to find a film: the longest titles have about a hundred characters."""

Feed = Literal["popular", "now_playing", "upcoming"]


class MovieCard(Noun):
    """What a card in a list shows. Dates are ISO 8601 or null, image addresses are whole."""

    tmdb_id: int
    title: str
    release_date: str | None
    year: int | None
    poster_url: str | None
    vote_average: float
    vote_count: int
    genres: list[str]
    directors: list[str]
    top_cast: list[str]


class CastMember(Noun):
    name: str
    character: str


class CrewMember(Noun):
    name: str
    job: str


class MovieDetail(MovieCard):
    """What a film's own page shows. `runtime` is in minutes, null when unknown."""

    original_title: str
    runtime: int | None
    overview: str
    backdrop_url: str | None
    cast: list[CastMember]
    crew: list[CrewMember]


class FindMovies(Request):
    """Cards for ids, in the order of the ids. Doubles are answered once."""

    type: Literal["movies_bulk"]
    ids: Annotated[list[TmdbId], Field(min_length=1, max_length=1000)]


class FoundMovies(Noun):
    items: list[MovieCard]
    missing_ids: list[int]


class GetMovie(Request):
    type: Literal["movie_detail"]
    tmdb_id: TmdbId


class GotMovie(Noun):
    movie: MovieDetail


class ListFeed(Request):
    """A stable list, paged by offset."""

    type: Literal["movies_feed"]
    feed: Feed
    limit: Annotated[int, Field(ge=1, le=50)] = 20
    offset: Annotated[int, Field(ge=0, le=10_000)] = 0


class FeedPage(Noun):
    """`next_offset` is null at the end."""

    items: list[MovieCard]
    next_offset: int | None


class SearchMovies(Request):
    """Films whose titles are like the query, or who were made by people so called; best first."""

    type: Literal["movies_search"]
    query: Typed
    limit: Annotated[int, Field(ge=1, le=50)] = 20


class SearchedMovies(Noun):
    items: list[MovieCard]


class BulkBody(Body):
    ids: Annotated[list[TmdbId], Field(min_length=1, max_length=1000)]


class DetailPath(Body, strict=False):
    tmdb_id: TmdbId


class FeedQuery(Body, strict=False):
    type: Feed
    limit: Annotated[int, Field(ge=1, le=50)] = 20
    offset: Annotated[int, Field(ge=0, le=10_000)] = 0

    def message(self) -> dict[str, object]:
        return {"feed": self.type, "limit": self.limit, "offset": self.offset}


class SearchQuery(Body, strict=False):
    query: Typed
    limit: Annotated[int, Field(ge=1, le=50)] = 20


operations = OperationTable()

EXAMPLE_CARD = MovieCard(
    tmdb_id=603,
    title="黑客帝国",
    release_date="1999-03-30",
    year=1999,
    poster_url=None,
    vote_average=7.9,
    vote_count=8907,
    genres=["动作", "科幻"],
    directors=["Lana Wachowski", "Lilly Wachowski"],
    top_cast=["Keanu Reeves", "Laurence Fishburne", "Carrie-Anne Moss", "Hugo Weaving", "Joe Pantoliano"],
)
_DETAIL = MovieDetail(
    **dict(EXAMPLE_CARD),
    original_title="The Matrix",
    runtime=136,
    overview="程序员尼奥发现眼前的世界不过是机器编织的幻象，他随反抗者醒来，学着打破规则。",
    backdrop_url=None,
    cast=[
        CastMember(name=name, character=character)
        for name, character in zip(
            EXAMPLE_CARD.top_cast, ("Neo", "Morpheus", "Trinity", "Agent Smith", "Cypher"), strict=True
        )
    ],
    crew=[CrewMember(name=name, job="Director") for name in EXAMPLE_CARD.directors],
)

MOVIES_BULK = operations.declare(
    "movies_bulk",
    FindMovies,
    FoundMovies,
    summary="Cards of films by TMDB id",
    access=Access.GUEST,
    routes=(Route("POST", "/api/v1/mp/movies/bulk", Shape.BARE, BulkBody),),
    example=FindMovies(type="movies_bulk", ids=[603, 999_999_999]),
    example_reply=FoundMovies(items=[EXAMPLE_CARD], missing_ids=[999_999_999]),
)
MOVIES_FEED = operations.declare(
    "movies_feed",
    ListFeed,
    FeedPage,
    summary="A list to show when nothing was asked yet",
    access=Access.GUEST,
    routes=(
        Route("GET", "/api/v1/mp/movies/feed", Shape.BARE, FeedQuery, {"type": "popular", "limit": 1, "offset": 36}),
    ),
    example=ListFeed(type="movies_feed", feed="popular", limit=1, offset=36),
    example_reply=FeedPage(items=[EXAMPLE_CARD], next_offset=37),
)
MOVIE_DETAIL = operations.declare(
    "movie_detail",
    GetMovie,
    GotMovie,
    summary="Everything about one film",
    access=Access.GUEST,
    routes=(Route("GET", "/api/v1/mp/movies/{tmdb_id}", Shape.BARE, DetailPath),),
    errors=(errors.MOVIE_NOT_FOUND, errors.FILM_SOURCE_UNAVAILABLE),
    example=GetMovie(type="movie_detail", tmdb_id=603),
    example_reply=GotMovie(movie=_DETAIL),
)
MOVIES_SEARCH = operations.declare(
    "movies_search",
    SearchMovies,
    SearchedMovies,
    summary="Films found by what is typed: titles, parts of them, pinyin, slips of the pen, people",
    access=Access.GUEST,
    routes=(Route("GET", "/api/v1/mp/movies/search", Shape.BARE, SearchQuery),),
    example=SearchMovies(type="movies_search", query="黑客帝国", limit=1),
    example_reply=SearchedMovies(items=[EXAMPLE_CARD]),
)
