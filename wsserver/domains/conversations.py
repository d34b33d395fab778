"""Conversations: making, listing, reading, naming, searching and deleting them, and what one thinks of an answer."""

from protocol import branches, conversations
from protocol.branches import ChooseBranch
from protocol.conversations import (
    Conversation,
    ConversationDeleted,
    ConversationList,
    ConversationPage,
    CreateConversation,
    DeleteConversation,
    Feedback,
    FoundMessages,
    GetConversation,
    ListConversations,
    ListPosition,
    RateAnswer,
    RenameConversation,
    SearchConversations,
)
from protocol.errors import CONVERSATION_NOT_FOUND, MESSAGE_NOT_FOUND, OperationError
from protocol.unasked import ConversationUpdated
from storage.chat import Conversations
from storage.conversations import ConversationTable
from wsserver.dispatch import Call, Handlers
from wsserver.hub import Hub
from wsserver.news import News


def conversation_handlers(table: ConversationTable, said: Conversations, hub: Hub, news: News) -> Handlers:
    """Handlers of the operations on conversations; `said` has their messages."""
    handlers = Handlers()

    @handlers.on(conversations.CONVERSATION_CREATE)
    async def create(call: Call, request: CreateConversation) -> Conversation:
        return await table.create(user_id=call.known_caller.user_id, title=request.title)

    @handlers.on(conversations.CONVERSATION_LIST)
    async def page(call: Call, request: ListConversations) -> ConversationList:
        before = None if request.before is None else ListPosition.of_cursor(request.before)
        items, more = await table.page(user_id=call.known_caller.user_id, limit=request.limit, before=before)
        next_before = ListPosition(items[-1].updated_at, items[-1].id).cursor() if more else None
        return ConversationList.model_construct(items=items, next_before=next_before)

    @handlers.on(conversations.CONVERSATION_GET)
    async def get(call: Call, request: GetConversation) -> ConversationPage:
        user_id, conversation_id = call.known_caller.user_id, request.conversation_id
        conversation = _found(await table.find(user_id=user_id, conversation_id=conversation_id))
        messages, more = await said.page(
            user_id=user_id, conversation_id=conversation_id, limit=request.limit, before=request.before
        )
        return ConversationPage.model_construct(
            conversation=conversation, items=messages, next_before=messages[0].id if more else None
        )

    @handlers.on(conversations.CONVERSATION_RENAME)
    async def rename(call: Call, request: RenameConversation) -> Conversation:
        user_id, conversation_id = call.known_caller.user_id, request.conversation_id
        renamed = _found(await table.rename(user_id=user_id, conversation_id=conversation_id, title=request.title))
        news.tell(user_id, ConversationUpdated.of(renamed, "renamed"))
        return renamed

    @handlers.on(branches.BRANCH_CHOOSE)
    async def choose(call: Call, request: ChooseBranch) -> Conversation:
        user_id = call.known_caller.user_id
        conversation = await table.choose(user_id=user_id, message_id=request.message_id)
        if conversation is None:
            raise OperationError(MESSAGE_NOT_FOUND)
        news.tell(user_id, ConversationUpdated.of(conversation, "branched"))
        return conversation

    @handlers.on(conversations.CONVERSATION_DELETE)
    async def delete(call: Call, request: DeleteConversation) -> ConversationDeleted:
        user_id, conversation_id = call.known_caller.user_id, request.conversation_id
        deleted = await table.delete(user_id=user_id, conversation_id=conversation_id)
        if deleted is None:
            raise OperationError(CONVERSATION_NOT_FOUND)
        conversation, running = deleted
        for request_id in running:
            # Other nodes see it in the table.
            if (run := hub.run(request_id)) is not None:
                run.stop("cancelled")
        news.tell(user_id, ConversationUpdated.of(conversation, "deleted"))
        return ConversationDeleted(conversation_id=conversation_id)

    @handlers.on(conversations.CONVERSATION_SEARCH)
    async def search(call: Call, request: SearchConversations) -> FoundMessages:
        found = await table.search(user_id=call.known_caller.user_id, text=request.query, limit=request.limit)
        return FoundMessages.model_construct(items=found)

    @handlers.on(conversations.FEEDBACK)
    async def rate(call: Call, request: RateAnswer) -> Feedback:
        kept = await table.rate(
            user_id=call.known_caller.user_id,
            message_id=request.message_id,
            rating=request.rating,
            comment=request.comment,
        )
        if kept is None:
            raise OperationError(MESSAGE_NOT_FOUND)
        return kept

    return handlers


def _found(conversation: Conversation | None) -> Conversation:
    if conversation is None:
        raise OperationError(CONVERSATION_NOT_FOUND)
    return conversation
