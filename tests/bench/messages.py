"""Generated conversations, and a database full of them: about ten thousand messages a second.

Most are short and some are very long; most people have a few and some have very many. Conversations go on beside each
other, so the messages of one lie far apart, as they do where many people talk. The same seed gives the same ones, but
for when they were had. Their texts mean nothing.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from storage.demo.load import FOLDER
from storage.postgres import Connection, Postgres
from wsserver.progress import Progress, Step

LONG_EXCHANGES, LONG = 1_000, 5
"""The longest conversations have 2,000 messages; that many of them, all the first user's."""

OF_USERS = (1_000, *[300] * 5, *[50] * 50)
"""Conversations of the busiest users; all others have OF_OTHERS each."""

OF_OTHERS = 5

AGAIN = 0.03
"""How many of the questions were answered again: the first answer is kept beside the chosen one."""

AT_ONCE = 500
"""Conversations that go on beside each other."""

COPIED_AT_ONCE = 10_000
"""Messages: some megabytes."""

EVERY = timedelta(seconds=15)
"""Between two exchanges of anybody's: half a million of them take three months."""

TABLE_TIMEOUT_S = 120.0

COLUMNS = (
    *("id", "conversation_id", "role", "content", "created_at", "request_id", "finish_reason", "parent_id", "chosen"),
)

Row = tuple[UUID, UUID, str, str, datetime, str, str | None, UUID | None, bool]


@dataclass(slots=True)
class Talk:
    """A conversation on its way."""

    id: UUID
    left: int
    newest: UUID | None = None


async def fill(dsn: str, users: Sequence[str], *, conversations: int, messages: int, seed: int = 1) -> None:
    """Put generated conversations into a migrated database with COPY; `users` have the most, the first one first."""
    made = _Generator(users, conversations, round(messages / (2 + AGAIN)), seed)
    copied = 0
    async with Postgres.open(dsn, size=1) as postgres, postgres.connection() as connection:
        await connection.copy_records_to_table(
            "conversations", schema_name="chat", columns=("id", "user_id", "title"), records=made.conversations()
        )
        async with Progress(sys.stderr, lambda: Step("messages", copied, messages)).shown():
            batch: list[Row] = []
            for row in made.messages():
                batch.append(row)
                if len(batch) == COPIED_AT_ONCE:
                    await _copy(connection, batch)
                    copied += len(batch)
                    batch.clear()
            await _copy(connection, batch)
        await connection.execute(
            """
            UPDATE chat.conversations SET created_at = said.first_at, updated_at = said.last_at FROM (
                SELECT conversation_id, min(created_at) AS first_at, max(created_at) AS last_at
                FROM chat.messages GROUP BY conversation_id
            ) AS said
            WHERE conversations.id = said.conversation_id
            """,
            timeout=TABLE_TIMEOUT_S,
        )
        await connection.execute("VACUUM ANALYZE chat.conversations, chat.messages", timeout=TABLE_TIMEOUT_S)


async def _copy(connection: Connection, batch: list[Row]) -> None:
    await connection.copy_records_to_table("messages", schema_name="chat", columns=COLUMNS, records=batch)


class _Generator:
    def __init__(self, users: Sequence[str], conversations: int, exchanges: int, seed: int) -> None:
        self._random = random.Random(seed)
        films = [json.loads(line) for line in (FOLDER / "movies.jsonl").read_text("utf-8").splitlines()]
        self._text = "".join(film["overview"] for film in films) + "".join(film["overview_en"] for film in films)
        lengths = self._lengths(conversations, exchanges)
        self._talks = [Talk(self._id(), length) for length in lengths]
        self._users = list(self._owners(users, conversations))

    def _lengths(self, conversations: int, exchanges: int) -> list[int]:
        long = [LONG_EXCHANGES] * LONG
        shares = [self._random.lognormvariate(0, 1.2) for _ in range(conversations - LONG)]
        scale = (exchanges - sum(long)) / sum(shares)
        others = [min(LONG_EXCHANGES, max(1, round(share * scale))) for share in shares]
        others[-1] = max(1, others[-1] + exchanges - sum(long) - sum(others))
        return long + others

    def _owners(self, users: Sequence[str], conversations: int) -> Iterator[str]:
        for number, count in enumerate(OF_USERS):
            yield from [users[number] if number < len(users) else f"wx_busy_{number}"] * count
        for number in range(conversations - sum(OF_USERS)):
            yield f"wx_other_{number // OF_OTHERS}"

    def conversations(self) -> Iterator[tuple[UUID, str, str]]:
        for talk, user_id in zip(self._talks, self._users, strict=True):
            yield talk.id, user_id, self._words(4, 15)

    def messages(self) -> Iterator[Row]:
        waiting = list(self._talks)
        self._random.shuffle(waiting)
        # The longest begin first, or they would go on alone in the end.
        waiting.sort(key=lambda talk: talk.left == LONG_EXCHANGES)
        going = [waiting.pop() for _ in range(min(AT_ONCE, len(waiting)))]
        at = datetime.now(UTC) - EVERY * sum(talk.left for talk in self._talks)
        while going:
            place = self._random.randrange(len(going))
            yield from self._exchange(going[place], at)
            at += EVERY
            if going[place].left:
                continue
            if waiting:
                going[place] = waiting.pop()
            else:
                going[place] = going[-1]
                going.pop()

    def _exchange(self, talk: Talk, at: datetime) -> Iterator[Row]:
        question, run = self._id(), self._id().hex
        yield question, talk.id, "user", self._words(4, 40), at, run, None, talk.newest, True
        if self._random.random() < AGAIN:
            first, first_run = self._id(), self._id().hex
            yield first, talk.id, "assistant", self._answer(), at, first_run, "stop", question, False
        talk.newest = self._id()
        yield talk.newest, talk.id, "assistant", self._answer(), at, run, "stop", question, True
        talk.left -= 1

    def _answer(self) -> str:
        length = min(2_000, 10 + int(self._random.lognormvariate(5, 0.8)))
        return self._words(length, length)

    def _words(self, shortest: int, longest: int) -> str:
        length = self._random.randint(shortest, longest)
        start = self._random.randrange(len(self._text) - length)
        return self._text[start : start + length]

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)
