"""Settings: names, aliases, and what is said of wrong ones."""

import stat
from pathlib import Path

import pytest

from wsserver.settings import DASHSCOPE_BASE_URL, Settings, SettingsError, load_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_defaults_need_nothing_to_be_set() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.app_env) == ("127.0.0.1", 8000, "development")
    assert settings.workers == 1
    assert settings.guests_allowed
    assert not settings.json_logs
    assert list(settings.model_servers()) == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "http", "PORT: "),
        ("PORT", "70000", "PORT: "),
        ("WORKERS", "0", "WORKERS: "),
        ("WORKERS", "65", "WORKERS: "),
        ("APP_ENV", "staging", "APP_ENV: "),
        ("LOG_LEVEL", "loud", "LOG_LEVEL: "),
        ("DATABASE_URL", "mysql://x", "DATABASE_URL: must start with postgresql://"),
        ("REDIS_URL", "localhost:6379", "REDIS_URL: must start with redis://"),
        ("JWT_SECRET", "short", "JWT_SECRET: must have at least 32 bytes"),
        ("WECHAT_APPID", "wx1", "WECHAT_APP_SECRET: needed with WECHAT_APPID"),
        ("WECHAT_MSG_SEC_CHECK", "true", "WECHAT_APPID: needed with WECHAT_MSG_SEC_CHECK"),
        ("WECHAT_MSG_SEC_CHECK_REVIEW", "maybe", "WECHAT_MSG_SEC_CHECK_REVIEW: "),
        ("WECHAT_MSG_SEC_CHECK_OUTAGE", "closed", "WECHAT_MSG_SEC_CHECK_OUTAGE: "),
        ("CORS_ORIGINS", "https://a.example,*", "CORS_ORIGINS: '*' is no origin"),
        ("CORS_ORIGINS", "https://a.example/path", "CORS_ORIGINS: 'https://a.example/path' is no origin"),
        ("LLM_BASE_URL", "model.example", "LLM_BASE_URL: 'model.example' is no http(s) address"),
        ("LLM_BASE_URL", "http://model.example/v1", "LLM_MODEL: needed with LLM_BASE_URL"),
        ("LLM_EXTRA_BODY", "[1]", "LLM_EXTRA_BODY: "),
        ("QWEN_API_KEY", "钥匙", "LLM_API_KEY or QWEN_API_KEY: "),
        ("TMDB_API_BASE", "api.tmdb.org", "TMDB_API_BASE: 'api.tmdb.org' is no http(s) address"),
        ("TMDB_API_TOKEN", "eyJ hbG", "TMDB_API_TOKEN: has characters"),
        ("TMDB_API_KEY", "钥匙", "TMDB_API_KEY: has characters"),
        ("TMDB_REQUESTS_PER_S", "0", "TMDB_REQUESTS_PER_S: "),
        ("TMDB_LANGUAGE", "Chinese", "TMDB_LANGUAGE: "),
        ("TMDB_REFRESH_CRON", "daily", "TMDB_REFRESH_CRON: 'daily' is no cron expression of five fields"),
        ("TMDB_REFRESH_CRON", "0 0 4 * * *", "TMDB_REFRESH_CRON: '0 0 4 * * *' is no cron expression of five fields"),
        ("TMDB_REFRESH_CRON", "0 25 * * *", "TMDB_REFRESH_CRON: '0 25 * * *' is no cron expression: Bad hour"),
        ("TMDB_REFRESH_CRON", "0 4 * * *", "TMDB_API_TOKEN or TMDB_API_KEY: needed with TMDB_REFRESH_CRON"),
        ("TMDB_REFRESH_PAGES", "501", "TMDB_REFRESH_PAGES: "),
        ("ENRICHMENT_ENABLE", "true", "TMDB_API_TOKEN or TMDB_API_KEY: needed with ENRICHMENT_ENABLE"),
        ("PUBLIC_URL", "cinema.example.com", "PUBLIC_URL: 'cinema.example.com' is no http(s) address"),
        ("PUBLIC_URL", "https://cinema.example.com/app", "PUBLIC_URL: must be scheme://name without a path"),
        ("ROLL_UP_MS", "-1", "ROLL_UP_MS: "),
        ("SSE_HEARTBEAT_S", "0", "SSE_HEARTBEAT_S: "),
    ],
)
def test_a_wrong_value_is_said_with_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as wrong:
        load_settings()
    assert said in str(wrong.value)


def test_a_wrong_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "hunter2")
    with pytest.raises(SettingsError) as wrong:
        load_settings()
    assert "hunter2" not in str(wrong.value)


def test_production_needs_wechat_and_a_secret_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    with pytest.raises(SettingsError) as wrong:
        load_settings()
    assert "WECHAT_APPID: needed when APP_ENV=production" in str(wrong.value)
    assert "JWT_SECRET: needed when APP_ENV=production" in str(wrong.value)
    monkeypatch.setenv("WECHAT_APPID", "wx1")
    monkeypatch.setenv("WECHAT_APP_SECRET", "s")
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    settings = load_settings()
    assert not settings.guests_allowed
    assert settings.json_logs


@pytest.mark.parametrize(("format_", "as_json"), [("json", True), ("text", False), ("human", False), ("", False)])
def test_logs_are_for_machines_or_for_people_as_log_format_says(
    monkeypatch: pytest.MonkeyPatch, format_: str, as_json: bool
) -> None:
    monkeypatch.setenv("LOG_FORMAT", format_)
    assert load_settings().json_logs is as_json


def test_an_empty_value_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "DATABASE_URL", "LLM_BASE_URL", "JWT_SECRET", "WECHAT_APPID"):
        monkeypatch.setenv(name, "")
    assert load_settings().port == 8000


def test_a_dotenv_file_is_read_and_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=9001\nHOST=0.0.0.0\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("PORT", "9002")
    settings = load_settings()
    assert (settings.port, settings.host) == (9002, "0.0.0.0")


def test_older_names_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://a/b")
    monkeypatch.setenv("QWEN_API_KEY", "sk-1")
    monkeypatch.setenv("QWEN_MODEL", "qwen-max")
    settings = load_settings()
    assert settings.database_url == "postgresql://a/b"
    (server,) = settings.model_servers()
    assert (server.base_url, server.api_key, server.model) == (DASHSCOPE_BASE_URL, "sk-1", "qwen-max")


def test_several_models_are_asked_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_BASE_URL", "http://a.example/v1, http://b.example/v1/")
    monkeypatch.setenv("LLM_MODEL", "one,two")
    monkeypatch.setenv("LLM_API_KEY", "key")
    monkeypatch.setenv("LLM_EXTRA_BODY", '{"enable_thinking": false}')
    first, second = load_settings().model_servers()
    assert (first.base_url, first.model, first.api_key) == ("http://a.example/v1", "one", "key")
    assert (second.base_url, second.model, second.api_key) == ("http://b.example/v1", "two", "key")
    assert second.extra_body == {"enable_thinking": False}
    monkeypatch.setenv("LLM_MODEL", "one,two,three")
    with pytest.raises(SettingsError, match="LLM_MODEL"):
        load_settings()


@pytest.mark.parametrize("name", ["TMDB_API_TOKEN", "TMDB_API_KEY"])
def test_films_are_fetched_with_either_credential_of_tmdb(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert not load_settings().enrichment_enable
    monkeypatch.setenv("ENRICHMENT_ENABLE", "true")
    monkeypatch.setenv(name, "eyJhbGciOiJIUzI1NiJ9.e30.x-_")
    settings = load_settings()
    assert settings.enrichment_enable
    assert (settings.tmdb_api_base, settings.tmdb_language) == ("https://api.themoviedb.org", "zh-CN")


def test_the_secret_of_development_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    settings = load_settings()
    secret = settings.signing_secret()
    assert len(secret) >= 32
    assert load_settings().signing_secret() == secret
    kept = tmp_path / ".data" / "jwt_secret"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_secrets_do_not_show_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JWT_SECRET", "LLM_API_KEY", "QWEN_API_KEY", "WECHAT_APP_SECRET", "TMDB_API_TOKEN", "TMDB_API_KEY"):
        monkeypatch.setenv(name, "hush-hush-hush-hush-hush-hush-hush")
    settings = load_settings()
    assert "hush" not in repr(settings)
    assert "hush" not in repr(settings.model_servers())


def test_the_example_file_documents_every_setting() -> None:
    documented = {
        line.lstrip("# ").partition("=")[0]
        for line in (ROOT / ".env.example").read_text().splitlines()
        if "=" in line and line.lstrip("# ").partition("=")[0].isupper()
    }
    named = {name.upper() for name in Settings.model_fields}
    assert named | {"POSTGRES_DSN"} == documented
