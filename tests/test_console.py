"""The console, as developers use it: a real browser against a real server. What is checked in it is in tests/console/.

It needs node, npm's packages of console/ and a Chromium; where one is missing the tests are skipped and say which.
With CINEWIRE_REQUIRE_ALL=1 they fail instead. CHROMIUM names a browser that is not on PATH, and with
CINEWIRE_SCREENSHOTS=folder the README's pictures are made anew.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from storage.embedded import Services
from tests.node import TestNode, serving
from tests.parts import INSTALL_S, PARTS, RAN, chromium, node_with
from tests.standins.llm import LLMStandIn, error, fails, gated
from tests.standins.server import Gate, serve

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "console"
BUILT = ROOT / "wsserver" / "contract" / "static" / "console"
PART = "Chromium: console"

BUILD_S = 30.0
CHECKS_S = 90.0
"""All checks take about half a minute on two cores; one that hangs gives up by itself after fifteen seconds."""

SENTENCES = (
    "anybody logs in with any code, and the same code is the same person",
    "who only connects may send what needs no login, and logs in by a message",
    "who logs out is asked for a code again, and its token is gone",
    "a node that restarts is come back to, by the token and when it says",
    "a socket that a newer one replaced does not come back by itself",
    "a session that was revoked is not used again",
    "an answer streams in as it is made",
    "an answer that is cut off is resumed whole, and nothing comes twice",
    "a page that is reloaded in mid-answer goes on with it",
    "a question that is asked before the history is there is neither lost nor doubled",
    "a question that was asked while away is asked on return",
    "an answer is stopped, and what there was of it stays",
    "a question is answered again, and either answer can be looked at",
    "when no other answer comes, the first one is there again",
    "an answer is rated, with a comment",
    "the form has every message of the document, and each example of it is fine",
    "a message made by the form is sent when it keeps to the bounds, and its answer is shown",
    "of two names for an answer exactly one is wanted",
    "raw JSON goes out as it stands, wrong or not",
    "frames of both ways have time and size, are filtered, opened and copied, and tokens are kept back",
    "recommended films have cards; a poster that does not load is drawn",
    "the page speaks the browser's language, and the other when asked",
    "it is dark where the system is, and as it is switched",
    "nothing needs to be scrolled sideways at 375 px",
    "all of it is reached by keyboard, and one sees where one is",
    "axe finds nothing serious, light or dark, wide or narrow",
    "no page has anything to complain about on its console",
)


@dataclass(slots=True)
class Director:
    """Lets the checks say over HTTP what the model answers next, and how much of it is out."""

    model: LLMStandIn
    gates: list[Gate] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        told = {"/plan": self.plan, "/open": self.open, "/fail": self.fail}
        return Starlette(routes=[Route(path, act, methods=["POST"]) for path, act in told.items()])

    async def plan(self, http: Request) -> Response:
        plan, self.gates = gated(*await http.json())
        self.model.queue(plan)
        return Response(status_code=204)

    async def fail(self, _http: Request) -> Response:
        self.model.queue(fails(400, error("invalid_parameter_error")))
        return Response(status_code=204)

    async def open(self, http: Request) -> Response:
        for gate in self.gates[: await http.json()]:
            gate.open()
        return Response(status_code=204)


async def run(*command: str, timeout_s: float, folder: Path = SOURCES, **environment: str) -> tuple[int, str]:
    """The exit code of a command, and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            written, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, f"{' '.join(command)} took more than {timeout_s:.0f} s"
    return process.returncode or 0, written.decode()


@pytest.fixture(scope="module")
def packages() -> None:
    """The packages of console/, as its lock file has them."""
    node_with(PART, SOURCES)


@pytest.fixture(scope="module")
async def told(packages: None, node: TestNode, services: Services, data_dir: Path) -> AsyncIterator[dict[str, str]]:
    """What was wrong with each sentence, by the sentence; nothing is an empty text."""
    browser = chromium(PART)
    model = LLMStandIn()
    director = Director(model)
    async with (
        serve(model.app) as model_url,
        serve(director.app) as director_url,
        serving(
            services, data_dir, llm_base_url=[f"{model_url}/v1"], llm_model=["stand-in"], llm_api_key=["key"]
        ) as answered_by_model,
    ):
        code, written = await run(
            "node",
            str(ROOT / "tests" / "console" / "run.mjs"),
            timeout_s=CHECKS_S,
            CONSOLE_FILMS=node.url,
            CONSOLE_MODEL=answered_by_model.url,
            CONSOLE_DIRECTOR=director_url,
            CONSOLE_CHROMIUM=browser,
            CONSOLE_SCREENSHOTS=os.environ.get("CINEWIRE_SCREENSHOTS", ""),
        )
        reports = [json.loads(line) for line in written.splitlines() if line.startswith('{"name"')]
        assert code == 0, written
        PARTS[PART] = RAN
        yield {report["name"]: report["wrong"] or "" for report in reports}


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_S + CHECKS_S)
@pytest.mark.parametrize("sentence", SENTENCES)
async def test_in_the_console(told: dict[str, str], sentence: str) -> None:
    assert told[sentence] == ""


@pytest.mark.slow
async def test_every_check_of_the_console_is_listed_here(told: dict[str, str]) -> None:
    assert sorted(told) == sorted(SENTENCES)


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_S + 2 * BUILD_S)
async def test_the_page_that_ships_is_what_its_sources_make(packages: None, tmp_path: Path) -> None:
    vite = str(SOURCES / "node_modules" / "vite" / "bin" / "vite.js")
    code, written = await run("node", vite, "build", "--outDir", str(tmp_path / "built"), timeout_s=BUILD_S)
    assert code == 0, written
    made = {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()}
    ships = {path.name: path.read_bytes() for path in BUILT.iterdir()}
    assert made == ships, "run `npm run build` in console/ and commit what it makes"


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_S + 2 * BUILD_S)
async def test_the_types_of_the_page_fit(packages: None) -> None:
    code, written = await run("npm", "run", "--silent", "check", timeout_s=BUILD_S)
    assert code == 0, written


async def test_the_page_has_all_that_it_needs_from_here_but_posters(http: httpx.AsyncClient) -> None:
    page = await http.get("/console")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert [part for part in policy.split() if "://" in part] == ["https://image.tmdb.org;"]
    files = [part.split('"')[0] for part in page.text.replace('src="', 'href="').split('href="')[1:]]
    files.remove("data:,")
    assert len(files) == 2
    for file in files:
        asset = await http.get(f"/{file}")
        assert asset.status_code == 200
        assert "immutable" in asset.headers["cache-control"]
