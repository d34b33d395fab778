"""The vendors that the settings name: whether they are there and take our credentials. Nothing is spent.

A model's list of models costs nothing, nor does TMDB's check of a credential. WeChat is asked to log in a code that
cannot exist: it looks at appid, secret and our address first.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.util import find_spec

import httpx

from protocol import errors
from protocol.errors import OperationError
from storage.embedded import Services
from storage.redis import Redis, open_redis
from storage.wechat_token import SharedToken
from wsserver.doctor.finding import Finding, fail, ok, warn
from wsserver.film_parts import has_tmdb, tmdb_of
from wsserver.settings import Settings
from wsserver.tasks import Tasks
from wsserver.telemetry import CallEnded
from wsserver.tracing import HOW_TO_INSTALL
from wsserver.vendors.llm import ModelServer
from wsserver.vendors.tmdb import TmdbError, TmdbRefusedError
from wsserver.vendors.wechat import WeChat
from wsserver.vendors.wechat_token import AccessToken

DEADLINE_S = 10.0

NO_CODE = "cinewire-doctor"
"""WeChat's own codes have 32 characters."""

NOBODY_HOME = "redis://127.0.0.1:1/0"
"""Where no Redis can be asked what all nodes spend, a budget of one's own holds."""


async def look_at_vendors(settings: Settings, services: Services | None) -> Sequence[Finding]:
    """All of them at once."""
    redis_url = settings.redis_url or (services and services.redis_url) or NOBODY_HOME
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=True, timeout=DEADLINE_S))
        redis = await stack.enter_async_context(open_redis(redis_url))
        found = await asyncio.gather(
            _models(settings, client),
            _wechat(settings, client),
            _tmdb(settings, redis, client),
            _safety(settings, redis, client),
            _traces(settings, client),
        )
    return [finding for each in found for finding in each]


async def _models(settings: Settings, client: httpx.AsyncClient) -> Sequence[Finding]:
    servers = settings.model_servers()
    if not servers:
        return [ok("model", "none is configured: the catalogue assistant answers")]
    return await asyncio.gather(*(_model(server, client) for server in servers))


async def _model(server: ModelServer, client: httpx.AsyncClient) -> Finding:
    what = f"model at {server.host}"
    headers = {"authorization": f"Bearer {server.api_key}"} if server.api_key is not None else {}
    try:
        async with asyncio.timeout(DEADLINE_S):
            response = await client.get(f"{server.base_url.rstrip('/')}/models", headers=headers)
    except (httpx.HTTPError, TimeoutError) as error:
        do = "Is LLM_BASE_URL right, the server up, and the way there open (proxy, firewall)?"
        return fail(what, f"does not answer: {type(error).__name__}", do)
    if response.status_code in (401, 403):
        return fail(what, f"refuses the key: status {response.status_code}", "Set LLM_API_KEY or QWEN_API_KEY anew.")
    if response.status_code >= 500:
        return fail(
            what, f"answers with status {response.status_code}", "It is the vendor's; name a second server too."
        )
    names = _names(response)
    if names is None:
        do = "Ask it something: only a chat shows whether it knows the model."
        return warn(what, f"answers, but has no list of models (status {response.status_code})", do)
    if server.model not in names:
        do = f"Set LLM_MODEL to one of its own: {', '.join(sorted(names)[:10]) or 'it has none'}"
        return warn(what, f"does not list {server.model!r}", do)
    return ok(what, f"takes our key, has {server.model!r}")


def _names(response: httpx.Response) -> set[str] | None:
    try:
        return {str(each["id"]) for each in response.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return None


async def _wechat(settings: Settings, client: httpx.AsyncClient) -> Sequence[Finding]:
    what = "WeChat login"
    if settings.wechat_appid is None or settings.wechat_app_secret is None:
        return [ok(what, "not configured: the local login takes any code")]
    wechat = WeChat(
        appid=settings.wechat_appid,
        secret=settings.wechat_app_secret.get_secret_value(),
        base_url=settings.wechat_api_base,
        client=client,
    )
    try:
        await wechat.code_to_session(NO_CODE)
    except OperationError as error:
        if error.kind is errors.LOGIN_CODE_INVALID:
            return [ok(what, "takes appid and secret")]
        return [_refused_by_wechat(what, error)]
    return [fail(what, "logs in a code that nobody was given", "WECHAT_API_BASE is not WeChat.")]


async def _safety(settings: Settings, redis: Redis, client: httpx.AsyncClient) -> Sequence[Finding]:
    """The token of the checks: the one that the nodes share, or else one that they will share."""
    what = "WeChat content checks"
    if not settings.wechat_msg_sec_check or settings.wechat_appid is None or settings.wechat_app_secret is None:
        return [ok(what, "off")]
    async with Tasks().open() as tasks:
        token = AccessToken(
            appid=settings.wechat_appid,
            secret=settings.wechat_app_secret.get_secret_value(),
            base_url=settings.wechat_api_base,
            client=client,
            shared=SharedToken(redis, settings.wechat_appid),
            spawn=tasks.spawn,
        )
        try:
            await token.get()
        except OperationError as error:
            return [_refused_by_wechat(what, error)]
    return [ok(what, "there is an access token")]


def _refused_by_wechat(what: str, error: OperationError) -> Finding:
    if error.kind is errors.WECHAT_MISCONFIGURED:
        do = "Check WECHAT_APPID and WECHAT_APP_SECRET, and that this host is on the account's IP list (40164)."
        return fail(what, "WeChat refuses us", do)
    if error.kind is errors.WECHAT_QUOTA:
        return warn(what, "the quota is used up", "Wait a minute, or ask WeChat for more.")
    return fail(
        what, f"does not answer: {error.kind.reason}", "Is the way to WECHAT_API_BASE open (DNS, proxy, firewall)?"
    )


async def _tmdb(settings: Settings, redis: Redis, client: httpx.AsyncClient) -> Sequence[Finding]:
    what = "TMDB"
    if not has_tmdb(settings):
        return [ok(what, "not configured: films come from the catalogue alone")]
    try:
        await tmdb_of(settings, redis, client, _uncounted).check()
    except TmdbRefusedError as error:
        return [
            fail(what, f"refuses the credential: status {error.status}", "Set TMDB_API_TOKEN or TMDB_API_KEY anew.")
        ]
    except TmdbError as error:
        do = "Where api.themoviedb.org cannot be reached set TMDB_API_BASE=https://api.tmdb.org"
        return [fail(what, f"does not answer: {error.outcome}", do)]
    return [ok(what, "takes the credential")]


async def _traces(settings: Settings, client: httpx.AsyncClient) -> Sequence[Finding]:
    what, endpoint = "traces", settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        return [ok(what, "off")]
    if find_spec("opentelemetry") is None:
        return [fail(what, "the packages are not here, and the server does not start", HOW_TO_INSTALL)]
    do = "Nobody waits for it and nothing breaks; spans are lost. Is the collector's OTLP/HTTP receiver on (port 4318)?"
    try:
        # No bytes are a whole message without spans.
        headers = {"content-type": "application/x-protobuf"}
        response = await client.post(f"{endpoint}/v1/traces", content=b"", headers=headers)
    except httpx.HTTPError as error:
        return [warn(what, f"the receiver does not answer: {type(error).__name__}", do)]
    if response.status_code != 200:
        return [warn(what, f"the receiver answers with status {response.status_code}", do)]
    return [ok(what, "the receiver takes them")]


def _uncounted(_vendor: str) -> CallEnded:
    return lambda _outcome, _elapsed_s: None
