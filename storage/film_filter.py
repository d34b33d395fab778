"""What films can be asked for by, and the SQL condition that says it. Each condition has an index or follows one.

People are looked up in the relation of the credits. Among 100,000 films, as medians beside GIN-indexed arrays of keys
in the films' own rows: the names in a text take 0.6 of the time, films like another 0.15, somebody's films of a genre
0.3, somebody's films 1.1, and 1.4 (0.3 ms more) of somebody in hundreds of films. Genres stay an array, but for the
most popular of a genre: from the relation, westerns take 5 times as long and comedies of science fiction 3 times.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from storage.film_rows import MAX_CAST


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
    """Director or cast."""
    DIRECTOR = "director"
    CAST = "cast"
    CREW = "crew"
    """Any job, the director's too."""


DIRECTED = "role = 'crew' AND job = 'Director'"
PLAYED = f"role = 'cast' AND position < {MAX_CAST}"
"""The index of the cast has nobody who was billed later."""

_PARTS = {Role.ANY: (DIRECTED, PLAYED), Role.DIRECTOR: (DIRECTED,), Role.CAST: (PLAYED,), Role.CREW: ("role = 'crew'",)}


@dataclass(frozen=True, slots=True)
class Credit:
    """Somebody who has to be in the film's credits: under any of these keys, or of TMDB's ids when there are any."""

    keys: tuple[str, ...]
    role: Role = Role.ANY
    ids: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[int, ...] | tuple[str, ...]:
        """What they go by: the value of the parameter of `is_them` and `films_of`."""
        return self.ids or self.keys

    def is_them(self, parameter: str) -> str:
        """The condition that a row of the credits is theirs."""
        return f"person_id = ANY({parameter}::integer[])" if self.ids else f"name_key = ANY({parameter}::text[])"

    def films_of(self, parameter: str) -> str:
        """The statement that gives the ids of their films, some more than once."""
        them = self.is_them(parameter)
        return " UNION ALL ".join(
            f"SELECT movie_id FROM tmdb.movie_credits WHERE {them} AND {part}" for part in _PARTS[self.role]
        )


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
        # An array that is read first: a join may go through all films in order and look each one's credits up.
        made.add(f"tmdb_id = ANY(ARRAY({credit.films_of('{0}')}))", credit.names)
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
