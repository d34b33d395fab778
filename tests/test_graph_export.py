"""What the graph is told: over Bolt with the official driver, to a Neo4j that behaves as told, and in files."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
import tomllib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.demo.load import load_demo
from storage.embedded import Services
from storage.film_store import FilmStore
from storage.graph_outbox import GraphOutbox, Pending
from storage.movies import Movies
from storage.postgres import Postgres
from storage.schema import migrate
from storage.tmdb_entities import People, TvShows
from tests.clients import PATIENCE_S
from tests.databases import fresh_database
from tests.standins.cypher import Graph
from tests.standins.neo4j import BAD_VALUE, DEADLOCK, NO_DATABASE, UNAUTHORIZED, Fault, Neo4jStandIn, Said
from tests.standins.server import Gate
from wsserver.graph.command import main
from wsserver.graph.export import CONSTRAINTS, Entity, entity_of, statements_for
from wsserver.graph.files import FileFormat, StoppedError, write_file
from wsserver.graph.script import literal
from wsserver.graph.source import PARK_AFTER, FromOutbox, Source, WholeCatalogue
from wsserver.graph.worker import GraphWorker, Tally
from wsserver.vendors import neo4j as vendor
from wsserver.vendors.neo4j import (
    DriverMissingError,
    GraphMisconfiguredError,
    GraphUnavailableError,
    Neo4j,
    require_driver,
)

ROOT = Path(__file__).resolve().parent.parent
Json = dict[str, Any]

NOLAN, BALE, CAINE, HAAS = (
    {"id": 525, "name": "Christopher Nolan"},
    {"id": 3894, "name": "Christian Bale"},
    {"id": 3895, "name": "Michael Caine"},
    {"id": 282, "name": "Lukas Haas"},
)
DRAMA, SCIENCE_FICTION = {"id": 18, "name": "剧情"}, {"id": 878, "name": "科幻"}
NASTY = [
    'It\'s "quoted" and `ticked`',
    "back\\slash, \\u0027 and \\\\u0027}) DETACH DELETE n //",
    "\\",
    "\\'",
    "line\nfeed\r\n:begin\ttab",
    "'}] AS row MATCH (n) DETACH DELETE n; //",
    "$rows and %s and {0} and ${row}",
    "片名：𝄞🎬👩‍👧 \u2028 \x85 \x7f \x01",
    "u",
    "/* comment */ -- ;",
]


def film(tmdb_id: int, title: str = "Prestige", **more: Any) -> Json:
    cast = [
        {**BALE, "character": "Borden", "order": 0},
        {**CAINE, "character": "Cutter", "order": 1},
    ]
    crew = [{**NOLAN, "job": "Director", "department": "Directing"}]
    return {
        "id": tmdb_id,
        "title": title,
        "original_title": title,
        "original_language": "en",
        "release_date": "2006-10-19",
        "genres": [DRAMA],
        "credits": {"cast": more.pop("cast", cast), "crew": more.pop("crew", crew)},
        **more,
    }


def told(entity_type: Any, raw: Json, *, outbox_id: int = 1) -> Entity:
    return entity_of(Pending(outbox_id, entity_type, raw["id"], "upsert", 1, raw))


@dataclass(slots=True)
class Place:
    """A database of its own, and a graph that is told about it."""

    url: str
    postgres: Postgres
    films: FilmStore
    people: People
    outbox: GraphOutbox
    server: Neo4jStandIn
    uri: str
    tally: Tally = field(default_factory=Tally)

    @contextlib.asynccontextmanager
    async def worker(
        self, *, source: Source | None = None, batch: int = 200, retry_s: float = PATIENCE_S, **more: Any
    ) -> AsyncIterator[GraphWorker]:
        credential = {"user": self.server.user, "password": "let-me-in", "database": None}
        credential |= {name: more.pop(name) for name in ("uri", "password", "database") if name in more}
        async with Neo4j.open(str(credential.pop("uri", self.uri)), **credential, retry_s=retry_s) as graph:  # type: ignore[arg-type]
            yield GraphWorker(
                source or FromOutbox(self.outbox), graph, self.tally, batch=batch, poll_s=0.01, first_pause_s=0.01
            )

    async def tell(self, **options: Any) -> None:
        async with asyncio.timeout(PATIENCE_S), self.worker(**options) as worker:
            await worker.once(asyncio.Event())

    async def forget(self, tmdb_id: int, *, table: str = "movies") -> None:
        await self.execute(f"UPDATE tmdb.{table} SET fetched_at = now() - interval '1 year' WHERE tmdb_id = {tmdb_id}")
        assert await (self.films if table == "movies" else self.people).drop_older_than() == 1

    async def execute(self, sql: str) -> None:
        async with self.postgres.connection() as connection:
            await connection.execute(sql)

    async def rows(self) -> list[Any]:
        async with self.postgres.connection() as connection:
            return list(await connection.fetch("SELECT * FROM tmdb.neo4j_etl_outbox ORDER BY tmdb_id, id"))

    async def all_due_now(self) -> None:
        """As when every wait and every lease is over."""
        await self.execute("UPDATE tmdb.neo4j_etl_outbox SET next_try = now() - interval '1 s' WHERE done_at IS NULL")

    async def open_ids(self) -> list[int]:
        return [row["tmdb_id"] for row in await self.rows() if row["done_at"] is None]

    @property
    def graph(self) -> Graph:
        return self.server.graph

    def names(self) -> set[str]:
        return {str(person.properties["name"]) for person in self.graph.all("Person")}


@pytest.fixture
async def place(services: Services) -> AsyncIterator[Place]:
    assert services.database_url is not None
    server = Neo4jStandIn()
    async with fresh_database(services.database_url) as url:
        await migrate(url)
        async with Postgres.open(url, size=4) as postgres, server.serve() as uri:
            yield Place(url, postgres, FilmStore(postgres), People(postgres), GraphOutbox(postgres), server, uri)
    assert server.errors == []


# ---- what is said ----


def test_everybody_is_said_once_and_each_part_and_job_of_them_once() -> None:
    crew = [
        {**NOLAN, "job": job, "department": department, "credit_id": str(number)}
        for number, (job, department) in enumerate(
            [
                ("Director", "Directing"),
                ("Screenplay", "Writing"),
                ("Screenplay", "Writing"),
                ("Producer", "Production"),
            ]
        )
    ]
    cast = [{**BALE, "character": name, "order": at} for at, name in enumerate(["Borden", "Fallon", "Borden"])]
    entity = told("movie", film(1, cast=cast, crew=crew))
    assert [person["key"] for person in entity.people] == ["tmdb:3894", "tmdb:525"]
    parts = {kind: [{**part} for part in said] for kind, said in entity.parts.items()}
    assert parts == {
        "ACTED_IN": [
            {"person": "tmdb:3894", "character": "Borden", "order": 0},
            {"person": "tmdb:3894", "character": "Fallon", "order": 1},
        ],
        "DIRECTED": [{"person": "tmdb:525", "job": "Director", "department": "Directing"}],
        "WROTE": [{"person": "tmdb:525", "job": "Screenplay", "department": "Writing"}],
        "CREW": [{"person": "tmdb:525", "job": "Producer", "department": "Production"}],
    }


@pytest.mark.parametrize(
    "raw",
    [
        {"id": 1},
        {"id": 2, "title": "another film"},
        film(1, genres=[{"name": "no id"}]),
        film(1, credits={"cast": ["nobody"]}),
        film(1, runtime={"minutes": 90}),
        film(1, credits=7),
    ],
)
def test_what_is_no_film_is_refused_in_one_way(raw: Json) -> None:
    with pytest.raises(ValueError, match=r"not|another"):
        entity_of(Pending(1, "movie", 1, "upsert", 1, raw))


# ---- the graph ----


async def test_the_demo_catalogue_is_told_once_and_telling_it_again_changes_nothing(place: Place) -> None:
    loaded = await load_demo(Movies(place.postgres))
    await place.tell(batch=100)
    assert place.tally.told == loaded == len(place.graph.all("Movie")) > 300
    assert await place.open_ids() == []
    matrix = place.graph.one("Movie", tmdb_id=603)
    assert matrix is not None
    said = {(each.kind, each.start.properties.get("key")) for each in matrix.relations if each.end is matrix}
    assert {("DIRECTED", "name:lanawachowski"), ("ACTED_IN", "name:keanureeves")} <= said
    assert all(person.properties["name_only"] and person.relations for person in place.graph.all("Person"))
    before, transactions = place.graph.changes, len(place.server.committed)
    await place.tell(source=WholeCatalogue(place.outbox), batch=100)
    assert place.graph.changes == before
    assert len(place.server.committed) > transactions + len(CONSTRAINTS), "it was told"
    transactions = len(place.server.committed)
    await place.tell()
    assert len(place.server.committed) == transactions + len(CONSTRAINTS), "nothing was left to tell"


async def test_constraints_come_before_anything_that_needs_them(place: Place) -> None:
    await place.films.store([film(1)])
    await place.tell()
    said = [transaction[0].text for transaction in place.server.committed]
    assert tuple(said[: len(CONSTRAINTS)]) == CONSTRAINTS
    assert "UNWIND" in said[len(CONSTRAINTS)]


async def test_a_film_that_changed_loses_what_it_had_and_keeps_the_nodes_that_it_has_still(place: Place) -> None:
    await place.films.store([film(1), film(2, "Memento", cast=[{**CAINE, "character": "", "order": 0}], genres=[])])
    await place.tell()
    assert place.names() == {"Christopher Nolan", "Christian Bale", "Michael Caine"}
    nolan, work = place.graph.one("Person", tmdb_id=525), place.graph.one("Movie", tmdb_id=1)
    assert work is not None
    work.properties["embedding"] = "somebody else's"
    changed = film(
        1,
        "The Prestige",
        cast=[{**HAAS, "character": "Borden", "order": 0}],
        crew=[{**NOLAN, "job": "Producer", "department": "Production"}],
        genres=[SCIENCE_FICTION],
        release_date="",
    )
    await place.films.store([changed])
    await place.tell()
    assert place.names() == {"Christopher Nolan", "Lukas Haas", "Michael Caine"}, "Bale had nothing else"
    assert place.graph.one("Person", tmdb_id=525) is nolan
    assert place.graph.one("Movie", tmdb_id=1) is work
    assert (work.properties["title"], work.properties["embedding"]) == ("The Prestige", "somebody else's")
    assert "release_date" not in work.properties
    assert {each.kind for each in work.relations} == {"ACTED_IN", "CREW", "IN_GENRE"}
    assert [genre.properties["name"] for genre in place.graph.all("Genre")] == ["科幻"]


async def test_a_film_that_is_gone_takes_with_it_what_only_it_had(place: Place) -> None:
    await place.films.store([film(1), film(2, "Memento", cast=[], genres=[DRAMA])])
    await place.people.store([BALE | {"biography": "Welsh."}])
    await place.tell()
    await place.forget(1)
    await place.tell()
    assert [work.properties["tmdb_id"] for work in place.graph.all("Movie")] == [2]
    assert place.names() == {"Christopher Nolan", "Christian Bale"}, "one has another film, one was asked about himself"
    await place.forget(2)
    await place.forget(3894, table="people")
    await place.tell()
    assert place.graph.nodes == set(place.graph.all("Exported")), "nothing is left but what was told last"


async def test_somebody_who_is_forgotten_but_in_a_film_is_only_a_name_again(place: Place) -> None:
    await place.films.store([film(1)])
    await place.people.store([{**BALE, "name": "克里斯蒂安·贝尔", "biography": "Welsh."}])
    await place.tell()
    bale = place.graph.one("Person", tmdb_id=3894)
    assert bale is not None
    assert (bale.properties["name"], bale.properties["biography"]) == ("克里斯蒂安·贝尔", "Welsh.")
    await place.forget(3894, table="people")
    await place.films.store([film(1, "again told")])
    await place.tell()
    assert place.graph.one("Person", tmdb_id=3894) is bale
    assert bale.properties.keys() == {"key", "tmdb_id", "name"}


async def test_a_mere_name_never_becomes_somebody_of_tmdb(place: Place) -> None:
    nameless = [{"name": "Christopher Nolan", "job": "Director", "department": "Directing"}]
    await place.films.store([film(1, crew=nameless, cast=[]), film(2, crew=nameless, cast=[]), film(3, cast=[])])
    await place.tell()
    named, known = place.graph.one("Person", name_only=True), place.graph.one("Person", tmdb_id=525)
    assert named is not None
    assert known is not None
    assert (len(named.relations), len(known.relations)) == (2, 1)
    await place.films.store([film(1), film(2)])
    await place.tell()
    assert place.graph.one("Person", name_only=True) is None
    assert len(known.relations) == 3


async def test_shows_are_told_like_films(place: Place) -> None:
    show = film(7, "") | {"name": "Show", "original_name": "Show", "number_of_seasons": 2}
    await TvShows(place.postgres).store([show])
    await place.films.store([film(7)])
    await place.tell()
    told_show = place.graph.one("TvShow", tmdb_id=7)
    assert told_show is not None
    assert (told_show.properties["name"], told_show.properties["seasons"]) == ("Show", 2)
    bale = place.graph.one("Person", tmdb_id=3894)
    assert bale is not None
    assert {each.end.label for each in bale.relations} == {"Movie", "TvShow"}


# ---- out of order, twice, at once ----


async def test_what_is_changed_and_changed_back_ends_as_it_was(place: Place) -> None:
    other = film(1, "Other", cast=[{**HAAS, "character": "Cobb", "order": 0}])
    await place.films.store([film(1)])
    await place.tell()
    first = place.graph.shape()
    await place.films.store([other])
    await place.films.store([film(1)])
    await place.tell()
    assert _without_marks(place.graph.shape()) == _without_marks(first)
    await place.films.store([other])
    await place.tell()
    await place.films.store([film(1)])
    await place.tell()
    assert _without_marks(place.graph.shape()) == _without_marks(first)


def _without_marks(shape: set[str]) -> set[str]:
    return {line for line in shape if not line.startswith("Exported")}


@pytest.mark.parametrize("gone", [False, True])
async def test_who_speaks_after_the_end_of_a_lease_changes_nothing(place: Place, gone: bool) -> None:
    await place.films.store([film(1)])
    late = await place.outbox.claim(10, timedelta(0))
    if gone:
        await place.forget(1)
    else:
        await place.films.store([film(1, "Newer", cast=[], genres=[SCIENCE_FICTION])])
    await place.tell()
    before = place.graph.changes
    async with Neo4j.open(place.uri, user="neo4j", password="let-me-in", database=None) as graph:
        await graph.write(statements_for([entity_of(pending) for pending in late]))
    assert place.graph.changes == before
    assert (place.graph.one("Movie", title="Newer") is None) == gone


async def test_workers_that_run_at_once_tell_each_entity_once(place: Place) -> None:
    await place.films.store([film(number, f"Film {number}") for number in range(1, 61)])
    async with asyncio.TaskGroup() as workers:
        for _ in range(3):
            workers.create_task(place.tell(batch=7))
    marked = [row["entity"] for said in _marks(place.server) for row in said.parameters["rows"]]
    assert sorted(marked) == sorted(f"movie:{number}" for number in range(1, 61))
    assert (place.tally.told, await place.open_ids()) == (60, [])
    assert len(place.graph.all("Movie")) == 60


def _marks(server: Neo4jStandIn) -> list[Said]:
    return [said for transaction in server.committed for said in transaction if "MERGE (mark:Exported" in said.text]


# ---- what goes wrong ----


@pytest.mark.parametrize("request_", ["BEGIN", "RUN", "PULL", "COMMIT"])
@pytest.mark.parametrize("fault", [Fault(DEADLOCK), Fault(drop=True), Fault(drop_after=True)], ids=str)
async def test_what_fails_in_passing_is_said_again(place: Place, request_: str, fault: Fault) -> None:
    await place.films.store([film(1), film(2)])
    place.server.meets(request_, *[Fault()] * len(CONSTRAINTS), fault)
    await place.tell()
    assert not place.server.faults[request_], "the fault was met"
    assert (place.tally.told, await place.open_ids()) == (2, [])
    assert len(place.graph.all("Movie")) == 2


async def test_a_graph_that_stays_away_gets_its_rows_later(place: Place) -> None:
    await place.tell()
    await place.films.store([film(1), film(2)])
    place.server.refuses = lambda said: DEADLOCK if "MERGE (mark" in said.text else None
    with pytest.raises(GraphUnavailableError, match="DeadlockDetected"):
        await place.tell(retry_s=0)
    rows = await place.rows()
    assert [(row["attempts"], row["done_at"], row["claimed_at"]) for row in rows] == [(1, None, None)] * 2
    assert all("DeadlockDetected" in row["last_error"] for row in rows)
    assert await place.outbox.claim(10, timedelta(minutes=1)) == [], "not at once"
    await place.all_due_now()
    place.server.refuses = lambda _said: None
    await place.tell()
    assert await place.open_ids() == []


async def test_who_follows_waits_for_a_graph_that_is_away_and_tells_what_comes(place: Place) -> None:
    stop = asyncio.Event()
    place.server.meets("COMMIT", *[Fault(DEADLOCK)] * 3)
    async with place.worker(retry_s=0) as worker, asyncio.timeout(PATIENCE_S):
        following = asyncio.create_task(worker.follow(stop, may_wait_for_storage=True))
        for number in (1, 2):
            await place.films.store([film(number)])
            while await place.open_ids():
                await asyncio.sleep(0.005)
        stop.set()
        await following
    assert len(place.graph.all("Movie")) == 2


async def test_who_follows_ends_when_the_postgresql_of_another_process_is_gone(place: Place) -> None:
    class Gone(FromOutbox):
        async def take(self, limit: int) -> list[Pending]:
            raise OperationError(STORAGE_UNAVAILABLE)

    async with place.worker(source=Gone(place.outbox)) as worker, asyncio.timeout(PATIENCE_S):
        with pytest.raises(OperationError):
            await worker.follow(asyncio.Event(), may_wait_for_storage=False)


@pytest.mark.parametrize(
    ("request_", "code", "said"),
    [("LOGON", UNAUTHORIZED, "NEO4J_USER, NEO4J_PASSWORD"), ("RUN", NO_DATABASE, "DatabaseNotFound")],
)
async def test_what_is_ours_to_mend_stops_the_run_and_costs_no_row_anything(
    place: Place, request_: str, code: str, said: str
) -> None:
    await place.films.store([film(1), film(2)])
    await place.tell(source=WholeCatalogue(place.outbox))
    async with place.worker() as worker:
        place.server.meets(request_, *[Fault(code)] * 3)
        with pytest.raises(GraphMisconfiguredError, match=said):
            await worker.once(asyncio.Event())
    place.server.faults.clear()
    await place.tell()
    assert await place.open_ids() == []
    assert place.tally.refused == 0


async def test_a_batch_that_is_refused_for_ours_to_mend_is_due_when_it_is_mended(place: Place) -> None:
    await place.films.store([film(1), film(2)])
    place.server.refuses = lambda said: NO_DATABASE if "MERGE (mark" in said.text else None
    with pytest.raises(GraphMisconfiguredError):
        await place.tell()
    place.server.refuses = lambda _said: None
    await place.tell()
    assert await place.open_ids() == []


async def test_a_wrong_password_is_said_to_be_one(place: Place) -> None:
    with pytest.raises(GraphMisconfiguredError, match="NEO4J_PASSWORD"):
        await place.tell(password="wrong")


async def test_one_film_that_the_graph_refuses_holds_up_no_other_and_is_put_away_in_the_end(place: Place) -> None:
    await place.films.store([film(number) for number in range(1, 21)])
    place.server.refuses = lambda said: (
        BAD_VALUE if any(row.get("entity") == "movie:13" for row in said.parameters.get("rows", ())) else None
    )
    for attempt in range(1, PARK_AFTER + 1):
        await place.all_due_now()
        await place.tell()
        assert await place.open_ids() == [13]
        assert (place.tally.waiting, place.tally.parked) == (min(attempt, PARK_AFTER - 1), attempt // PARK_AFTER)
    assert place.tally.told == 19
    (row,) = [row for row in await place.rows() if row["done_at"] is None]
    assert BAD_VALUE in row["last_error"]
    assert row["next_try"] - row["created_at"] > timedelta(days=6)


async def test_what_is_no_film_is_put_away_at_once_and_told_when_it_changed(place: Place) -> None:
    await place.films.store([film(1), film(2), film(3)])
    await place.execute("""UPDATE tmdb.movies SET raw = '{"id": 2}' WHERE tmdb_id = 2""")
    await place.tell()
    assert (place.tally.told, place.tally.parked, await place.open_ids()) == (2, 1, [2])
    await place.films.store([film(2, "mended")])
    await place.tell()
    assert (place.tally.told, await place.open_ids()) == (3, [])


async def test_a_stop_comes_between_two_batches(place: Place) -> None:
    await place.films.store([film(number) for number in range(1, 5)])
    stop, gate = asyncio.Event(), Gate()
    async with place.worker(batch=2) as worker, asyncio.timeout(PATIENCE_S):
        await worker.once(_set())
        place.server.meets("COMMIT", *[Fault()] * len(CONSTRAINTS), Fault(stall=gate))
        running = asyncio.create_task(worker.once(stop))
        await gate.reached.wait()
        stop.set()
        gate.open()
        await running
    assert (place.tally.told, await place.open_ids()) == (2, [3, 4])
    assert [row["attempts"] for row in await place.rows()] == [1, 1, 0, 0], "nothing was taken in vain"


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def test_a_cluster_is_asked_for_its_writer_and_for_the_database_that_is_set(place: Place) -> None:
    await place.films.store([film(1)])
    await place.tell(uri=place.uri.replace("bolt://", "neo4j://"), database="films")
    assert place.server.databases == {"films"}
    assert len(place.graph.all("Movie")) == 1


def test_a_missing_driver_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "neo4j" else object())
    with pytest.raises(DriverMissingError, match=r"pip install 'neo4j>="):
        require_driver()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DriverMissingError, match=r"uv pip install --python"):
        require_driver()


def test_what_to_type_is_the_extra_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["graph"] == [vendor.REQUIREMENT]
    assert vendor.REQUIREMENT in project["dependency-groups"]["dev"]


# ---- files ----


async def write(
    place: Place, output: Path, file_format: FileFormat, *, everything: bool = False, stop: asyncio.Event | None = None
) -> None:
    source: Source = WholeCatalogue(place.outbox) if everything else FromOutbox(place.outbox)
    async with asyncio.timeout(PATIENCE_S):
        await write_file(source, output, file_format, place.tally, batch=3, stop=stop or asyncio.Event())


def obey(script: str, *, graph: Graph | None = None) -> Graph:
    """Run a script as cypher-shell does: whole statements, commands on lines of their own, transactions in pairs."""
    graph = graph or Graph()
    within = False
    for part in script.split(";\n"):
        lines = part.split("\n")
        while lines and (not lines[0] or lines[0].startswith((":", "//"))):
            command = lines.pop(0)
            if command.startswith(":"):
                assert command == (":commit" if within else ":begin")
                within = not within
        if lines:
            statement = "\n".join(lines)
            assert within != statement.startswith("CREATE CONSTRAINT")
            graph.run(statement, {})
    assert not within
    return graph


async def test_a_script_says_what_the_graph_would_be_told(place: Place, tmp_path: Path) -> None:
    people = [{"id": 100 + at, "name": name} for at, name in enumerate(NASTY)]
    await place.films.store(
        [
            film(at, title, overview=title, cast=[{**people[at - 1], "character": title, "order": 0}])
            for at, title in enumerate(NASTY, 1)
        ]
    )
    await place.people.store([people[0] | {"also_known_as": NASTY}])
    await write(place, tmp_path / "all.cypher", "cypher", everything=True)
    assert len(await place.open_ids()) == len(NASTY) + 1, "nothing is marked"
    await write(place, tmp_path / "graph.cypher", "cypher")
    assert await place.open_ids() == []
    script = (tmp_path / "graph.cypher").read_text()
    assert script.index("CREATE CONSTRAINT") < script.index(":begin")
    told_by_file = obey(script)
    assert {work.properties["title"] for work in told_by_file.all("Movie")} == {title.strip() for title in NASTY}
    assert obey((tmp_path / "all.cypher").read_text()).shape() == told_by_file.shape()
    before = told_by_file.changes
    obey(script, graph=told_by_file)
    assert told_by_file.changes == before
    await place.tell(source=WholeCatalogue(place.outbox))
    assert place.graph.shape() == told_by_file.shape()


async def test_a_script_takes_away_what_is_gone(place: Place, tmp_path: Path) -> None:
    await place.films.store([film(1), film(2, cast=[])])
    await write(place, tmp_path / "1.cypher", "cypher")
    await place.forget(1)
    await place.films.store([film(2, "Newer")])
    await write(place, tmp_path / "2.cypher", "cypher")
    graph = obey((tmp_path / "1.cypher").read_text())
    obey((tmp_path / "2.cypher").read_text(), graph=graph)
    assert [work.properties["title"] for work in graph.all("Movie")] == ["Newer"]
    assert {person.properties["name"] for person in graph.all("Person")} == {
        "Christopher Nolan",
        "Christian Bale",
        "Michael Caine",
    }
    late = obey((tmp_path / "1.cypher").read_text(), graph=graph)
    assert [work.properties["title"] for work in late.all("Movie")] == ["Newer"], "an older file changes nothing back"


def test_no_text_can_look_like_an_escape_of_a_code_point_or_leave_its_line() -> None:
    for text in [*NASTY, "\\u0027", "\\\\u", "u\\u\\u0041"]:
        written = literal(text)
        assert "\\u" not in written
        assert not {"\n", "\r"} & set(written)
        graph = Graph()
        graph.run(f"UNWIND [{{text: {written}}}] AS row MERGE (n:Movie {{title: row.text}})", {})
        assert graph.all("Movie")[0].properties["title"] == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**63, object(), {"a b": 1}, {"a}": 1}])
def test_what_neo4j_cannot_keep_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match="no "):
        literal(value)


async def test_lines_of_json_are_one_entity_each(place: Place, tmp_path: Path) -> None:
    await place.films.store([film(1, NASTY[4]), film(2)])
    await place.people.store([BALE])
    await place.tell()
    await place.forget(2)
    await place.films.store([film(1, NASTY[3])])
    await place.films.store([film(3)])
    await write(place, tmp_path / "graph.jsonl", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "graph.jsonl").read_bytes().splitlines()]
    said = {(line["entity_type"], line["tmdb_id"]): line for line in lines}
    assert {key: line["operation"] for key, line in said.items()} == {
        ("movie", 1): "upsert",
        ("movie", 2): "delete",
        ("movie", 3): "upsert",
    }
    assert said["movie", 1]["properties"]["title"] == NASTY[3]
    assert said["movie", 3]["parts"]["DIRECTED"][0]["person"] == "tmdb:525"
    assert "properties" not in said["movie", 2]


@pytest.mark.parametrize("file_format", ["cypher", "jsonl"])
async def test_a_file_that_does_not_get_whole_is_not_there_and_its_entities_are_due(
    place: Place, tmp_path: Path, file_format: FileFormat
) -> None:
    await place.films.store([film(number) for number in range(1, 9)])
    with pytest.raises(StoppedError):
        await write(place, tmp_path / "graph", file_format, stop=_set())
    with pytest.raises(OSError, match="No such file"):
        await write(place, tmp_path / "missing" / "graph", file_format)
    assert list(tmp_path.iterdir()) == []
    assert len(await place.open_ids()) == 8
    await write(place, tmp_path / "graph", file_format)
    assert await place.open_ids() == []
    assert [path.name for path in tmp_path.iterdir()] == ["graph"]


async def test_a_device_is_written_to_and_not_replaced(place: Place) -> None:
    await place.films.store([film(1)])
    with pytest.raises(OSError, match="No space"):
        await write(place, Path("/dev/full"), "cypher")
    assert Path("/dev/full").is_char_device()
    assert await place.open_ids() == [1]


# ---- the command ----


@pytest.mark.parametrize(
    "arguments",
    [
        ["--follow", "--once"],
        ["--batch", "0"],
        ["--format", "cypher"],
        ["--output", "-"],
        ["--follow", "--all"],
        ["--format", "cypher", "--output", "/"],
        ["--format", "cypher", "--output", __file__],
    ],
)
def test_arguments_that_make_no_sense_end_with_2(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "export-graph: error:" in capsys.readouterr().err


def test_settings_that_are_missing_or_wrong_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in (None, "localhost:7687", "http://localhost", "bolt://neo4j:hunter2@localhost"):
        if uri is not None:
            monkeypatch.setenv("NEO4J_URI", uri)
        assert main([]) == 2
        said = capsys.readouterr().err
        assert "NEO4J_URI: " in said
        assert "hunter2" not in said


async def command(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from wsserver.graph.command import main; sys.exit(main(sys.argv[1:]))",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "NEO4J_PASSWORD": "let-me-in", **environment},
        cwd="/",
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(PATIENCE_S):
        out, error = await process.communicate()
    return process.returncode, out.decode(), error.decode()


async def test_the_command_tells_and_says_how_much(place: Place) -> None:
    await place.films.store([film(1), film(2)])
    there = {"DATABASE_URL": place.url, "NEO4J_URI": place.uri}
    code, out, error = await ended(await command(**there))
    assert (code, out) == (0, ""), error
    assert "told about 2 entities" in error
    assert len(place.graph.all("Movie")) == 2
    await place.films.store([film(1, "changed"), film(2, "changed")])
    await place.execute("""UPDATE tmdb.movies SET raw = '{"id": 2}' WHERE tmdb_id = 2""")
    code, _, error = await ended(await command(**there))
    assert code == 1
    assert "1 cannot be told" in error
    code, _, error = await ended(await command(**there, NEO4J_PASSWORD="wrong"))
    assert code == 1
    assert "NEO4J_PASSWORD" in error
    code, _, error = await ended(await command(**{**there, "DATABASE_URL": "postgresql://127.0.0.1:1/nothing"}))
    assert code == 1
    assert "Traceback" not in error


async def test_the_command_writes_to_standard_output_nothing_but_the_script(place: Place) -> None:
    await place.films.store([film(1)])
    code, out, _ = await ended(await command("--format", "cypher", "--output", "-", DATABASE_URL=place.url))
    assert code == 0
    assert len(obey(out).all("Movie")) == 1
    assert await place.open_ids() == []


async def test_a_worker_that_is_killed_between_taking_and_telling_loses_nothing(place: Place) -> None:
    await place.films.store([film(number) for number in range(1, 5)])
    gate = Gate()
    place.server.meets("COMMIT", *[Fault()] * len(CONSTRAINTS), Fault(drop_after=True, stall=gate))
    process = await command("--batch", "4", DATABASE_URL=place.url, NEO4J_URI=place.uri)
    async with asyncio.timeout(PATIENCE_S):
        await gate.reached.wait()
    process.kill()
    assert (await ended(process))[0] == -signal.SIGKILL
    gate.open()
    assert [row["claimed_at"] is not None for row in await place.rows()] == [True] * 4
    await place.tell()
    assert await place.open_ids() == [1, 2, 3, 4], "they are still the dead one's"
    await place.films.store([film(1, "changed meanwhile")])
    await place.all_due_now()
    await place.tell()
    assert await place.open_ids() == []
    assert place.graph.one("Movie", title="changed meanwhile") is not None
    assert len(place.graph.all("Movie")) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_who_follows_when_the_batch_is_told(place: Place, number: signal.Signals) -> None:
    await place.films.store([film(1)])
    gate = Gate()
    place.server.meets("COMMIT", *[Fault()] * len(CONSTRAINTS), Fault(stall=gate))
    process = await command("--follow", DATABASE_URL=place.url, NEO4J_URI=place.uri)
    async with asyncio.timeout(PATIENCE_S):
        await gate.reached.wait()
    process.send_signal(number)
    gate.open()
    code, _, error = await ended(process)
    assert code == 0, error
    assert "told about 1 entities" in error
    assert await place.open_ids() == []


@pytest.mark.slow
async def test_the_command_uses_the_database_of_a_server_that_runs(place: Place, data_dir: Path) -> None:
    folder = data_dir / "graph of a server"
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "run.py"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=data_dir,
        env={"PATH": os.environ["PATH"], "PORT": "0", "DATA_DIR": str(folder)},
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert b"is ready" in await server.stdout.readline()
        code, _, error = await ended(await command(DATA_DIR=str(folder), NEO4J_URI=place.uri))
        assert code == 0, error
    finally:
        server.terminate()
        await server.communicate()
    assert len(place.graph.all("Movie")) > 300
    code, _, error = await ended(await command(DATA_DIR=str(folder), NEO4J_URI=place.uri))
    assert code == 0, error
    assert "told about 0 entities" in error
