"""Puts together what answers and what knows of films, from the settings: the model, the catalogue, TMDB.

A part of the composition root; what the parts do is their own files' business.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import httpx
import structlog

from storage.budget import Budget
from storage.conversations import ConversationTable
from storage.demo.people import people_in_chinese
from storage.enrichment import EnrichmentLog
from storage.film_marks import FilmMarks
from storage.movies import Movies
from storage.postgres import Postgres
from storage.redis import Redis
from storage.refreshes import Refreshes
from storage.seedings import Seedings
from storage.tmdb_entities import People, TvShows
from wsserver.connections import Storage
from wsserver.domains.answerer import Answerer
from wsserver.domains.assistant.catalogue import CatalogueAssistant
from wsserver.domains.film_extraction import FilmExtraction
from wsserver.domains.film_fetch import FilmFetch
from wsserver.domains.film_knowledge import FilmKnowledge
from wsserver.domains.film_resolver import FilmResolver
from wsserver.domains.model_answers import DEFAULT_SYSTEM_PROMPT, ModelAnswerer
from wsserver.domains.titles import Titles
from wsserver.hub import Hub
from wsserver.news import News
from wsserver.refresh import CONCURRENCY, Keeping, Refresh
from wsserver.seeding import Wanted
from wsserver.settings import Settings
from wsserver.tasks import Tasks
from wsserver.telemetry import VendorCalls
from wsserver.vendors.llm import LanguageModel, ModelServer
from wsserver.vendors.tmdb import Tmdb, TmdbError, TmdbRefusedError

log = structlog.get_logger(__name__)

TMDB_BURST = 20
"""Calls of TMDB at once, a page of films. With 20 a second that is 40 in the first one, which is TMDB's ceiling."""

CATALOGUE_S = 1.5
"""How long a model's answer waits for what the catalogue knows: it takes ten milliseconds, and more only in a storm."""

EXTRACTION_TOKENS = 300
"""Of what a model reads in a question: a valid answer has about a hundred."""

TITLE_TOKENS = 60
"""Of a title that a model makes: a good one has about ten."""


@dataclass(frozen=True, slots=True)
class FilmSource:
    """What asks TMDB: for films by their ids, and for what a name means; None when nothing is to be fetched."""

    fetch: FilmFetch | None = None
    resolver: FilmResolver | None = None


@contextlib.asynccontextmanager
async def film_source(
    settings: Settings, tmdb: Tmdb | None, postgres: Postgres, redis: Redis
) -> AsyncIterator[FilmSource]:
    """What asks TMDB, and its tasks until the block ends."""
    if tmdb is None or not settings.enrichment_enable:
        yield FilmSource()
        return
    async with Tasks().open() as tasks:
        tasks.spawn(_check_tmdb(tmdb), name="checking TMDB's credential")
        language = settings.tmdb_language
        fetch = FilmFetch(tmdb, Movies(postgres), FilmMarks(redis), tasks.spawn, language=language)
        people, shows = People(postgres), TvShows(postgres)
        yield FilmSource(fetch, FilmResolver(tmdb, fetch, people, shows, tasks.spawn, language=language))


async def _check_tmdb(tmdb: Tmdb) -> None:
    try:
        await tmdb.check()
    except TmdbRefusedError as error:
        log.error(
            "TMDB_API_TOKEN or TMDB_API_KEY: TMDB refuses it, and films that the catalogue lacks cannot be fetched",
            status=error.status,
        )
    except TmdbError as error:
        log.warning("TMDB_API_BASE: TMDB does not answer now; films are fetched when it does", outcome=error.outcome)
    else:
        log.info("films that the catalogue lacks are fetched from TMDB")


def has_tmdb(settings: Settings) -> bool:
    return settings.tmdb_api_token is not None or settings.tmdb_api_key is not None


def tmdb_of(settings: Settings, redis: Redis, client: httpx.AsyncClient, calls: VendorCalls) -> Tmdb:
    token, api_key, per_s = settings.tmdb_api_token, settings.tmdb_api_key, settings.tmdb_requests_per_s
    return Tmdb(
        base_url=settings.tmdb_api_base,
        token=token.get_secret_value() if token else None,
        api_key=api_key.get_secret_value() if api_key else None,
        client=client,
        budget=Budget(redis, "tmdb", per_s=per_s, burst=max(1, min(TMDB_BURST, int(per_s)))),
        count=calls("tmdb"),
    )


def refresh_of(settings: Settings, cron: str, storage: Storage, tmdb: Tmdb, node: str) -> Refresh:
    postgres = storage.postgres
    return Refresh(
        tmdb,
        Keeping(Movies(postgres), People(postgres), TvShows(postgres), Seedings(postgres), Refreshes(postgres)),
        # Half of what all nodes may ask, evenly: the other half is always there for who waits for a film.
        Budget(storage.redis, "tmdb-refresh", per_s=settings.tmdb_requests_per_s / 2, burst=1),
        node=node,
        cron=cron,
        wanted=Wanted(pages=settings.tmdb_refresh_pages, language=settings.tmdb_language, concurrency=CONCURRENCY),
    )


def answerer_of(
    settings: Settings,
    client: httpx.AsyncClient,
    postgres: Postgres,
    *,
    resolver: FilmResolver | None,
    hub: Hub,
    calls: VendorCalls,
) -> Answerer:
    servers = settings.model_servers()
    knowledge = FilmKnowledge(
        Movies(postgres),
        people_in_chinese(),
        people=People(postgres),
        resolver=resolver,
        extraction=_extraction(settings, servers, client, calls),
        enrichments=EnrichmentLog(postgres),
        spawn=hub.spawn,
        catalogue_s=CATALOGUE_S if servers else None,
    )
    if not servers:
        log.info("no language model is configured: the catalogue assistant answers")
        return CatalogueAssistant(knowledge)
    # One deadline for the run and for the model: whoever gives answers longer means both.
    model = LanguageModel(servers, client, total_timeout_s=settings.run_deadline_s, count=calls("model"))
    prompt = settings.system_prompt or DEFAULT_SYSTEM_PROMPT
    return ModelAnswerer(model, prompt, knowledge, history_characters=settings.llm_history_characters)


def titles_of(
    settings: Settings, client: httpx.AsyncClient, table: ConversationTable, news: News, calls: VendorCalls
) -> Titles:
    servers = settings.model_servers()
    if not servers or not settings.llm_titles:
        return Titles(table, news)
    return Titles(table, news, LanguageModel(servers, client, max_tokens=TITLE_TOKENS, count=calls("model_titles")))


def _extraction(
    settings: Settings, servers: Sequence[ModelServer], client: httpx.AsyncClient, calls: VendorCalls
) -> FilmExtraction | None:
    if not servers or not settings.enrichment_extraction:
        return None
    as_json = [
        replace(server, extra_body={**server.extra_body, "response_format": {"type": "json_object"}})
        for server in servers
    ]
    model = LanguageModel(as_json, client, max_tokens=EXTRACTION_TOKENS, count=calls("model_extraction"))
    return FilmExtraction(model)
