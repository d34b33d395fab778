"""The demo catalogue: films of our own choice, for a server that has no TMDB key yet."""
