"""Everything that a user has: a page of it at a time, and the end of it all."""

import asyncio
import time
from uuid import UUID

from protocol import belongings
from protocol.belongings import DeleteAccount, ExportAccount, ExportPage
from storage.belongings import FIRST, Belongings
from wsserver.auth import Authenticator
from wsserver.dispatch import Call, Handlers
from wsserver.hub import Hub

END_ANSWERS_S = 3.0
"""How long a deletion waits for answers to end: another node hears of it within half a second. Then they are fenced."""

END_ANSWERS_POLL_S = 0.05


def belongings_handlers(owned: Belongings, authenticator: Authenticator, hub: Hub) -> Handlers:
    """Handlers of the operations on a whole account."""
    handlers = Handlers()

    @handlers.on(belongings.ACCOUNT_EXPORT)
    async def export(call: Call, request: ExportAccount) -> ExportPage:
        user_id = call.known_caller.user_id
        profile = None if request.after is not None else await owned.profile(user_id)
        page = await _page(owned, user_id, request.after or f"conversations:{FIRST}")
        return page if profile is None else page.model_copy(update={"profile": profile})

    @handlers.on(belongings.ACCOUNT_DELETE)
    async def delete(call: Call, _request: DeleteAccount) -> None:
        caller = call.known_caller
        give_up_at = time.monotonic() + END_ANSWERS_S
        while (running := await owned.stop_answers(caller.user_id)) and time.monotonic() < give_up_at:
            for request_id in running:
                # Other nodes see it in the table.
                if (run := hub.run(request_id)) is not None:
                    run.stop("cancelled")
            await asyncio.sleep(END_ANSWERS_POLL_S)
        await owned.erase(caller.user_id)
        await authenticator.log_out_everywhere(caller)

    return handlers


async def _page(owned: Belongings, user_id: str, after: str) -> ExportPage:
    section, _, key = after.partition(":")
    if section == "conversations":
        if conversations := await owned.conversations(user_id, UUID(key)):
            last = conversations[-1].id
            return ExportPage.model_construct(conversations=conversations, next_after=f"conversations:{last}")
        section, key = "messages", f"{FIRST}/0"
    if section == "messages":
        conversation_id, _, number = key.partition("/")
        messages, position = await owned.messages(user_id, (UUID(conversation_id), int(number)))
        if messages:
            last = messages[-1].conversation_id
            return ExportPage.model_construct(messages=messages, next_after=f"messages:{last}/{position}")
        section, key = "feedback", str(FIRST)
    if section == "feedback":
        if feedback := await owned.feedback(user_id, UUID(key)):
            return ExportPage.model_construct(feedback=feedback, next_after=f"feedback:{feedback[-1].message_id}")
        key = "0"
    films, change = await owned.films(user_id, int(key))
    return ExportPage.model_construct(watchlist=films, next_after=f"watchlist:{change}" if films else None)
