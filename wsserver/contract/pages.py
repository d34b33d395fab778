"""Serves the documents, the pages that show them, and the console. Every file that a page needs ships with the project.

None of it holds secrets and all of it is the same for everybody, in production too: whoever writes a client needs it.
How the console is made is in `console/`.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from protocol.operations import OPERATIONS
from storage.movies import POSTER_URL
from wsserver.contract.asyncapi import asyncapi
from wsserver.contract.llms import llms
from wsserver.contract.openapi import openapi
from wsserver.contract.reference import reference
from wsserver.contract.reference_words import LANGUAGES, Language

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

FOR_EVER = "public, max-age=31536000, immutable"
"""A file's address holds a digest of what is in it."""

ASK_EACH_TIME = "no-cache"

REDOC_STYLES = (
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)
"""The inline styles that Redoc 2.5 makes: an empty one, which its script then fills, and that of its scroll bar."""

POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {REDOC_STYLES}; img-src 'self' data:;"
    " connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from anywhere else, and nothing inline but two known styles; Redoc's search runs in a worker."""

REFERENCE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The reference of the socket has a style sheet, and nothing that runs."""
CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data: {0.scheme}://{0.netloc}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
).format(urlsplit(POSTER_URL))
"""The console shows posters, which TMDB alone has; its socket is of this origin too."""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
{styles}
</head>
<body>
<div id="page"></div>
{scripts}
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of a page. `address` is relative to the page."""

    path: Path
    etag: str
    name: str

    @property
    def address(self) -> str:
        return f"docs/static/{self.name}"


@cache
def _asset(file: str) -> Asset:
    path = STATIC / file
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Asset(path, f'"{digest}"', f"{path.stem}.{digest}{path.suffix}")


@cache
def _assets() -> dict[str, Asset]:
    files = (str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.suffix in MEDIA_TYPES)
    return {asset.name: asset for asset in map(_asset, files)}


def contract_routes() -> list[Route]:
    """The routes of the documents and of their pages."""
    return [
        Route("/openapi.json", _document(lambda: to_json(openapi(OPERATIONS)), "application/json")),
        Route("/asyncapi.json", _document(lambda: to_json(asyncapi(OPERATIONS)), "application/json")),
        Route("/llms.txt", _document(lambda: llms(OPERATIONS).encode(), "text/plain")),
        Route("/docs", _page(("swagger-ui.css", "page.css"), ("swagger-ui-bundle.js", "start-swagger.js"))),
        Route("/redoc", _page(("page.css",), ("redoc.standalone.js", "start-redoc.js"))),
        Route("/docs/ws", _reference),
        Route("/console", _page(("console/console.css",), ("console/console.js",), "CineWire console", CONSOLE_POLICY)),
        Route("/docs/static/{name}", _static),
    ]


def _document(make: Callable[[], bytes], media_type: str) -> Callable[[HttpRequest], Any]:
    @cache
    def made() -> tuple[bytes, str]:
        encoded = make()
        return encoded, _etag(encoded)

    async def show(http: HttpRequest) -> Response:
        # Made when first asked for, in a thread: it takes as long as fifty pings.
        encoded, etag = await asyncio.to_thread(made)
        headers = {"ETag": etag, "Cache-Control": ASK_EACH_TIME, "X-Content-Type-Options": "nosniff"}
        if _has(http, etag):
            return Response(status_code=304, headers=headers)
        return Response(encoded, headers=headers, media_type=media_type)

    return show


@cache
def _reference_page(language: Language) -> tuple[bytes, str]:
    encoded = reference(asyncapi(OPERATIONS), language, f"static/{_asset('reference.css').name}").encode()
    return encoded, _etag(encoded)


async def _reference(http: HttpRequest) -> Response:
    encoded, etag = await asyncio.to_thread(_reference_page, _language(http))
    headers = {**_page_headers(REFERENCE_POLICY), "ETag": etag, "Vary": "Accept-Language"}
    if _has(http, etag):
        return Response(status_code=304, headers=headers)
    return Response(encoded, headers=headers, media_type="text/html")


def _language(http: HttpRequest) -> Language:
    """What the address asks for, else the first of the browser's languages that there is (RFC 9110 §12.5.4)."""
    asked = [http.query_params.get("lang", "")]
    weighted = [one.strip().partition(";q=") for one in http.headers.get("accept-language", "").split(",")]
    asked += [name for name, _, _ in sorted(weighted, key=lambda one: -_weight(one[2]))]
    found = (name[:2].lower() for name in asked)
    return next((words.language for name in found if (words := LANGUAGES.get(name)) is not None), "en")


def _weight(said: str) -> float:
    try:
        return float(said or 1)
    except ValueError:
        return 0.0


def _page_headers(policy: str) -> Mapping[str, str]:
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": ASK_EACH_TIME,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def _page(
    styles: tuple[str, ...], scripts: tuple[str, ...], title: str = "CineWire API", policy: str = POLICY
) -> Callable[[HttpRequest], Any]:
    async def show(_http: HttpRequest) -> Response:
        assets = await asyncio.to_thread(lambda: {file: _asset(file).address for file in (*styles, *scripts)})
        page = PAGE.format(
            title=title,
            styles="\n".join(f'<link rel="stylesheet" href="{assets[file]}">' for file in styles),
            scripts="\n".join(f'<script src="{assets[file]}"></script>' for file in scripts),
        )
        return Response(page, headers=_page_headers(policy), media_type="text/html")

    return show


async def _static(http: HttpRequest) -> Response:
    asset = (await asyncio.to_thread(_assets)).get(http.path_params["name"])
    if asset is None:
        raise HTTPException(404)
    headers = {"ETag": asset.etag, "Cache-Control": FOR_EVER, "X-Content-Type-Options": "nosniff"}
    if _has(http, asset.etag):
        return Response(status_code=304, headers=headers)
    return FileResponse(asset.path, headers=headers, media_type=MEDIA_TYPES[asset.path.suffix])


def _etag(encoded: bytes) -> str:
    return f'"{hashlib.sha256(encoded).hexdigest()[:16]}"'


def _has(http: HttpRequest, etag: str) -> bool:
    """Whether the client's copy is this one (RFC 9110 §13.1.2)."""
    asked = http.headers.get("if-none-match", "")
    return any(one.strip().removeprefix("W/") in (etag, "*") for one in asked.split(","))
