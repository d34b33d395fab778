"""Runs in PostgreSQL: which there are, whose they are, which node makes them, and who may take them over.

The rows are the truth of it: a run exists once for the id its client gave it, a conversation is answered once at a
time, and what an owner that lost its run still wants to store is refused by the run's epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from protocol.chat import FinishReason, Message, Recommendations, Usage
from protocol.conversations import Conversation
from protocol.errors import (
    CONVERSATION_BUSY,
    CONVERSATION_NOT_FOUND,
    LOGIN_REQUIRED,
    QUEUE_FULL,
    RUN_NOT_FOUND,
    TOO_MANY_RUNS,
    OperationError,
)
from storage.branches import (
    QUESTION,
    Question,
    Revision,
    find_question,
    revise,
    store_question,
    take_the_place,
    withhold,
)
from storage.chat import MESSAGE_COLUMNS, Place, message_of
from storage.postgres import Connection, Postgres, Record
from storage.users import REFUSED_FOR, WAS_ERASED, hold_user

MAX_RUNS_OF_USER = 3
"""Answers that one user has made at once: a person reads one, and has two more devices."""

MAX_QUEUED = 5
"""Questions that wait in one conversation: more than anybody types while an answer is made."""

RESEND_WINDOW = timedelta(hours=24)
"""How long a message that is sent again leads to the same run."""

KEEP_ENDED = timedelta(days=2)
"""How long the row of an ended run is kept: twice the time that somebody may send its message again."""

INCOGNITO_WINDOW = timedelta(minutes=10)
"""How long anything of an incognito run is kept after it ended: as long as its frames can be resumed."""

State = Literal["queued", "running", "done", "failed"]
Stop = Literal["cancelled", "interrupted"]


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it stands. `request` is what was asked, gone when it ended.

    `nonce` is the guest's whose first answer it is, known where it is begun or its question is sent again.
    """

    request_id: str
    user_id: str
    session_id: str
    client_id: str | None
    conversation_id: UUID | None
    state: State
    epoch: int
    takeovers: int
    place: Place | None
    ended_s_ago: float | None
    request: dict[str, Any] | None = field(repr=False)
    nonce: UUID | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer that is kept. `conversation` is what it is in, as it is now; None when that was deleted meanwhile."""

    id: UUID
    place: Place
    conversation: Conversation | None


class Owned(NamedTuple):
    """A run that a node owns according to the table; `stop` is somebody's wish that it ends.

    A tuple: a busy node reads ten thousand of them a second.
    """

    request_id: str
    epoch: int
    state: State
    stop: Stop | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that is over. `owner_beats`: whether the node that made it lives, and may still be logging its end."""

    row: RunRow
    owner_beats: bool

    @property
    def s_ago(self) -> float:
        return self.row.ended_s_ago or 0.0


_COLUMNS = """request_id, user_id, session_id, client_id, conversation_id, state, epoch, takeovers, position, previous,
    extract(epoch FROM clock_timestamp() - ended_at)::double precision AS ended_s_ago, request"""


class RunTable:
    """Every method raises STORAGE_UNAVAILABLE when PostgreSQL does not answer."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def begin(
        self,
        *,
        request_id: str,
        user_id: str,
        session_id: str,
        client_id: str | None,
        conversation_id: UUID | None,
        create_conversation: bool,
        request: dict[str, Any],
        question: str,
        node: str,
        enqueue: bool,
        revision: Revision | None = None,
    ) -> tuple[RunRow, bool]:
        """Store a question and the run that shall answer it: the run, and whether it was begun by this call.

        Sent again under the same `client_id` it gives the run that there is. Without `conversation_id` (incognito)
        no message is stored. A `revision` is never enqueued. Raises CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND,
        TOO_MANY_RUNS, CONVERSATION_BUSY, QUEUE_FULL, and LOGIN_REQUIRED after the account was deleted.
        """
        async with self._postgres.transaction() as connection:
            # One at a time for each user: the checks below and the row that they are for are then one step.
            await hold_user(connection, user_id)
            found = await _situation(connection, user_id, client_id, conversation_id)
            if found["erased"]:
                raise OperationError(LOGIN_REQUIRED)
            if found["request_id"] is not None:
                if not found["outdated"]:
                    return _run(found), False
                await _give_back(connection, user_id, client_id)
            if conversation_id is not None and not found["theirs"]:
                if found["there"] or not create_conversation:
                    raise OperationError(CONVERSATION_NOT_FOUND)
                await _make_conversation(connection, conversation_id, user_id)
            state = _room(found, enqueue=enqueue)
            place, stores = None, revision is None and conversation_id is not None and state == "running"
            if revision is not None:
                place = await revise(connection, user_id, request_id, question, revision)
            row = await connection.fetchrow(
                f"""
                WITH {QUESTION},
                first AS (
                    UPDATE chat.users SET first_answer = $4
                    WHERE id = $5 AND kind = 'guest' AND first_answer IS NULL AND $2 IS NOT NULL
                    RETURNING nonce
                )
                INSERT INTO chat.runs (
                    request_id, user_id, session_id, client_id, conversation_id, request, state, node,
                    position, previous
                )
                SELECT $4, $5, $6, $7, $2, $8, $9, $10, coalesce($11, question.position),
                    coalesce($12, question.previous)
                FROM (SELECT) AS always LEFT JOIN question ON true
                RETURNING {_COLUMNS}, (SELECT nonce FROM first)
                """,
                uuid4() if stores else None,
                conversation_id,
                question,
                request_id,
                user_id,
                session_id,
                client_id,
                request,
                state,
                node,
                place and place.position,
                place and place.previous,
            )
        return _run(row), True

    async def start_queued(self, node: str) -> list[RunRow]:
        """Make the node's queued runs go whose conversation is free, the oldest of each, and store their questions."""
        try:
            return await self._start_queued(node)
        except asyncpg.UniqueViolationError:
            return []  # another run of the conversation was faster

    async def _start_queued(self, node: str) -> list[RunRow]:
        async with self._postgres.transaction() as connection:
            waiting = await connection.fetch(
                """
                SELECT DISTINCT ON (conversation_id) request_id, conversation_id, request->>'query' AS question
                FROM chat.runs AS queued
                WHERE node = $1 AND state = 'queued' AND NOT EXISTS (
                    SELECT FROM chat.runs AS other
                    WHERE other.conversation_id = queued.conversation_id AND (
                        other.state = 'running'
                        OR other.state = 'queued' AND (other.created_at, other.request_id)
                            < (queued.created_at, queued.request_id)
                    )
                )
                ORDER BY conversation_id, created_at, request_id
                """,
                node,
            )
            started = []
            for row in waiting:
                # The run before its conversation, as everywhere: who deletes the conversation holds its runs first.
                still = await connection.fetchval(
                    """
                    SELECT true FROM chat.runs
                    WHERE request_id = $1 AND conversation_id = $2 AND state = 'queued' FOR UPDATE
                    """,
                    row["request_id"],
                    row["conversation_id"],
                )
                if not still:
                    continue
                place = await store_question(connection, row["conversation_id"], row["request_id"], row["question"])
                started.append(
                    await connection.fetchrow(
                        f"""
                        UPDATE chat.runs SET state = 'running', position = $2, previous = $3
                        WHERE request_id = $1 RETURNING {_COLUMNS}
                        """,
                        row["request_id"],
                        place.position,
                        place.previous,
                    )
                )
        return [_run(row) for row in started]

    async def finish(
        self,
        *,
        request_id: str,
        epoch: int,
        state: Literal["done", "failed"],
        message_id: UUID | None,
        content: str,
        finish_reason: FinishReason,
        usage: Usage | None,
        recommendations: Recommendations | None,
        withhold_question: bool = False,
    ) -> StoredAnswer | None:
        """End a run and, with a `message_id`, store its answer in the same step. None when there was none to store.

        `withhold_question`: it was refused, and no model is told of it again unless it is answered after all.

        Raises RUN_NOT_FOUND when the run is another owner's by now: nothing was changed. Repeated, it gives the same.
        """
        async with self._postgres.transaction() as connection:
            ended = await connection.fetchrow(
                """
                UPDATE chat.runs SET state = $3, ended_at = coalesce(ended_at, now()), request = NULL
                WHERE request_id = $1 AND epoch = $2 AND state IN ('queued', 'running', $3)
                RETURNING conversation_id, position
                """,
                request_id,
                epoch,
                state,
            )
            if ended is None:
                raise OperationError(RUN_NOT_FOUND)
            if withhold_question:
                await withhold(connection, ended["conversation_id"], ended["position"])
            if message_id is None or ended["conversation_id"] is None:
                return None
            row = await connection.fetchrow(
                """
                WITH touched AS (
                    UPDATE chat.conversations SET updated_at = clock_timestamp() WHERE id = $2
                    RETURNING title, created_at, updated_at, deleted_at
                ),
                question AS (
                    SELECT id, request_id FROM chat.messages WHERE conversation_id = $2 AND position = $9
                ),
                stored AS (SELECT FROM chat.messages WHERE request_id = $4 AND role = 'assistant'),
                answer AS (
                    INSERT INTO chat.messages (
                        id, conversation_id, role, content, request_id, finish_reason,
                        prompt_tokens, completion_tokens, recommendations, parent_id
                    )
                    VALUES ($1, $2, 'assistant', $3, $4, $5, $6, $7, $8, (SELECT id FROM question))
                    ON CONFLICT (request_id, role) DO UPDATE SET request_id = excluded.request_id
                    RETURNING id, position
                )
                SELECT answer.id, answer.position, touched.title, touched.created_at, touched.updated_at,
                    NOT EXISTS (SELECT FROM stored) AND (SELECT request_id <> $4 FROM question) AS made_again
                FROM answer LEFT JOIN touched ON touched.deleted_at IS NULL
                """,
                message_id,
                ended["conversation_id"],
                content,
                request_id,
                finish_reason,
                usage and usage.prompt_tokens,
                usage and usage.completion_tokens,
                None if recommendations is None else recommendations.wire()["content"],
                ended["position"],
            )
            assert row is not None  # noqa: S101 (RETURNING after an upsert gives a row)
            if row["made_again"]:
                await take_the_place(connection, row["id"], ended["conversation_id"], after=ended["position"])
        conversation = None
        if row["updated_at"] is not None:
            conversation = Conversation.model_construct(
                id=ended["conversation_id"],
                title=row["title"],
                created_at=row["created_at"],
                updated_at=row["updated_at"],
            )
        return StoredAnswer(row["id"], Place(row["position"], ended["position"]), conversation)

    async def find(self, *, user_id: str, request_id: str) -> RunRow | None:
        """The user's run, None when there is none or it is somebody else's."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                f"SELECT {_COLUMNS} FROM chat.runs WHERE request_id = $1 AND user_id = $2", request_id, user_id
            )
        return None if row is None else _run(row)

    async def ended(self, request_ids: Sequence[str], lease: timedelta) -> list[Ended]:
        """Those of the runs that are over."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"""
                SELECT {_COLUMNS}, EXISTS (
                    SELECT FROM chat.nodes
                    WHERE nodes.id = runs.node AND nodes.beat > clock_timestamp() - $2::interval
                ) AS owner_beats
                FROM chat.runs WHERE request_id = ANY($1::text[]) AND state IN ('done', 'failed')
                """,
                request_ids,
                lease,
            )
        return [Ended(_run(row), row["owner_beats"]) for row in rows]

    async def forgotten(self, request_ids: Sequence[str]) -> list[str]:
        """Those of the runs that there are no more: deleted with their account or conversation, or over for days."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT request_id FROM unnest($1::text[]) AS asked (request_id)
                WHERE NOT EXISTS (SELECT FROM chat.runs WHERE runs.request_id = asked.request_id)
                """,
                request_ids,
            )
        return [row["request_id"] for row in rows]

    async def answer(self, *, user_id: str, request_id: str) -> Message | None:
        """The stored answer of the user's run, however long ago."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                f"""
                SELECT {MESSAGE_COLUMNS}
                FROM chat.messages JOIN chat.conversations ON conversations.id = messages.conversation_id
                WHERE messages.request_id = $1 AND messages.role = 'assistant' AND conversations.user_id = $2
                  AND conversations.deleted_at IS NULL
                """,
                request_id,
                user_id,
            )
        return None if row is None else message_of(dict(row))

    async def question(self, *, user_id: str, message_id: UUID) -> Question:
        """The user's question of this id, or that of the answer of this id. Raises MESSAGE_NOT_FOUND."""
        async with self._postgres.transaction() as connection:
            return await find_question(connection, user_id=user_id, message_id=message_id)

    async def ask_to_stop(
        self, *, user_id: str, request_id: str | None, client_id: str | None, stop: Stop
    ) -> RunRow | None:
        """Note that the user's run shall end, for its owner to see; None when the user has no such run."""
        async with self._postgres.connection() as connection:
            row = await connection.fetchrow(
                f"""
                UPDATE chat.runs SET stop = coalesce(stop, $4)
                WHERE user_id = $1 AND (request_id = $2 OR client_id = $3)
                RETURNING {_COLUMNS}
                """,
                user_id,
                request_id,
                client_id,
                stop,
            )
        return None if row is None else _run(row)

    async def running_in(self, conversation_id: UUID) -> str | None:
        """The request id of the run that is answering in the conversation."""
        async with self._postgres.connection() as connection:
            found: str | None = await connection.fetchval(
                "SELECT request_id FROM chat.runs WHERE conversation_id = $1 AND state = 'running'", conversation_id
            )
        return found

    async def beat(self, node: str) -> None:
        """Say that the node is alive."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                INSERT INTO chat.nodes (id, beat) VALUES ($1, clock_timestamp())
                ON CONFLICT (id) DO UPDATE SET beat = excluded.beat
                """,
                node,
            )

    async def owned(self, node: str) -> list[Owned]:
        """What the node has to make, and which of it somebody wants ended."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                """
                SELECT request_id, epoch, state, stop FROM chat.runs
                WHERE node = $1 AND state IN ('queued', 'running')
                """,
                node,
            )
        return [Owned(*row) for row in rows]

    async def take_over(self, node: str, lease: timedelta, limit: int) -> list[RunRow]:
        """Make runs the node's whose owner has not beaten for the lease, or gave them up."""
        async with self._postgres.connection() as connection:
            rows = await connection.fetch(
                f"""
                WITH lost AS (
                    SELECT request_id FROM chat.runs
                    WHERE state IN ('queued', 'running') AND (node IS NULL OR NOT EXISTS (
                        SELECT FROM chat.nodes
                        WHERE nodes.id = runs.node AND nodes.beat > clock_timestamp() - $2::interval
                    ))
                    LIMIT $3
                    FOR UPDATE SKIP LOCKED
                )
                UPDATE chat.runs SET node = $1, epoch = epoch + 1, takeovers = takeovers + 1
                WHERE request_id IN (SELECT request_id FROM lost)
                RETURNING {_COLUMNS}
                """,
                node,
                lease,
                limit,
            )
        return [_run(row) for row in rows]

    async def hand_over(self, node: str, request_ids: Sequence[str]) -> None:
        """Give up runs of the node: any other may take them at once."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                "UPDATE chat.runs SET node = NULL WHERE node = $1 AND request_id = ANY($2::text[])", node, request_ids
            )

    async def forget(self) -> None:
        """Delete rows that nobody can ask for any more, and nodes that are long dead."""
        async with self._postgres.connection() as connection:
            await connection.execute(
                """
                DELETE FROM chat.runs WHERE request_id IN (
                    SELECT request_id FROM chat.runs
                    WHERE ended_at < now() - $1::interval
                       OR conversation_id IS NULL AND ended_at < now() - $2::interval
                    FOR UPDATE SKIP LOCKED
                )
                """,
                KEEP_ENDED,
                INCOGNITO_WINDOW,
            )
            await connection.execute("DELETE FROM chat.nodes WHERE beat < now() - interval '1 hour'")

    async def leave(self, node: str) -> None:
        """Say that the node is gone, so that nobody waits for its lease to end."""
        async with self._postgres.connection() as connection:
            await connection.execute("DELETE FROM chat.nodes WHERE id = $1", node)


async def _situation(
    connection: Connection, user_id: str, client_id: str | None, conversation_id: UUID | None
) -> Record:
    """All that decides whether a run may begin, in one round trip.

    The run that was begun under the same `client_id`, `outdated` when that is too long ago or its conversation was
    deleted; whether the conversation is there and `theirs`; how many runs are open, and whether the user is erased.
    """
    row = await connection.fetchrow(
        f"""
        SELECT sent.*, opened.*, conversations.id IS NOT NULL AS there,
            coalesce(conversations.user_id = $1 AND conversations.deleted_at IS NULL, false) AS theirs,
            (SELECT nonce FROM chat.users WHERE users.id = $1 AND first_answer = sent.request_id) AS nonce,
            {WAS_ERASED} AS erased
        FROM (
            SELECT count(*) FILTER (WHERE state = 'running') AS running,
                   count(*) FILTER (WHERE state = 'running' AND conversation_id = $3) AS running_here,
                   count(*) FILTER (WHERE state = 'queued' AND conversation_id = $3) AS queued_here
            FROM chat.runs WHERE user_id = $1 AND state IN ('queued', 'running')
        ) AS opened
        LEFT JOIN (
            SELECT {_COLUMNS}, created_at < now() - $5::interval OR conversation_id IN (
                SELECT id FROM chat.conversations WHERE user_id = $1 AND deleted_at IS NOT NULL
            ) AS outdated
            FROM chat.runs WHERE user_id = $1 AND client_id = $4
        ) AS sent ON true
        LEFT JOIN chat.conversations ON conversations.id = $3
        """,
        user_id,
        REFUSED_FOR,
        conversation_id,
        client_id,
        RESEND_WINDOW,
    )
    assert row is not None  # noqa: S101 (an aggregate gives a row)
    return row


async def _give_back(connection: Connection, user_id: str, client_id: str | None) -> None:
    """Take a message's id from the run that it began long ago."""
    await connection.execute(
        "UPDATE chat.runs SET client_id = NULL WHERE user_id = $1 AND client_id = $2", user_id, client_id
    )


async def _make_conversation(connection: Connection, conversation_id: UUID, user_id: str) -> None:
    """Raises CONVERSATION_NOT_FOUND when somebody has just made one of that id."""
    made = await connection.fetchval(
        """
        WITH made AS (
            INSERT INTO chat.conversations (id, user_id) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING
            RETURNING user_id
        ),
        maker AS (
            INSERT INTO chat.users AS known (id) SELECT user_id FROM made
            ON CONFLICT (id) DO UPDATE SET erased_at = NULL WHERE known.erased_at IS NOT NULL
        )
        SELECT true FROM made
        """,
        conversation_id,
        user_id,
    )
    if not made:
        raise OperationError(CONVERSATION_NOT_FOUND)


def _room(found: Record, *, enqueue: bool) -> Literal["running", "queued"]:
    """Whether a new run of the user may go at once or has to wait. Raises when it may do neither."""
    if found["running_here"] or found["queued_here"]:
        if not enqueue:
            raise OperationError(CONVERSATION_BUSY, retry_after_ms=1000)
        if found["queued_here"] >= MAX_QUEUED:
            raise OperationError(QUEUE_FULL, retry_after_ms=1000)
        return "queued"
    if found["running"] >= MAX_RUNS_OF_USER:
        raise OperationError(TOO_MANY_RUNS, retry_after_ms=1000)
    return "running"


def _run(row: Record | None) -> RunRow:
    assert row is not None  # noqa: S101 (its statement gives a row or raises)
    place = None if row["position"] is None else Place(row["position"], row["previous"])
    return RunRow(
        request_id=row["request_id"],
        user_id=row["user_id"],
        session_id=row["session_id"],
        client_id=row["client_id"],
        conversation_id=row["conversation_id"],
        state=row["state"],
        epoch=row["epoch"],
        takeovers=row["takeovers"],
        place=place,
        ended_s_ago=row["ended_s_ago"],
        request=row["request"],
        nonce=row.get("nonce"),
    )
