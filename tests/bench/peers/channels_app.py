"""Django Channels on daphne, with `AsyncJsonWebsocketConsumer` (the standard library's JSON)."""

import sys
from typing import Any

import django
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from daphne.cli import CommandLineInterface
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

from tests.bench.peers.answers import reply, stream
from tests.bench.scripted_model import ScriptedModel

if not settings.configured:
    settings.configure(INSTALLED_APPS=["daphne", "channels"], ALLOWED_HOSTS=["*"], SECRET_KEY="a bench has none")
    django.setup()
model = ScriptedModel()


class Talk(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # untyped
    async def receive_json(self, content: dict[str, Any], **kwargs: Any) -> None:
        if content["type"] == "chat":
            async for frame in stream(model, content):
                await self.send_json(frame)
        else:
            await self.send_json(reply(content))


application = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter([path("ws", Talk.as_asgi())])})

if __name__ == "__main__":
    CommandLineInterface().run(["-v", "0", "-p", sys.argv[1], "tests.bench.peers.channels_app:application"])
