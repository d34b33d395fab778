"""What the fault tests share: a scripted model, databases of their own, and a way to say what was counted."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storage.embedded import Services
from tests.databases import fresh_database
from tests.faults.model import ScriptedModel, scripted_model


@dataclass(frozen=True, slots=True)
class Ground:
    """Where nodes may be started: `folder` is theirs, and so is the database."""

    folder: Path
    database_url: str
    redis_url: str
    model: ScriptedModel


@pytest.fixture(scope="session")
async def scripted() -> AsyncIterator[ScriptedModel]:
    """One model process for all tests: no two of them ask the same."""
    async with scripted_model() as model:
        yield model


@pytest.fixture
async def ground(
    services: Services, data_dir: Path, scripted: ScriptedModel, request: pytest.FixtureRequest
) -> AsyncIterator[Ground]:
    assert services.database_url is not None
    assert services.redis_url is not None
    # Nodes that share a database take over each other's runs: those of one test are among themselves.
    async with fresh_database(services.database_url) as database_url:
        yield Ground(data_dir / request.node.name, database_url, services.redis_url, scripted)


Table = Callable[..., None]


@pytest.fixture
def table(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Table:
    """Say what was counted, whether the test fails or not."""

    def say(**figures: Any) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}")
            for name, value in figures.items():
                print(f"  {name.replace('_', ' '):<24}{f'{value:.1f}' if isinstance(value, float) else value}")

    return say
