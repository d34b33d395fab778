"""The one list of all operations. A new domain is added here, by name; nothing is discovered."""

from protocol import accounts, belongings, branches, chat, conversations, guests, movies, watchlist
from protocol.operation import merge

OPERATIONS = merge(
    accounts.operations,
    belongings.operations,
    branches.operations,
    chat.operations,
    conversations.operations,
    guests.operations,
    movies.operations,
    watchlist.operations,
)
