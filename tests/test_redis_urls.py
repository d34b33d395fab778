"""REDIS_URL: one server, Sentinels or a cluster, with real ones of each. What moves, fails over and goes away."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.accounts import Sessions, StoredSession
from storage.budget import Budget
from storage.embedded import Services
from storage.facts import redis_facts
from storage.film_marks import FilmMarks
from storage.news import Telling, UserNews
from storage.redis import (
    MAX_CONNECTIONS,
    RUN_META,
    SESSION,
    USER_SOCKETS,
    Redis,
    is_outage,
    open_redis,
    ping,
    pool_use,
)
from storage.redis_url import Cluster, OneServer, Sentinels, parse_redis_url
from storage.runs import Entry, RunLogs
from tests.clients import PATIENCE_S, socket_client
from tests.node import serving
from tests.valkeys import SLOTS, Valkey, Watched, cluster, until, watched
from wsserver.settings import SettingsError, load_settings

ROOT = Path(__file__).resolve().parent.parent


def test_several_servers_can_be_named() -> None:
    sentinels = parse_redis_url("redis+sentinel://me:p%40ss@a,b:1,[::1]:2/films/3?sentinel_password=other")
    assert isinstance(sentinels, Sentinels)
    assert (sentinels.hosts, sentinels.service) == ([("a", 26379), ("b", 1), ("::1", 2)], "films")
    assert sentinels.options == {"username": "me", "password": "p@ss", "db": 3}
    assert sentinels.sentinel_options == {"password": "other"}
    nodes = parse_redis_url("redis+cluster://:pw@a:7000,b")
    assert isinstance(nodes, Cluster)
    assert (nodes.hosts, nodes.options) == ([("a", 7000), ("b", 6379)], {"password": "pw"})
    one = parse_redis_url("unix:///run/valkey.sock?db=2")
    assert isinstance(one, OneServer)
    assert (one.options["path"], one.options["db"]) == ("/run/valkey.sock", 2)


def test_tls_is_for_the_sentinels_too() -> None:
    url = "rediss+sentinel://a/films?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=no"
    tls = {"ssl": True, "ssl_ca_certs": "/etc/ca.pem", "ssl_check_hostname": False}
    sentinels = parse_redis_url(url)
    assert isinstance(sentinels, Sentinels)
    assert (sentinels.options, sentinels.sentinel_options) == (tls | {"db": 0}, tls)
    assert parse_redis_url("rediss+cluster://a") == Cluster([("a", 6379)], {"ssl": True})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("hush.example:6379", "must start with redis://"),
        ("http+cluster://:hush@a", "must start with redis://"),
        ("redis://:hu/sh#hush@a:1", "written as %40"),
        ("redis://:hush@a:hush", "must be redis://"),
        ("unix://", "unix:///path/to/socket"),
        ("redis+cluster://u:hu@hush@a:1", "must be redis+cluster://"),
        ("redis+cluster://:hush@a:1/2", "no numbered databases"),
        ("redis+cluster://:hush@a:hush", "host:port"),
        ("redis+cluster://:hush@a:70000", "host:port"),
        ("redis+cluster://:hush@a?hush=1", "an option"),
        ("redis+sentinel://:hush@a:1", "the name of the service is missing"),
        ("redis+sentinel://:hush@a:1/films/hush", "the number of the database"),
    ],
)
def test_a_wrong_url_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError) as wrong:
        load_settings()
    assert str(wrong.value).startswith("REDIS_URL: ")
    assert said in str(wrong.value)
    assert "hush" not in str(wrong.value)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (MovedError("7 a:1"), True),
        (AskError("7 a:1"), True),
        (TryAgainError("Multiple keys request during rehashing of slot"), True),
        (ClusterDownError("The cluster is down"), True),
        (MasterDownError("Link with MASTER is down"), True),
        (ClusterError("TTL exhausted."), True),
        (SlotNotCoveredError("7"), True),
        (ReadOnlyError("You can't write against a read only replica."), True),
        (ResponseError("NOREPLICAS Not enough good replicas to write."), True),
        (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), False),
    ],
)
def test_a_failover_is_an_outage_and_a_mistake_of_ours_is_none(error: Exception, passes: bool) -> None:
    assert is_outage(error) is passes


def test_nothing_is_written_in_transactions_which_a_cluster_client_has_not() -> None:
    sources = [path.read_text() for package in ("storage", "wsserver") for path in (ROOT / package).rglob("*.py")]
    assert not [text for text in sources if "transaction=True" in text or ".watch(" in text]


# ---- with real servers ----


@pytest.fixture(scope="module")
async def nodes(data_dir: Path) -> AsyncIterator[list[Valkey]]:
    async with cluster(data_dir / "cluster") as started:
        yield started


def url_of(nodes: list[Valkey]) -> str:
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}"


@pytest.fixture(scope="module")
async def sentinels(data_dir: Path) -> AsyncIterator[Watched]:
    async with watched(data_dir / "sentinels") as started:
        yield started


@pytest.fixture(params=["cluster", "sentinel"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "cluster":
        return url_of(request.getfixturevalue("nodes"))
    found: Watched = request.getfixturevalue("sentinels")
    return found.url


async def keep_sessions(redis: Redis, names: list[str]) -> None:
    sessions = Sessions(redis)
    for name in names:
        await sessions.create(StoredSession(name, "user", "openid", None, b"\x00sealed\xff"), 60)
    for name in names:
        found = await sessions.find(name, prolong_s=90)
        assert found is not None
        assert (found.session_id, found.unionid, found.sealed_key) == (name, None, b"\x00sealed\xff")
        assert 60 < await redis.ttl(SESSION(name)) <= 90


@pytest.mark.slow
async def test_every_kind_says_how_much_it_is_used_and_what_it_is(url: str) -> None:
    async with open_redis(url) as redis, asyncio.TaskGroup() as tasks:
        for index in range(2 * MAX_CONNECTIONS):
            tasks.create_task(Sessions(redis).of_user(f"used-{index}"))
        await asyncio.sleep(0)
        assert pool_use(redis).waiting > 0
    async with open_redis(url) as redis:
        await ping(redis)
        use = pool_use(redis)
        assert (use.in_use, use.waiting) == (0, 0)
        assert use.idle > 0
        facts = await redis_facts(redis)
        assert (facts.name, facts.role) == ("valkey", "master")
        assert facts.redis_version >= (7,)
        assert facts.eviction == "noeviction"
        assert abs(facts.ahead_s) <= 1 + facts.give_or_take_s


@pytest.mark.slow
async def test_logins_work_wherever_their_keys_lie(url: str) -> None:
    async with open_redis(url) as redis:
        await ping(redis)
        sessions, names = Sessions(redis), [f"{index}" for index in range(30)]
        await keep_sessions(redis, names)
        for name in names:
            assert await sessions.exists(name)
            assert await sessions.claim_code(name) is None
            taken = await sessions.claim_code(name)
            assert taken is not None
            assert taken.session_id is None
            await sessions.create(StoredSession("s", "user", "openid", None, b""), 60, code_hash=name)
            known = await sessions.claim_code(name)
            assert known is not None
            assert known.session_id == "s"
            await sessions.release_code(name)
        assert await sessions.gone(names) == []
        for name in names[::3]:
            await sessions.revoke(name)
            assert await sessions.find(name) is None
        assert await sessions.gone(names) == names[::3]


@pytest.mark.slow
async def test_films_are_marked_and_budgets_kept_wherever_their_keys_lie(url: str) -> None:
    async with open_redis(url) as redis:
        marks, others, films = FilmMarks(redis), FilmMarks(redis), range(1, 41)
        for film in films:
            assert await marks.claim(film)
            assert not await others.claim(film)
            await marks.release(film)
            assert await others.claim(film)
            if film % 2:
                await marks.note_missing(film)
        assert await others.missing(films) == set(films[::2])
        budgets = [Budget(redis, f"films{number}", per_s=0.01, burst=1) for number in range(10)]
        assert [await budget.take() for budget in budgets] == [0.0] * 10
        assert all([await budget.take() > 0 for budget in budgets])


@pytest.mark.slow
async def test_logs_of_many_runs_are_written_in_one_go(url: str) -> None:
    async with open_redis(url) as redis:
        logs, runs = RunLogs(redis), [f"run{index}" for index in range(40)]
        assert len({key_slot(RUN_META(run).encode()) * 3 // SLOTS for run in runs}) == 3  # every node has some
        for run in runs:
            assert await logs.own(run, 1, {"user_id": "u"}) == 0
        for last in (2, 4):
            entries = [Entry(run, 1, last - 2, last, [b"one", b"two"]) for run in runs]
            assert [done.outcome for done in await logs.append(entries)] == ["added"] * len(runs)
        pages = await logs.read_many(dict.fromkeys(runs, 1), watch=runs)
        assert {run: [frame.seq for frame in page] for run, page in pages.items()} == {run: [2, 3, 4] for run in runs}
        for run in runs:
            assert [frame.encoded for frame in await logs.read(run, 0)] == [b"one", b"two"] * 2
            assert (await logs.meta(run))["user_id"] == "u"


@pytest.mark.slow
async def test_what_users_are_told_is_left_for_all_nodes_in_one_go(url: str) -> None:
    users = [secrets.token_hex(4) for _ in range(20)]
    async with open_redis(url) as redis:
        news = UserNews(redis)
        for number, user_id in enumerate(users):
            await redis.hset(USER_SOCKETS(user_id), "seat", f"1 1 node-{number % 5}")
        nodes_of = await news.nodes_of(users)
        assert [nodes_of[user_id] for user_id in users] == [{f"node-{number % 5}"} for number in range(20)]
        told = {f"node-{node}": [Telling(user_id, b"{}", "run") for user_id in users[node::5]] for node in range(5)}
        await news.leave(told)
        for node, tellings in told.items():
            assert await news.take(node, 100) == tellings


@pytest.mark.slow
async def test_more_callers_than_connections_wait_for_their_turn(url: str) -> None:
    async with open_redis(url) as redis:

        async def call(name: str) -> list[Any]:
            pipeline = redis.pipeline(transaction=False)
            pipeline.set(name, name, ex=60)
            pipeline.get(name)
            answers: list[Any] = await pipeline.execute()
            answers.append(await redis.get(name))
            return answers

        names = [f"caller{index}" for index in range(500)]
        answers = await asyncio.gather(*map(call, names))
        assert answers == [[True, name.encode(), name.encode()] for name in names]


@pytest.mark.slow
async def test_a_server_serves_with_it(url: str, services: Services, data_dir: Path) -> None:
    kept = Services(services.database_url, url, None)
    async with serving(kept, data_dir) as node, socket_client(node.url) as client:
        await client.login()
        frames = await client.stream({"type": "chat", "query": "《黑客帝国》是哪一年的？"})
        assert "1999" in frames[-1]["answer"]
        again = await client.call({"type": "chat", "query": "它是谁导演的？"})
        history = await client.call({"type": "history"})
        assert [item["content"] for item in history["data"]["items"]] == [
            "《黑客帝国》是哪一年的？",
            frames[-1]["answer"],
            "它是谁导演的？",
            again["data"]["msg"],
        ]
        async with httpx.AsyncClient(base_url=node.url, trust_env=False) as http:
            assert (await http.get("/ready")).json()["redis"] is True


@pytest.mark.slow
async def test_a_slot_that_moves_is_followed(nodes: list[Valkey]) -> None:
    session, run = "moving", "moving"
    async with open_redis(url_of(nodes)) as redis:
        logs = RunLogs(redis)
        for key in (SESSION(session), RUN_META(run)):
            slot = key_slot(key.encode())
            source = nodes[slot * 3 // SLOTS]
            target = next(node for node in nodes if node is not source)
            names = {node: (await node.run("CLUSTER", "MYID")).decode() for node in nodes}
            # Half-way, what is not at the source is asked for at the target.
            await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
            await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
            if key == SESSION(session):
                await keep_sessions(redis, [session])
            else:
                # Two keys at once, neither of them there yet: Redis says TRYAGAIN until the slot has arrived.
                with pytest.raises(OperationError) as refused:
                    await logs.own(run, 1, {"user_id": "u"})
                assert refused.value.kind is STORAGE_UNAVAILABLE
            assert await source.run("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
            # And then it is the target's.
            for node in (target, source, *nodes):
                await node.run("CLUSTER", "SETSLOT", slot, "NODE", names[target])
            if key == SESSION(session):
                await keep_sessions(redis, [session])
            else:
                assert await logs.own(run, 1, {"user_id": "u"}) == 0
                assert [one.outcome for one in await logs.append([Entry(run, 1, 0, 1, [b"x"])])] == ["added"]
                assert [frame.encoded for frame in await logs.read(run, 0)] == [b"x"]


async def becomes_available(redis: Redis) -> None:
    """Wait for a session to be kept; until then it may only be said that storage is away."""

    async def is_kept() -> bool:
        try:
            await keep_sessions(redis, [f"again{index}" for index in range(20)])
        except OperationError as error:
            assert error.kind is STORAGE_UNAVAILABLE
            return False
        return True

    await until(is_kept)


@pytest.mark.slow
async def test_a_cluster_without_one_of_its_nodes_is_an_outage_that_passes(nodes: list[Valkey]) -> None:
    async with open_redis(url_of(nodes)) as redis:
        sessions, logs = Sessions(redis), RunLogs(redis)
        names = [f"{index}" for index in range(100)]
        await keep_sessions(redis, names)
        said: set[str] = set()
        over = asyncio.Event()

        async def keep_asking(name: str) -> None:
            entries = [Entry(f"{name}.{number}", 1, 0, 1, [b"x"]) for number in range(5)]
            while not over.is_set():
                try:
                    await sessions.exists(name)
                    await logs.append(entries)
                except OperationError as error:
                    assert error.kind is STORAGE_UNAVAILABLE
                    said.add(type(error.__cause__).__name__)
                    await asyncio.sleep(0.02)

        async def was_noticed() -> bool:
            # First the node is away, then the others notice and refuse what is theirs too.
            return {"ConnectionError", "ClusterDownError"} <= said

        async with asyncio.TaskGroup() as callers:
            for name in names:
                callers.create_task(keep_asking(name))
            await nodes[1].kill()
            await until(was_noticed)
            await nodes[1].start()
            await becomes_available(redis)
            over.set()


@pytest.mark.slow
async def test_a_new_master_is_found_when_the_old_one_dies(sentinels: Watched) -> None:
    async with open_redis(sentinels.url) as redis:
        await keep_sessions(redis, ["before"])
        old = await sentinels.master()
        await old.kill()
        began = time.monotonic()
        await becomes_available(redis)
        assert time.monotonic() - began < PATIENCE_S
        assert await sentinels.master() is not old
        # The old one comes back as a replica, and its replica is what a careful master waits for.
        await old.start()
        master = await sentinels.master()
        await master.run("CONFIG", "SET", "min-replicas-to-write", 2)
        with pytest.raises(OperationError) as refused:
            await Sessions(redis).create(StoredSession("few", "u", "o", None, b""), 60)
        assert refused.value.kind is STORAGE_UNAVAILABLE
        await master.run("CONFIG", "SET", "min-replicas-to-write", 0)


@pytest.mark.slow
async def test_a_master_that_was_demoted_is_left(sentinels: Watched) -> None:
    async with open_redis(sentinels.url) as redis:
        old = await sentinels.master()
        await keep_sessions(redis, ["before"])

        async def is_possible() -> bool:
            try:
                await sentinels.sentinels[0].run("SENTINEL FAILOVER", "films")
            except ResponseError:  # no good replica yet
                return False
            return True

        await until(is_possible)

        async def is_moved() -> bool:
            await becomes_available(redis)
            return await sentinels.master() is not old

        await until(is_moved)
        await becomes_available(redis)
