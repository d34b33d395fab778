"""Puts together what has WeChat check contents, from the settings. A part of the composition root."""

import httpx

from storage.accounts import Sessions
from storage.redis import Redis
from storage.wechat_token import SharedToken
from wsserver.domains.content_safety import ContentSafety
from wsserver.hub import Hub
from wsserver.settings import Settings
from wsserver.telemetry import VendorCalls
from wsserver.vendors.wechat_safety import WeChatSafety
from wsserver.vendors.wechat_token import AccessToken


def safety_of(
    settings: Settings, redis: Redis, client: httpx.AsyncClient, *, sessions: Sessions, calls: VendorCalls, hub: Hub
) -> ContentSafety | None:
    """None when nothing is to be checked: chats then cost what they cost without it."""
    if not settings.wechat_msg_sec_check or settings.wechat_appid is None or settings.wechat_app_secret is None:
        return None

    token = AccessToken(
        appid=settings.wechat_appid,
        secret=settings.wechat_app_secret.get_secret_value(),
        base_url=settings.wechat_api_base,
        client=client,
        shared=SharedToken(redis, settings.wechat_appid),
        spawn=hub.spawn,
        count=calls("wechat_token"),
    )
    safety = WeChatSafety(token, base_url=settings.wechat_api_base, client=client, count=calls("wechat_msg_sec_check"))
    return ContentSafety(
        safety,
        sessions,
        refuses_review=settings.wechat_msg_sec_check_review == "refuse",
        refuses_unchecked=settings.wechat_msg_sec_check_outage == "refuse",
    )
