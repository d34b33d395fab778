"""Questions in conversations that are long already: how long each waits for the first piece of its answer."""

import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from storage.embedded import Services
from storage.postgres import Postgres
from tests.bench.messages import COLUMNS, Row
from tests.bench.records import Record
from tests.bench.servers import Running
from tests.clients import SocketClient, socket_client

QUESTION_S = "0.02"
"""What is asked: an answer of one piece."""

WORDS = "诺兰的电影里，最值得先看的三部是这些。"


async def first_chunks(server: Running, storage: Services, lengths: Sequence[int], *, times: int) -> list[Record]:
    """For each length a conversation of its own, and so many questions in it."""
    assert storage.database_url is not None
    records = []
    async with (
        Postgres.open(storage.database_url, size=1) as postgres,
        socket_client(f"http://127.0.0.1:{server.port}") as client,
    ):
        await client.login("history")
        # The process' very first question prepares statements, which is not what is asked here.
        made = await client.call({"type": "conversation_create"})
        await _first_chunk_ms(client, made["data"]["id"])
        for length in lengths:
            made = await client.call({"type": "conversation_create"})
            conversation_id = made["data"]["id"]
            await _fill(postgres, UUID(conversation_id), length)
            cold, *warm = [await _first_chunk_ms(client, conversation_id) for _ in range(times)]
            records.append(
                {
                    **{"case": "history", "server": server.name, "round": 0, "messages": length, "cold_ms": cold},
                    **{"p50_ms": statistics.median(warm), "slowest_ms": max(warm)},
                }
            )
    return records


async def _first_chunk_ms(client: SocketClient, conversation_id: str) -> float:
    began = time.perf_counter()
    question = {"type": "chat", "query": QUESTION_S, "conversation_id": conversation_id, "stream": True}
    await client.send(question)
    frames = await client.receive_until("chunk", "error")
    first_ms = (time.perf_counter() - began) * 1e3
    assert frames[-1]["type"] == "chunk", frames[-1]
    await client.receive_until("complete")
    return first_ms


async def _fill(postgres: Postgres, conversation_id: UUID, messages: int) -> None:
    """Questions and answers in turn, each the child of the one before."""
    rows: list[Row] = []
    parent: UUID | None = None
    began = datetime.now(UTC) - timedelta(days=30)
    for number in range(messages):
        id_, is_question = uuid4(), number % 2 == 0
        text, at = WORDS * (1 if is_question else 8), began + timedelta(minutes=number)
        role, reason = ("user", None) if is_question else ("assistant", "stop")
        rows.append((id_, conversation_id, role, text, at, uuid4().hex, reason, parent, True))
        parent = id_
    async with postgres.connection() as connection:
        await connection.copy_records_to_table("messages", schema_name="chat", columns=COLUMNS, records=rows)
