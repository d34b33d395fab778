"""The one list of all operations. A new domain is added here, by name; nothing is discovered."""

from protocol import accounts, chat, movies, watchlist
from protocol.operation import merge

OPERATIONS = merge(accounts.operations, chat.operations, movies.operations, watchlist.operations)
