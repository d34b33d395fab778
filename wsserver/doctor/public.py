"""PUBLIC_URL as a client would use it: through DNS, certificate and proxy, over HTTP and over a WebSocket."""

import asyncio
from collections.abc import Sequence

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from wsserver.doctor.finding import Finding, ok, warn
from wsserver.settings import Settings

DEADLINE_S = 10.0


async def look_from_outside(settings: Settings) -> Sequence[Finding]:
    """Warnings at most: inside a network its public name often leads nowhere, and the server may be down now."""
    if settings.public_url is None:
        return []
    return await asyncio.gather(_over_http(settings.public_url), _over_socket(settings.public_url))


async def _over_http(url: str) -> Finding:
    what = "HTTP from outside"
    do = "Is the server running? Look at DNS, certificate and proxy: curl -v " + f"{url}/health"
    try:
        async with asyncio.timeout(DEADLINE_S), httpx.AsyncClient(trust_env=True, timeout=DEADLINE_S) as client:
            response = await client.get(f"{url}/health")
    except (httpx.HTTPError, TimeoutError) as error:
        return warn(what, f"{url}/health does not answer: {type(error).__name__}: {error}", do)
    if response.status_code != 200 or '"status"' not in response.text:
        return warn(what, f"{url}/health answers with status {response.status_code} and is not ours", do)
    return ok(what, f"{url}/health answers")


async def _over_socket(url: str) -> Finding:
    what = "WebSocket from outside"
    address = f"ws{url.removeprefix('http')}/wechat/ws"
    do = "Does the proxy pass the Upgrade header on, over HTTP/1.1? See deploy/nginx/nginx.conf."
    try:
        async with asyncio.timeout(DEADLINE_S), connect(address, compression=None) as socket:
            greeting = str(await socket.recv())
    except (OSError, TimeoutError, EOFError, WebSocketException) as error:
        return warn(what, f"{address} cannot be opened: {type(error).__name__}: {error}", do)
    if '"connected"' not in greeting:
        return warn(what, f"{address} is not ours", do)
    return ok(what, f"{address} greets")
