"""What is said to the graph: from an entity's raw JSON to parameters, and the Cypher statements that take them.

Nothing is sent, read or kept here. The graph:

* `(:Movie {tmdb_id})`, `(:TvShow {tmdb_id})`, `(:Genre {id})`, `(:Person {key})`, each with what is known of it. The
  key of a person is `tmdb:525`, or `name:christophernolan` when the credits give no id (the demo catalogue): two with
  one name and no id are one, somebody of TMDB and a mere name never are. The latter have `name_only: true`.
* From a person to a film or show: `DIRECTED`, `ACTED_IN {character, order}`, `WROTE {job, department}` and
  `CREW {job, department}`, each part and each job once. From a film or show: `IN_GENRE`.
* `(:Exported {entity, outbox_id})`, one for each entity ever told, deleted ones too. Every statement asks it whether
  its row is out of date: what a worker says late, after its lease, changes nothing.

A statement can be said again without changing anything, and leaves other properties, labels and relations alone.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from storage.film_rows import credit_rows, film_row, text
from storage.graph_outbox import EntityType, Pending
from storage.tmdb_entities import person_row, tv_row
from wsserver.vendors.neo4j import Statement

LANGUAGE = "zh-CN"
"""Decides which translation fills a title that is the original one; what came in another language is as it came."""

Properties = Mapping[str, Any]
Label = Literal["Movie", "TvShow"]
RelationType = Literal["ACTED_IN", "DIRECTED", "WROTE", "CREW"]

RELATION_TYPES: tuple[RelationType, ...] = ("ACTED_IN", "DIRECTED", "WROTE", "CREW")
LABELS: Mapping[EntityType, Label] = {"movie": "Movie", "tv": "TvShow"}

_FILM = (
    *("original_language", "runtime", "overview", "popularity", "vote_average", "vote_count", "poster_path"),
    *("release_date", "title", "title_en", "original_title"),
)
_SHOW = (
    *("original_language", "overview", "popularity", "vote_average", "vote_count", "poster_path", "name", "name_en"),
    *("original_name", "first_air_date", "last_air_date", "status", "seasons", "episodes"),
)
_FETCHED_PERSON = (
    *("also_known_as", "gender", "known_for_department", "birthday", "deathday", "place_of_birth", "biography"),
    *("popularity", "profile_path", "imdb_id"),
)
"""What only a person's own answer says. Dates are text, as in ISO 8601."""

CONSTRAINTS = tuple(
    f"CREATE CONSTRAINT cinewire_{label.lower()}_{name} IF NOT EXISTS FOR (n:{label}) REQUIRE n.{name} IS UNIQUE"
    for label, name in (
        *(("Movie", "tmdb_id"), ("TvShow", "tmdb_id"), ("Person", "key"), ("Person", "tmdb_id")),
        *(("Genre", "id"), ("Exported", "entity")),
    )
)
"""Neo4j 4.4 or newer. A property that a node lacks breaks none of them."""


@dataclass(frozen=True, slots=True)
class Entity:
    """What the graph is told about one entity. Who is deleted has only the first three."""

    entity: str
    """`movie:603`"""
    outbox_id: int
    deleted: bool
    properties: Properties = field(default_factory=dict, repr=False)
    people: Sequence[Properties] = field(default=(), repr=False)
    parts: Mapping[RelationType, Sequence[Properties]] = field(default_factory=dict, repr=False)
    genres: Sequence[Properties] = field(default=(), repr=False)

    @property
    def kind(self) -> str:
        return self.entity.partition(":")[0]

    @property
    def tmdb_id(self) -> int:
        return int(self.entity.partition(":")[2])


def name_of(pending: Pending) -> str:
    """`movie:603`"""
    return f"{pending.entity_type}:{pending.tmdb_id}"


def entity_of(pending: Pending) -> Entity:
    """What a row of the outbox means. Raises ValueError when its entity is none."""
    name = name_of(pending)
    if pending.operation == "delete" or pending.raw is None:
        return Entity(name, pending.id, deleted=True)
    try:
        if pending.raw.get("id") != pending.tmdb_id:
            raise ValueError("what is stored is about another id")
        if pending.entity_type == "person":
            return Entity(name, pending.id, deleted=False, properties=_person(pending.raw))
        is_film = pending.entity_type == "movie"
        row = film_row(pending.raw, LANGUAGE) if is_film else tv_row(pending.raw, LANGUAGE)
        people, parts = _credits(pending.raw)
        return Entity(
            name,
            pending.id,
            deleted=False,
            properties=_stored(row, "tmdb_id", *(_FILM if is_film else _SHOW)),
            people=people,
            parts=parts,
            genres=_genres(pending.raw),
        )
    except (TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"not what TMDB says of a {pending.entity_type}: {type(error).__name__}: {error}") from error


def _person(raw: Properties) -> Properties:
    return _stored(person_row(raw, LANGUAGE), "tmdb_id", "name", *_FETCHED_PERSON)


def _stored(row: Properties, *columns: str) -> Properties:
    """What is kept of a row; a graph keeps scalars, and lists of them."""
    for column in columns:
        values = row[column] if isinstance(row[column], list) else [row[column]]
        if not all(value is None or isinstance(value, str | int | float) for value in values):
            raise ValueError(f"not what TMDB says: {column} is no text and no number")
    return {column: row[column] for column in columns}


def _credits(raw: Properties) -> tuple[list[Properties], dict[RelationType, list[Properties]]]:
    """Everybody once, and every part and job of them once."""
    people: dict[str, Properties] = {}
    parts: dict[RelationType, dict[tuple[str, str], Properties]] = {kind: {} for kind in RELATION_TYPES}
    for _, role, position, person_id, name, name_key, department, job, character, _ in credit_rows(raw):
        known = isinstance(person_id, int)
        key = f"tmdb:{person_id}" if known else f"name:{name_key or name}"
        people.setdefault(
            key,
            {"key": key, "name": name, "tmdb_id": person_id if known else None, "name_only": None if known else True},
        )
        if role == "cast":
            part = {"person": key, "character": character or "", "order": position}
            parts["ACTED_IN"].setdefault((key, str(part["character"])), part)
        else:
            part = {"person": key, "job": job or "", "department": department or ""}
            kind: RelationType = "DIRECTED" if job == "Director" else "WROTE" if department == "Writing" else "CREW"
            parts[kind].setdefault((key, str(part["job"])), part)
    return list(people.values()), {kind: list(found.values()) for kind, found in parts.items() if found}


def _genres(raw: Properties) -> list[Properties]:
    """A genre without a name, as one that is not translated, keeps the name that it has."""
    named = {genre["id"]: text(genre, "name") or None for genre in raw.get("genres") or ()}
    return [{"id": genre_id, "name": name} for genre_id, name in named.items()]


def as_json(entity: Entity) -> bytes:
    """An entity as one line of a file of JSON."""
    told: dict[str, Any] = {
        "entity_type": entity.kind,
        "tmdb_id": entity.tmdb_id,
        "operation": "delete" if entity.deleted else "upsert",
        "outbox_id": entity.outbox_id,
    }
    if not entity.deleted:
        told["properties"] = entity.properties
        if entity.kind != "person":
            told |= {"people": entity.people, "parts": entity.parts, "genres": entity.genres}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


# ---- the statements ----

_MARK = """
UNWIND $rows AS row
MERGE (mark:Exported {entity: row.entity})
SET mark.outbox_id = CASE WHEN mark.outbox_id > row.outbox_id THEN mark.outbox_id ELSE row.outbox_id END
"""
# A write to the mark before anything else: of two workers with the same entity one waits here for the other's end.

_CURRENT = """
UNWIND $rows AS row
MATCH (:Exported {entity: row.entity, outbox_id: row.outbox_id})
"""

_PERSON = f"""{_CURRENT}
MERGE (person:Person {{key: row.key}})
SET person += row.properties, person.fetched = true
"""

_FORGET_PERSON = f"""{_CURRENT}
MATCH (person:Person {{key: row.key}})
SET person += row.properties
REMOVE person.fetched
WITH person
WHERE NOT (person)--()
DELETE person
"""

_PEOPLE = f"""{_CURRENT}
UNWIND row.people AS credited
MERGE (person:Person {{key: credited.key}})
ON CREATE SET person.tmdb_id = credited.tmdb_id, person.name = credited.name, person.name_only = credited.name_only
WITH person, credited
WHERE person.fetched IS NULL AND person.name <> credited.name
SET person.name = credited.name
"""

_WORK_NODE = f"""{_CURRENT}
MERGE (work:%(label)s {{tmdb_id: row.tmdb_id}})
SET work += row.properties
"""

_PART = {
    "ACTED_IN": "MERGE (person)-[part:ACTED_IN {character: said.character}]->(work)\nSET part.order = said.order",
    "DIRECTED": "MERGE (person)-[:DIRECTED]->(work)",
    **{
        kind: f"MERGE (person)-[part:{kind} {{job: said.job}}]->(work)\nSET part.department = said.department"
        for kind in ("WROTE", "CREW")
    },
}

_PARTS = f"""{_CURRENT}
MATCH (work:%(label)s {{tmdb_id: row.tmdb_id}})
UNWIND row.parts AS said
MATCH (person:Person {{key: said.person}})
%(part)s
"""

_GENRES = f"""{_CURRENT}
MATCH (work:%(label)s {{tmdb_id: row.tmdb_id}})
UNWIND row.genres AS said
MERGE (genre:Genre {{id: said.id}})
SET genre.name = coalesce(said.name, genre.name)
MERGE (work)-[:IN_GENRE]->(genre)
"""

# Deleted without DETACH: when somebody else has just given a relation to whom we take for lonely, the database refuses
# the whole transaction, and it is said again.
_OLD_PARTS = f"""{_CURRENT}
MATCH (person:Person)-[part:{"|".join(RELATION_TYPES)}]->(:%(label)s {{tmdb_id: row.tmdb_id}})
WHERE NOT (type(part) + ' ' + person.key + ' ' + coalesce(part.character, part.job, '')) IN row.parts
DELETE part
WITH DISTINCT person
WHERE person.fetched IS NULL AND NOT (person)--()
DELETE person
"""

_OLD_GENRES = f"""{_CURRENT}
MATCH (:%(label)s {{tmdb_id: row.tmdb_id}})-[part:IN_GENRE]->(genre:Genre)
WHERE NOT genre.id IN row.genres
DELETE part
WITH DISTINCT genre
WHERE NOT (genre)--()
DELETE genre
"""

_FORGET_WORK = f"""{_CURRENT}
MATCH (work:%(label)s {{tmdb_id: row.tmdb_id}})
DETACH DELETE work
"""


def statements_for(entities: Sequence[Entity]) -> list[Statement]:
    """All that has to be said of some entities, each at most once among them, in one transaction and in this order."""
    said = [Statement(_MARK, [{"entity": one.entity, "outbox_id": one.outbox_id} for one in entities])]
    for kind, label in LABELS.items():
        said += _about_works(label, [one for one in entities if one.kind == kind and not one.deleted])
        said += _about_gone_works(label, [one for one in entities if one.kind == kind and one.deleted])
    people = [one for one in entities if one.kind == "person"]
    kept, gone = [one for one in people if not one.deleted], [one for one in people if one.deleted]
    nothing = dict.fromkeys(_FETCHED_PERSON)
    said.append(Statement(_PERSON, [_row(one, key=_key(one), properties=one.properties) for one in kept]))
    said.append(Statement(_FORGET_PERSON, [_row(one, key=_key(one), properties=nothing) for one in gone]))
    return [statement for statement in said if statement.rows]


def _about_works(label: Label, works: Sequence[Entity]) -> Iterable[Statement]:
    """New relations come before old ones go: whom both have stays the same node."""
    about = {"label": label}
    yield Statement(_WORK_NODE % about, [_row(one, properties=one.properties) for one in works])
    yield Statement(_PEOPLE % about, [_row(one, people=one.people) for one in works if one.people])
    for kind in RELATION_TYPES:
        rows = [_row(one, parts=one.parts[kind]) for one in works if kind in one.parts]
        yield Statement(_PARTS % (about | {"part": _PART[kind]}), rows)
    yield Statement(_GENRES % about, [_row(one, genres=one.genres) for one in works if one.genres])
    yield Statement(_OLD_PARTS % about, [_row(one, parts=list(_part_keys(one))) for one in works])
    yield Statement(_OLD_GENRES % about, [_row(one, genres=[genre["id"] for genre in one.genres]) for one in works])


def _about_gone_works(label: Label, works: Sequence[Entity]) -> Iterable[Statement]:
    """A film that is gone loses its people and genres like one that changed, so that none stays alone."""
    about = {"label": label}
    yield Statement(_OLD_PARTS % about, [_row(one, parts=[]) for one in works])
    yield Statement(_OLD_GENRES % about, [_row(one, genres=[]) for one in works])
    yield Statement(_FORGET_WORK % about, [_row(one) for one in works])


def _row(one: Entity, **more: Any) -> Properties:
    return {"entity": one.entity, "outbox_id": one.outbox_id, "tmdb_id": one.tmdb_id, **more}


def _key(one: Entity) -> str:
    return f"tmdb:{one.tmdb_id}"


def _part_keys(one: Entity) -> Iterable[str]:
    """The relations of a work, in the words in which _OLD_PARTS asks for them."""
    return chain.from_iterable(
        (f"{kind} {part['person']} {_what(kind, part)}" for part in parts) for kind, parts in one.parts.items()
    )


def _what(kind: RelationType, part: Properties) -> str:
    return "" if kind == "DIRECTED" else str(part["character"] if kind == "ACTED_IN" else part["job"])
