"""What may not be kept for longer is forgotten, by a running server, and a day on which that fails is not the last."""

import asyncio
import uuid

from protocol.errors import STORAGE_UNAVAILABLE, OperationError
from storage.postgres import Postgres
from storage.watchlist import Watchlist
from tests.clients import PATIENCE_S
from wsserver.housekeeping import keep_house
from wsserver.tasks import Tasks


async def test_what_fails_once_is_tried_again_and_holds_up_nothing() -> None:
    tries, done = 0, asyncio.Event()

    async def fails_once() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OperationError(STORAGE_UNAVAILABLE)
        return 3 if tries == 2 else 0

    async def works() -> int:
        if tries > 1:
            done.set()
        return 0

    async with asyncio.timeout(PATIENCE_S), Tasks().open() as tasks:
        tasks.spawn(keep_house({"first": fails_once, "second": works}, every_s=0.01), name="housekeeping")
        await done.wait()
    assert tries >= 2


async def test_captures_are_forgotten_and_what_they_put_in_stays(postgres: Postgres) -> None:
    user, old, new = f"wx_{uuid.uuid4().hex}", uuid.uuid4(), uuid.uuid4()
    async with postgres.connection() as connection:
        await connection.execute("INSERT INTO watchlist.lists (user_id) VALUES ($1)", user)
        await connection.execute(
            "INSERT INTO watchlist.captures (id, user_id, request_id, captured_at)"
            " VALUES ($1, $3, 'old', now() - interval '31 days'), ($2, $3, 'new', now())",
            old,
            new,
            user,
        )
        await Watchlist(postgres).forget_captures()
        left = await connection.fetch("SELECT id FROM watchlist.captures WHERE user_id = $1", user)
    assert [row["id"] for row in left] == [new]
