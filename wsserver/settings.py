"""Settings, from the environment and `.env`. A wrong value stops the start with the name of its variable."""

import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from storage.redis_url import parse_redis_url
from wsserver.cron import next_time
from wsserver.vendors.llm import ModelServer

DASHSCOPE_BASE_URL = "https://dashscope.aliyuncs.com/compatible-mode/v1"
"""Alibaba's OpenAI-compatible address in Beijing; other regions have their own and need LLM_BASE_URL."""

QWEN_DEFAULT_MODEL = "qwen-plus"

MIN_SECRET_BYTES = 32
"""HS256 wants a key as long as its hash (RFC 7518 §3.2)."""

NEO4J_SCHEMES = ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc")


class SettingsError(Exception):
    """One line per wrong variable, each with its name."""


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


class Settings(BaseSettings):
    """Field `x_y` is the environment's `X_Y`. An empty value is as good as none."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """0 takes any free port, which the start prints."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that serve; one per core is as many as help."""
    data_dir: Path = Path(".data")
    app_env: Literal["development", "production"] = "development"
    log_format: Literal["text", "human", "json"] | None = None
    """Text for people in development, JSON in production. `human` is an older name of `text`."""
    otel_exporter_otlp_endpoint: str | None = None
    """Where traces are told, by OTLP over HTTP; /v1/traces is added."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    public_url: str | None = None
    """What clients connect to, https://name; only `run.py doctor` looks at it."""

    database_url: Annotated[str | None, Field(validation_alias=AliasChoices("database_url", "postgres_dsn"))] = None
    redis_url: str | None = None

    jwt_secret: SecretStr | None = None
    token_ttl_s: Annotated[int, Field(ge=60, le=7 * 86_400)] = 7 * 86_400
    """A week: a mini program opened on weekends stays logged in."""
    allow_guests: bool | None = None
    """Yes in development, no in production."""
    cors_origins: Annotated[list[str], NoDecode] = []

    wechat_appid: str | None = None
    wechat_app_secret: SecretStr | None = None
    wechat_api_base: str = "https://api.weixin.qq.com"
    wechat_msg_sec_check: bool = False
    """Whether WeChat checks what its users ask and are answered."""
    wechat_msg_sec_check_review: Literal["pass", "refuse"] = "pass"
    """Of what WeChat wants a person to look at: nobody sits here to do it, and most of it is harmless."""
    wechat_msg_sec_check_outage: Literal["pass", "refuse"] = "pass"
    """Of what could not be checked. Answers are seen by who asked alone, and most models' vendors check them too: a bad
    hour of WeChat's need not be everybody's."""

    llm_base_url: Annotated[list[str], NoDecode] = []
    llm_api_key: Annotated[list[SecretStr], NoDecode] = []
    llm_model: Annotated[list[str], NoDecode] = []
    llm_extra_body: dict[str, Any] = {}
    llm_history_characters: Annotated[int, Field(ge=1_000, le=400_000)] = 24_000
    """Of the conversation in a prompt, its question among them: about 16,000 tokens of Chinese, half of the context of
    a small model of today. At most what fills a large one: each conversation that goes on keeps as much in Redis."""
    llm_titles: bool = True
    """Whether the model is asked, for five seconds at most, what a new conversation shall be called."""
    qwen_api_key: SecretStr | None = None
    qwen_model: str | None = None
    system_prompt: str | None = None

    tmdb_api_token: SecretStr | None = None
    tmdb_api_key: SecretStr | None = None
    tmdb_api_base: str = "https://api.themoviedb.org"
    tmdb_requests_per_s: Annotated[float, Field(ge=0.1, le=1000)] = 20.0
    """Of all nodes together. TMDB throttles at about 40; a mirror of one's own may take more."""
    tmdb_language: Annotated[str, Field(pattern="^[a-z]{2}(-[A-Z]{2})?$")] = "zh-CN"
    enrichment_enable: bool = False
    enrichment_extraction: bool = True
    """Whether the model is asked, for two seconds at most, what the rules did not understand in a question."""
    tmdb_refresh_cron: str | None = None
    """Five fields, in UTC."""
    tmdb_refresh_pages: Annotated[int, Field(ge=1, le=500)] = 5

    neo4j_uri: str | None = None
    neo4j_user: str = "neo4j"
    neo4j_password: SecretStr | None = None
    neo4j_database: str | None = None
    """The server's default one."""

    rate_limit_messages_per_s: Annotated[float, Field(gt=0)] = 20.0
    rate_limit_burst: Annotated[int, Field(ge=1)] = 40
    rate_limit_chats_per_min: Annotated[int, Field(ge=1)] = 10
    """Of one user, on all nodes together; so are the next ones, of one address."""
    rate_limit_logins_per_min: Annotated[int, Field(ge=1)] = 30
    rate_limit_guest_chats_per_min: Annotated[int, Field(ge=1)] = 30
    rate_limit_sockets_per_min: Annotated[int, Field(ge=1)] = 120
    rate_limit_loopback: bool = False
    """Addresses of this machine are a proxy's that says nothing about its clients, or a developer's."""
    sockets_per_user: Annotated[int, Field(ge=1)] = 5
    """As many as WeChat lets one mini program have."""
    login_deadline_s: Annotated[float, Field(gt=0)] = 60.0
    silence_timeout_s: Annotated[float, Field(gt=0)] = 75.0
    roll_up_ms: Annotated[int, Field(ge=0, le=1000)] = 40
    """Later pieces of an answer leave at most this often; 40 ms is 25 a second, as smooth as an eye asks for.

    On a busy node they leave less often (`roll_up.py`); with 0 each leaves by itself.
    """
    run_deadline_s: Annotated[float, Field(gt=0)] = 300.0
    """An answer that takes five minutes is stuck."""
    sse_heartbeat_s: Annotated[float, Field(gt=0)] = 15.0
    """Proxies commonly cut a response that is silent for 60 s, some for 30 s."""
    drain_timeout_s: Annotated[float, Field(ge=0)] = 30.0

    @field_validator("cors_origins", "llm_base_url", "llm_api_key", "llm_model", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return _comma_separated(value)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            parts = urlsplit(origin)
            if origin == "null":  # what browsers say of pages that were opened as files
                continue
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
                raise ValueError(
                    f"{origin!r} is no origin; write scheme://host[:port], for example https://example.com"
                )
        return origins

    @field_validator("llm_base_url")
    @classmethod
    def _base_urls(cls, urls: list[str]) -> list[str]:
        return [_http_url(url) for url in urls]

    @field_validator("public_url")
    @classmethod
    def _public_url(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(_http_url(url)).path:
            raise ValueError("must be scheme://name without a path")
        return None if url is None else _http_url(url)

    @field_validator("wechat_api_base", "tmdb_api_base", "otel_exporter_otlp_endpoint")
    @classmethod
    def _vendor_base(cls, url: str | None) -> str | None:
        return None if url is None else _http_url(url)

    @field_validator("tmdb_api_token", "tmdb_api_key")
    @classmethod
    def _fit_for_a_header(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not re.fullmatch("[!-~]+", secret.get_secret_value()):
            raise ValueError("has characters that no credential of TMDB has")
        return secret

    @field_validator("tmdb_refresh_cron")
    @classmethod
    def _cron(cls, expression: str | None) -> str | None:
        if expression is not None:
            next_time(expression, datetime.now(UTC))
        return expression

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, url: str | None) -> str | None:
        if url is not None and urlsplit(url).scheme not in ("postgresql", "postgres"):
            raise ValueError("must start with postgresql://")
        return url

    @field_validator("neo4j_uri")
    @classmethod
    def _neo4j_uri(cls, uri: str | None) -> str | None:
        if uri is not None and (urlsplit(uri).scheme not in NEO4J_SCHEMES or not urlsplit(uri).hostname):
            raise ValueError(f"must be an address that starts with one of {', '.join(NEO4J_SCHEMES)}, then ://")
        if uri is not None and "@" in urlsplit(uri).netloc:
            raise ValueError("must not hold user and password: they are NEO4J_USER and NEO4J_PASSWORD")
        return uri

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, url: str | None) -> str | None:
        if url is not None:
            parse_redis_url(url)
        return url

    @field_validator("jwt_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"must have at least {MIN_SECRET_BYTES} bytes")
        return secret

    @model_validator(mode="after")
    def _whole(self) -> "Settings":
        wrong = self._wrong_of_wechat()
        if self.app_env == "production":
            if not self.wechat_appid:
                wrong.append("WECHAT_APPID: needed when APP_ENV=production; the local login accepts anybody")
            if not self.jwt_secret:
                wrong.append("JWT_SECRET: needed when APP_ENV=production; make one with `openssl rand -hex 32`")
        if self.llm_base_url and not self.llm_model:
            wrong.append("LLM_MODEL: needed with LLM_BASE_URL")
        if self.enrichment_enable and not (self.tmdb_api_token or self.tmdb_api_key):
            wrong.append("TMDB_API_TOKEN or TMDB_API_KEY: needed with ENRICHMENT_ENABLE")
        if self.tmdb_refresh_cron and not (self.tmdb_api_token or self.tmdb_api_key):
            wrong.append("TMDB_API_TOKEN or TMDB_API_KEY: needed with TMDB_REFRESH_CRON")
        for name, values in (("LLM_MODEL", self.llm_model), ("LLM_API_KEY", self.llm_api_key)):
            if len(values) > 1 and len(values) != len(self.llm_base_url):
                wrong.append(f"{name}: give one for all servers or one for each of LLM_BASE_URL")
        if not wrong:
            try:
                self.model_servers()
            except ValueError as error:
                wrong.append(f"LLM_API_KEY or QWEN_API_KEY: {error}")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _wrong_of_wechat(self) -> list[str]:
        wrong = []
        if self.wechat_appid and not self.wechat_app_secret:
            wrong.append("WECHAT_APP_SECRET: needed with WECHAT_APPID")
        if self.wechat_msg_sec_check and not self.wechat_appid:
            wrong.append("WECHAT_APPID: needed with WECHAT_MSG_SEC_CHECK")
        return wrong

    @property
    def guests_allowed(self) -> bool:
        return self.app_env == "development" if self.allow_guests is None else self.allow_guests

    @property
    def json_logs(self) -> bool:
        return self.app_env == "production" if self.log_format is None else self.log_format == "json"

    def model_servers(self) -> Sequence[ModelServer]:
        """The language models to ask, in order; none means that the catalogue assistant answers."""
        servers = []
        for index, base_url in enumerate(self.llm_base_url):
            key = _nth(self.llm_api_key, index)
            model = _nth(self.llm_model, index) or ""
            servers.append(ModelServer(base_url, key.get_secret_value() if key else None, model, self.llm_extra_body))
        if self.qwen_api_key:
            model = self.qwen_model or QWEN_DEFAULT_MODEL
            servers.append(
                ModelServer(DASHSCOPE_BASE_URL, self.qwen_api_key.get_secret_value(), model, self.llm_extra_body)
            )
        return servers

    def signing_secret(self) -> str:
        """JWT_SECRET, or in development one that is made once and kept in DATA_DIR."""
        if self.jwt_secret:
            return self.jwt_secret.get_secret_value()
        path = self.data_dir / "jwt_secret"
        if path.exists():
            return path.read_text()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        # Written whole under another name and then linked, so that two first starts agree on one secret.
        fresh = path.with_name(f"jwt_secret.{os.getpid()}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_hex(MIN_SECRET_BYTES))
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
        return path.read_text()


def _nth(values: Sequence[Any], index: int) -> Any:
    if not values:
        return None
    return values[index] if len(values) > 1 else values[0]


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url!r} is no http(s) address")
    return url.rstrip("/")


def load_settings() -> Settings:
    """Settings of this process. Raises SettingsError, which names each wrong variable."""
    try:
        return Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False, include_input=False):
            text = problem["msg"].removeprefix("Value error, ")
            name = str(problem["loc"][0]).upper() if problem["loc"] else ""
            lines.append(f"{name}: {text}" if name else text)
        raise SettingsError("\n".join(lines)) from None
