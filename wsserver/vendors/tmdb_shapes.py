"""What TMDB's answers must be before anything is made of them: what is kept of them is checked, the rest is let be.

Source: developer.themoviedb.org, reference of v3. No IO: how an answer is got, and what is told when it is none of
these, is `tmdb.py`'s. A field that is absent or null is unknown; one of another type than TMDB's makes its row, or the
whole answer, none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from protocol.movies import TmdbId

PAGES = 500
"""TMDB refuses later ones, whatever `total_pages` says."""

Name = Annotated[str, Field(pattern=r"\S")]
Count = Annotated[int, Field(ge=0, le=2_147_483_647)]
"""PostgreSQL keeps it as a 4-byte integer."""

MediaType = Literal["movie", "tv", "person"]


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page of a list: ids in its order, each once. Pages overlap, and a film that is in none of them may still be."""

    ids: list[int]
    total_pages: int


@dataclass(frozen=True, slots=True)
class SearchHit:
    """Something that a text was found in. `year` is that of the first release; a person has none, and no votes."""

    media_type: MediaType
    tmdb_id: int
    title: str
    original_title: str
    year: int | None
    popularity: float
    vote_count: int


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _Genre(_Shape):
    id: TmdbId
    name: str | None = None


class _Credit(_Shape):
    """Somebody's part in a film or a show."""

    id: TmdbId
    name: Name
    original_name: str | None = None
    credit_id: str | None = None
    character: str | None = None
    order: int | None = None
    department: str | None = None
    job: str | None = None
    profile_path: str | None = None


class _FilmCredit(_Shape):
    """A film in which somebody had a part."""

    id: TmdbId
    title: str | None = None
    original_title: str | None = None
    release_date: str | None = None
    credit_id: str | None = None
    character: str | None = None
    order: int | None = None
    department: str | None = None
    job: str | None = None


class _Translation(_Shape):
    iso_639_1: str
    iso_3166_1: str
    data: dict[str, Any]


class _Parts(_Shape):
    """What `credits` and `movie_credits` are; their rows are looked at one by one."""

    cast: list[Any] | None = None
    crew: list[Any] | None = None


class _Translations(_Shape):
    translations: list[Any] | None = None


class _Detail(_Shape):
    id: TmdbId
    popularity: float | None = None
    translations: _Translations | None = None


class _Work(_Detail):
    """What films and shows have in common."""

    original_language: str | None = None
    overview: str | None = None
    vote_average: float | None = None
    vote_count: Count | None = None
    poster_path: str | None = None
    backdrop_path: str | None = None
    genres: list[Any] | None = None
    credits: _Parts | None = None


class _Film(_Work):
    """What `storage/film_rows.py` makes a row of."""

    title: str | None = None
    original_title: str | None = None
    release_date: str | None = None
    runtime: Count | None = None

    @model_validator(mode="after")
    def _has_a_title(self) -> "_Film":
        _must_be_named(self, self.title, self.original_title)
        return self


class _Show(_Work):
    name: str | None = None
    original_name: str | None = None
    first_air_date: str | None = None
    last_air_date: str | None = None
    number_of_seasons: Count | None = None
    number_of_episodes: Count | None = None
    status: str | None = None

    @model_validator(mode="after")
    def _has_a_name(self) -> "_Show":
        _must_be_named(self, self.name, self.original_name)
        return self


class _Person(_Detail):
    name: Name
    also_known_as: list[str] | None = None
    biography: str | None = None
    birthday: str | None = None
    deathday: str | None = None
    gender: int | None = None
    known_for_department: str | None = None
    place_of_birth: str | None = None
    profile_path: str | None = None
    movie_credits: _Parts | None = None


class _Hit(_Shape):
    id: TmdbId
    popularity: float | None = None
    vote_count: Count | None = None


class _FilmHit(_Hit):
    media_type: Literal["movie"]
    title: Name
    original_title: str | None = None
    release_date: str | None = None

    def hit(self) -> SearchHit:
        return _hit(self, self.media_type, self.title, self.original_title, self.release_date)


class _ShowHit(_Hit):
    media_type: Literal["tv"]
    name: Name
    original_name: str | None = None
    first_air_date: str | None = None

    def hit(self) -> SearchHit:
        return _hit(self, self.media_type, self.name, self.original_name, self.first_air_date)


class _PersonHit(_Hit):
    media_type: Literal["person"]
    name: Name
    original_name: str | None = None

    def hit(self) -> SearchHit:
        return _hit(self, self.media_type, self.name, self.original_name, None)


class _Page(_Shape):
    results: list[Any]
    total_pages: Annotated[int, Field(ge=0)]


_SEARCHED: TypeAdapter[_FilmHit | _ShowHit | _PersonHit] = TypeAdapter(
    Annotated[_FilmHit | _ShowHit | _PersonHit, Field(discriminator="media_type")]
)
_DETAILS: Mapping[MediaType, type[_Detail]] = {"movie": _Film, "tv": _Show, "person": _Person}
_ROWS: Mapping[tuple[str, ...], type[_Shape]] = {
    ("genres",): _Genre,
    ("credits", "cast"): _Credit,
    ("credits", "crew"): _Credit,
    ("movie_credits", "cast"): _FilmCredit,
    ("movie_credits", "crew"): _FilmCredit,
    ("translations", "translations"): _Translation,
}
"""Where the rows are that are looked at one by one, and what they are."""


def detail(raw: Any, media_type: MediaType, tmdb_id: int) -> tuple[dict[str, Any], int]:
    """TMDB's own answer about one film, show or person, and how many rows were left out of it because they are none.

    Raises ValueError when it is no such answer, or about another id.
    """
    if _DETAILS[media_type].model_validate(raw).id != tmdb_id:
        raise ValueError("about another id than was asked for")
    return raw, sum(_sift(raw, *path, shape=shape) for path, shape in _ROWS.items())


def list_page(raw: Any) -> tuple[ListPage, int]:
    """The films of a list's page, and how many of its rows are none. Raises ValueError when it is no page."""
    page = _Page.model_validate(raw)
    rows = [row for row in page.results if _is(_Hit, row)]
    ids = list(dict.fromkeys(row["id"] for row in rows))
    return ListPage(ids, min(page.total_pages, PAGES)), len(page.results) - len(rows)


def search_hits(raw: Any) -> tuple[list[SearchHit], int]:
    """What was found of films, shows and people, and how many of these rows are none. Raises ValueError as above."""
    hits, left_out = [], 0
    for row in _Page.model_validate(raw).results:
        if isinstance(row, dict) and row.get("media_type") not in _DETAILS and isinstance(row.get("media_type"), str):
            continue  # a collection, or what TMDB thinks of next
        try:
            hits.append(_SEARCHED.validate_python(row).hit())
        except ValidationError:
            left_out += 1
    return hits, left_out


def _must_be_named(work: _Work, name: str | None, original_name: str | None) -> None:
    translations = (work.translations.translations if work.translations else None) or ()
    there = [entry["data"] for entry in translations if _is(_Translation, entry)]
    names = [name, original_name, *(data.get(field) for data in there for field in ("title", "name"))]
    if not any(isinstance(text, str) and text.strip() for text in names):
        raise ValueError("no name in any language")


def _sift(raw: dict[str, Any], *path: str, shape: type[_Shape]) -> int:
    """Take out of a list of the answer what is no such row; how many there were."""
    *outer, field = path
    holder: Any = raw
    for name in outer:
        holder = holder.get(name) or {}
    rows = holder.get(field) or []
    kept = [row for row in rows if _is(shape, row)]
    if len(kept) < len(rows):
        holder[field] = kept
    return len(rows) - len(kept)


def _is(shape: type[_Shape], row: object) -> bool:
    try:
        shape.model_validate(row)
    except ValidationError:
        return False
    return True


def _hit(row: _Hit, media_type: MediaType, title: str, original_title: str | None, released: str | None) -> SearchHit:
    year = (released or "")[:4]
    return SearchHit(
        media_type,
        row.id,
        title,
        original_title or title,
        int(year) if year.isascii() and year.isdigit() else None,
        row.popularity or 0.0,
        row.vote_count or 0,
    )
