"""Conversations among a million messages: lists, pages and search over the socket; storing; building a prompt."""

import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from protocol.conversations import ListPosition
from storage.accounts import Sessions
from storage.chat import Conversations, Place
from storage.embedded import Services, embedded_services
from storage.ownership import RunTable
from storage.postgres import Postgres
from storage.redis import HISTORY, Redis, open_redis, ping
from storage.schema import migrate
from tests.bench.messages import LONG, LONG_EXCHANGES, fill
from tests.bench.served import Ask, milliseconds, one_by_one, server
from tests.clients import socket_client
from wsserver.auth import Authenticator
from wsserver.domains.model_answers import newest
from wsserver.vendors.llm import Turn
from wsserver.vendors.wechat import LocalLogin

MESSAGES, CONVERSATIONS = 1_000_000, 20_000

CODE = "bench-conversations-{}"
"""What the users log in with who have the most conversations."""

USERS = 3

ONE_BY_ONE = 500
"""Of each kind, each beside a ping: the 99th percentile is the fifth slowest."""

CHARACTERS = 24_000
"""The default of LLM_HISTORY_CHARACTERS."""

QUESTION = "推荐三部诺兰导演的电影"
ANSWER = "诺兰的电影里，最值得先看的三部是这些。" * 15


@dataclass(frozen=True, slots=True)
class Talks:
    """What there is to read: of the first user, who has the most and the longest."""

    postgres: Postgres
    redis: Redis
    user_id: str
    long: list[UUID]
    deep_messages: list[str]
    deep_cursors: list[str]


async def user_of(redis: Redis, code: str) -> str:
    """Who a server with the local login takes this code's user for."""
    authenticator = Authenticator(
        sessions=Sessions(redis),
        exchange=LocalLogin(),
        appid="local",
        secret="of no session that anybody goes on with",
        token_ttl_s=60,
        guests_allowed=False,
    )
    caller, _ = await authenticator.log_in(code)
    return caller.user_id


@asynccontextmanager
async def _filled(messages: int, conversations: int) -> AsyncIterator[tuple[Services, Talks]]:
    """Services with that many generated messages.

    BENCH_DATA names a folder that is kept, for measuring again without filling it again.
    """
    async with AsyncExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="cinewire-conversations-"))
        folder = Path(os.environ.get("BENCH_DATA", temporary))
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        services = stack.enter_context(embedded_services(folder / "services"))
        assert services.database_url is not None
        assert services.redis_url is not None
        await migrate(services.database_url)
        postgres = await stack.enter_async_context(Postgres.open(services.database_url, size=4))
        redis = await stack.enter_async_context(open_redis(services.redis_url))
        users = [await user_of(redis, CODE.format(number)) for number in range(USERS)]
        async with postgres.connection() as connection:
            there = await connection.fetchval("SELECT count(*) FROM chat.conversations")
        if there < conversations:
            started = time.perf_counter()
            await fill(services.database_url, users, conversations=conversations, messages=messages)
            print(f"{messages} messages made in {time.perf_counter() - started:.0f} s", flush=True)
        yield services, await _talks(postgres, redis, users[0])


async def _talks(postgres: Postgres, redis: Redis, user_id: str) -> Talks:
    async with postgres.connection() as connection:
        long = await connection.fetch(
            """
            SELECT conversation_id AS id FROM chat.messages JOIN chat.conversations
                ON conversations.id = conversation_id
            WHERE user_id = $1 GROUP BY conversation_id ORDER BY count(*) DESC LIMIT $2
            """,
            user_id,
            LONG,
        )
        ids = [row["id"] for row in long]
        deep = await connection.fetch(
            """
            SELECT id FROM (
                SELECT id, row_number() OVER (PARTITION BY conversation_id ORDER BY position) AS number
                FROM chat.messages WHERE conversation_id = ANY($1) AND chosen
            ) AS numbered WHERE number BETWEEN 100 AND 1000
            """,
            ids,
        )
        listed = await connection.fetch(
            """
            SELECT updated_at, id FROM chat.conversations WHERE user_id = $1 AND deleted_at IS NULL
            ORDER BY updated_at DESC, id DESC OFFSET 800 LIMIT 100
            """,
            user_id,
        )
    cursors = [ListPosition(row["updated_at"], row["id"]).cursor() for row in listed]
    return Talks(postgres, redis, user_id, ids, [str(row["id"]) for row in deep], cursors)


def _asks(talks: Talks, conversation_of: dict[str, str]) -> dict[str, Ask]:
    def long(pick: random.Random) -> str:
        return str(pick.choice(talks.long))

    def deep(kind: str, limit: int) -> Ask:
        def ask(pick: random.Random) -> dict[str, object]:
            before = pick.choice(talks.deep_messages)
            return {"type": kind, "conversation_id": conversation_of[before], "before": before, "limit": limit}

        return ask

    def newest_of(kind: str, limit: int) -> Ask:
        return lambda pick: {"type": kind, "conversation_id": long(pick), "limit": limit}

    return {
        "conversation_list, first 20": lambda _pick: {"type": "conversation_list"},
        "conversation_list, first 100": lambda _pick: {"type": "conversation_list", "limit": 100},
        "conversation_list, after 850": lambda pick: {
            "type": "conversation_list",
            "before": pick.choice(talks.deep_cursors),
        },
        **{
            f"{kind}, {where} {limit}": page(kind, limit)
            for kind in ("history", "conversation_get")
            for where, page, limit in (("newest", newest_of, 50), ("deep", deep, 50), ("deep", deep, 200))
        },
        "conversation_search, common": lambda pick: {"type": "conversation_search", "query": pick.choice("的一是在")},
        "conversation_search, nowhere": lambda pick: {"type": "conversation_search", "query": f"无处{pick.random()}"},
    }


async def conversations(
    messages: int = int(os.environ.get("BENCH_MESSAGES", str(MESSAGES))), count: int = CONVERSATIONS
) -> None:
    """A million messages in 20,000 conversations: lists, pages, searches; storing a message; building a prompt."""
    async with _filled(messages, count) as (services, talks):
        assert services.database_url is not None
        assert services.redis_url is not None
        async with talks.postgres.connection() as connection:
            rows = await connection.fetch(
                "SELECT id, conversation_id FROM chat.messages WHERE id = ANY($1::uuid[])", talks.deep_messages
            )
        conversation_of = {str(row["id"]): str(row["conversation_id"]) for row in rows}
        limits = dict.fromkeys(("RATE_LIMIT_MESSAGES_PER_S", "RATE_LIMIT_BURST", "SOCKETS_PER_USER"), "1000000")
        async with server(DATABASE_URL=services.database_url, REDIS_URL=services.redis_url, **limits) as (url, process):
            async with socket_client(url) as client:
                await client.login(CODE.format(0))
                for name, ask in _asks(talks, conversation_of).items():
                    _print(name, *await one_by_one(client, ask, ONE_BY_ONE), "pings")
            print(f"resident memory, after           {process.memory_info().rss / 2**20:.0f} MiB")
        await _storing(talks)
        await _prompts(talks)


def _print(name: str, seconds: list[float], beside: list[float], unit: str) -> None:
    ratio = statistics.median(seconds) / statistics.median(beside)
    print(f"{name:32} {milliseconds(seconds)}   {ratio:5.1f} {unit} of {milliseconds(beside)}", flush=True)


async def _timed(what: Awaitable[object]) -> float:
    started = time.perf_counter()
    await what
    return time.perf_counter() - started


async def _storing(talks: Talks) -> None:
    """A question with its run, and an answer with its end, in conversations of many users; taken out again.

    Beside them a row that is written and on the disk, which is what most of the time is waited for.
    """
    table = RunTable(talks.postgres)
    async with talks.postgres.connection() as connection:
        picked = await connection.fetch(
            "SELECT id, user_id FROM chat.conversations WHERE deleted_at IS NULL ORDER BY md5(id::text) LIMIT $1",
            ONE_BY_ONE,
        )
    questions, answers, beats = [], [], []
    stored = [uuid4().hex for _ in picked]
    for row, request_id in zip(picked, stored, strict=True):
        beats.append(await _timed(table.beat("bench")))
        questions.append(
            await _timed(
                table.begin(
                    request_id=request_id,
                    user_id=row["user_id"],
                    session_id="bench",
                    client_id=request_id,
                    conversation_id=row["id"],
                    create_conversation=False,
                    request={"query": QUESTION},
                    question=QUESTION,
                    node="bench",
                    enqueue=False,
                )
            )
        )
        answers.append(
            await _timed(
                table.finish(
                    request_id=request_id,
                    epoch=1,
                    state="done",
                    message_id=uuid4(),
                    content=ANSWER,
                    finish_reason="stop",
                    usage=None,
                    recommendations=None,
                )
            )
        )
    async with talks.postgres.connection() as connection:
        await connection.execute("DELETE FROM chat.messages WHERE request_id = ANY($1::text[])", stored)
        await connection.execute("DELETE FROM chat.runs WHERE request_id = ANY($1::text[])", stored)
    await table.leave("bench")
    _print("storing a question", questions[20:], beats[20:], "rows")
    _print("storing an answer", answers[20:], beats[20:], "rows")


async def _prompts(talks: Talks) -> None:
    """What a model is given of a conversation of 2,000 messages: from Redis, and when Redis has nothing of it."""
    async with talks.postgres.connection() as connection:
        ends = await connection.fetch(
            "SELECT conversation_id, max(position) AS newest FROM chat.messages"
            " WHERE conversation_id = ANY($1) AND chosen GROUP BY conversation_id",
            talks.long,
        )
    places = [(row["conversation_id"], Place(row["newest"] + 1, row["newest"])) for row in ends]
    kept = Conversations(talks.postgres, talks.redis, history_characters=CHARACTERS)
    pick = random.Random(1)
    shown: list[int] = []

    async def build(conversation_id: UUID, place: Place) -> None:
        past = await kept.before(conversation_id, place)
        turns = [*(Turn(message.role, message.content) for message in past), Turn("user", "还有呢？")]
        shown.append(len(newest(turns, CHARACTERS)))

    for name in ("Redis", "PostgreSQL"):
        built, pings = [], []
        for _ in range(ONE_BY_ONE + 20):
            conversation_id, place = pick.choice(places)
            if name == "PostgreSQL":
                await talks.redis.delete(HISTORY(str(conversation_id)))
            pings.append(await _timed(ping(talks.redis) if name == "Redis" else talks.postgres.ping()))
            built.append(await _timed(build(conversation_id, place)))
        _print(
            f"prompt of {2 * LONG_EXCHANGES}, {name}", built[20:], pings[20:], "PING" if name == "Redis" else "SELECT 1"
        )
    print(f"turns of a prompt                {statistics.median(shown):.0f}")
