"""Two nodes that have nobody but each other, for tests of what one begins and the other ends."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.embedded import Services
from tests.databases import fresh_database
from tests.node import TestNode, serving
from tests.standins.llm import LLMStandIn
from tests.standins.server import serve


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes, and the model that both ask."""

    one: TestNode
    two: TestNode
    model: LLMStandIn


@contextlib.asynccontextmanager
async def two_nodes(
    services: Services, data_dir: Path, first: contextlib.AsyncExitStack | None = None, **settings: Any
) -> AsyncIterator[Pair]:
    """Serve until the block ends; `one` as long as `first` is open, where it is given."""
    model = LLMStandIn()
    assert services.database_url is not None
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(model.app))
        database_url = await stack.enter_async_context(fresh_database(services.database_url))
        theirs = Services(database_url, services.redis_url, None)
        given = {"llm_base_url": [f"{url}/v1"], "llm_model": ["stand-in"], "roll_up_ms": 0, **settings}
        two = await stack.enter_async_context(serving(theirs, data_dir, **given))
        one = await (first or stack).enter_async_context(serving(theirs, data_dir, **given))
        yield Pair(one, two, model)
