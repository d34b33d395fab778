"""This server as `run.py` starts it, but for what answers: the scripted model that all Python peers have too.

`python -m tests.bench.cinewire_server`; its settings are environment variables. With LLM_BASE_URL set the real
client of models answers instead.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from tests.bench.scripted_model import ScriptedModel
from wsserver import app
from wsserver.domains.answerer import Answerer, AnswerEvent, Asking
from wsserver.vendors.llm import Finished, TextDelta, Turn

MODULE = "tests.bench.cinewire_server"


class ScriptedAnswerer:
    """The question is how many seconds the answer takes."""

    name = "scripted"

    def __init__(self) -> None:
        self._model = ScriptedModel()

    async def answer(self, turns: Sequence[Turn], asking: Asking) -> AsyncGenerator[AnswerEvent, None]:
        async for texts in self._model.answer(float(turns[-1].content)):
            yield TextDelta("".join(texts))
        yield Finished("stop", None, self.name)


def _scripted(*_parts: object, **_more: object) -> Answerer:
    return ScriptedAnswerer()


_create_subprocess_exec = asyncio.create_subprocess_exec


async def _create_with_the_model(*command: Any, **options: Any) -> asyncio.subprocess.Process:
    """Workers are started as `python -m wsserver.app`: they shall have the scripted model too."""
    return await _create_subprocess_exec(*(MODULE if part == "wsserver.app" else part for part in command), **options)


def main() -> int:
    if "LLM_BASE_URL" not in os.environ:
        vars(app)["answerer_of"] = _scripted
    asyncio.create_subprocess_exec = _create_with_the_model
    return app.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
