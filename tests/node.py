"""Starts servers for tests: the real application on a real uvicorn, on any free port."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.embedded import Services
from wsserver.app import Node, running
from wsserver.serving import listen
from wsserver.settings import Settings


@dataclass(frozen=True, slots=True)
class TestNode:
    """A server under test."""

    __test__ = False

    url: str
    node: Node
    settings: Settings


def settings_for_tests(data_dir: Path, **settings: Any) -> Settings:
    """Settings that come from the test alone, not from this shell or a `.env` that lies about.

    One client in a test asks more in a minute than a person does, and a model is asked only what the test says.
    """
    chosen = {"rate_limit_chats_per_min": 1000, "enrichment_extraction": False, "llm_titles": False, **settings}
    return Settings(_env_file=None, data_dir=data_dir, port=0, **chosen)


@contextlib.asynccontextmanager
async def serving(services: Services, data_dir: Path, **settings: Any) -> AsyncIterator[TestNode]:
    """Serve until the block ends."""
    with listen("127.0.0.1", 0) as listener:
        chosen = settings_for_tests(data_dir, **settings)
        async with running(chosen, listener, services) as node:
            yield TestNode(f"http://127.0.0.1:{node.port}", node, chosen)
