"""What films can be asked for by, and the SQL condition that says it. Each condition has an index or follows one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Film:
    """What is known of a film when it is talked about. `overview` is Chinese when there is one; texts may be empty."""

    tmdb_id: int
    title: str
    title_en: str
    original_title: str
    original_language: str
    release_date: date | None
    runtime: int | None
    overview: str
    overview_en: str
    popularity: float
    vote_average: float
    vote_count: int
    genre_ids: list[int]
    directors: list[str]
    cast_names: list[str]
    title_keys: list[str]
    part_keys: list[str]

    @property
    def year(self) -> int | None:
        """The year of the first release."""
        return self.release_date.year if self.release_date else None


class Role(StrEnum):
    """What somebody did in a film."""

    ANY = "any"
    DIRECTOR = "director"
    CAST = "cast"


@dataclass(frozen=True, slots=True)
class Credit:
    """Somebody who has to be in the film's credits, under any of these keys."""

    keys: tuple[str, ...]
    role: Role = Role.ANY


class Order(StrEnum):
    """Which films come first. Ties are broken by id, so that pages do not overlap."""

    POPULAR = "popularity DESC, tmdb_id"
    BEST = "vote_average DESC, tmdb_id"
    WORST = "vote_average, tmdb_id DESC"
    NEWEST = "release_date DESC, tmdb_id"
    OLDEST = "release_date, tmdb_id DESC"
    LONGEST = "runtime DESC, tmdb_id"
    SHORTEST = "runtime, tmdb_id"


@dataclass(frozen=True, slots=True)
class FilmFilter:
    """All of it must hold. Years are inclusive, runtimes in minutes, ratings from 0 to 10.

    Of `genres` a film must have all, or one of them when `any_genre`; of `without_genres` none.
    """

    genres: tuple[int, ...] = ()
    any_genre: bool = False
    without_genres: tuple[int, ...] = ()
    credits: tuple[Credit, ...] = ()
    languages: tuple[str, ...] = ()
    year_from: int | None = None
    year_to: int | None = None
    released_after: date | None = None
    released_by: date | None = None
    shortest: int | None = None
    longest: int | None = None
    lowest_rating: float | None = None
    highest_rating: float | None = None
    least_votes: int | None = None
    exclude: tuple[int, ...] = ()


@dataclass(slots=True)
class Where:
    """An SQL condition and its parameters, which are numbered after those that the statement already has."""

    parameters: list[object] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)

    @property
    def sql(self) -> str:
        return " AND ".join(self.conditions) or "true"

    def add(self, condition: str, value: object) -> None:
        """`condition` has `{}` where the parameter goes."""
        self.parameters.append(value)
        self.conditions.append(condition.format(f"${len(self.parameters)}"))


_IN_CREDITS = {
    Role.ANY: "(director_keys && {0}::text[] OR cast_keys && {0}::text[])",
    Role.DIRECTOR: "director_keys && {}::text[]",
    Role.CAST: "cast_keys && {}::text[]",
}
_ORDER_NEEDS = {
    Order.NEWEST: "release_date IS NOT NULL",
    Order.OLDEST: "release_date IS NOT NULL",
    Order.LONGEST: "runtime IS NOT NULL",
    Order.SHORTEST: "runtime IS NOT NULL",
}


def where(wanted: FilmFilter, *, order: Order | None = None, parameters: Sequence[object] = ()) -> Where:
    """The condition for a filter. A film without a date or runtime is in no list that goes by it."""
    made = Where(list(parameters))
    if wanted.genres:
        made.add("genre_ids && {}::integer[]" if wanted.any_genre else "genre_ids @> {}::integer[]", wanted.genres)
    if wanted.without_genres:
        made.add("NOT genre_ids && {}::integer[]", wanted.without_genres)
    for credit in wanted.credits:
        made.add(_IN_CREDITS[credit.role], credit.keys)
    if wanted.languages:
        made.add("original_language = ANY({}::text[])", wanted.languages)
    if wanted.year_from is not None:
        made.add("release_date >= {}", date(wanted.year_from, 1, 1))
    if wanted.year_to is not None:
        made.add("release_date <= {}", date(wanted.year_to, 12, 31))
    for condition, bound in (
        ("release_date > {}", wanted.released_after),
        ("release_date <= {}", wanted.released_by),
        ("runtime >= {}", wanted.shortest),
        ("runtime <= {}", wanted.longest),
        ("vote_average >= {}", wanted.lowest_rating),
        ("vote_average <= {}", wanted.highest_rating),
        ("vote_count >= {}", wanted.least_votes),
    ):
        if bound is not None:
            made.add(condition, bound)
    if wanted.exclude:
        made.add("tmdb_id <> ALL({}::integer[])", wanted.exclude)
    if order in _ORDER_NEEDS:
        made.conditions.append(_ORDER_NEEDS[order])
    return made
