"""What nodes tell each other about fetching films: which are not at TMDB, and which is being fetched."""

import asyncio
import random
from pathlib import Path

from storage.film_marks import FilmMarks
from storage.redis import FILM_CLAIM, FILM_MISSING, Redis, open_redis
from tests.valkeys import Valkey, free_ports, started


def film_ids(number: int) -> list[int]:
    """Ids that no other test marks."""
    return random.sample(range(1_000_000, 2**31), number)


async def test_a_film_that_is_not_at_tmdb_is_known_to_all_nodes_for_a_day(redis: Redis) -> None:
    one, other = FilmMarks(redis), FilmMarks(redis)
    gone, there, gone_too = film_ids(3)
    assert await one.missing([gone, there, gone_too]) == set()
    await one.note_missing(gone)
    await one.note_missing(gone_too)
    assert await other.missing([there, gone, gone, gone_too]) == {gone, gone_too}
    assert await other.missing([there]) == set()
    assert await other.missing([]) == set()
    assert 86_000 < await redis.ttl(FILM_MISSING(str(gone))) <= 86_400


async def test_of_many_nodes_one_fetches_a_film(redis: Redis) -> None:
    nodes, (film,) = [FilmMarks(redis) for _ in range(20)], film_ids(1)
    claims = await asyncio.gather(*(node.claim(film) for node in nodes))
    assert claims.count(True) == 1
    assert 0 < await redis.ttl(FILM_CLAIM(str(film))) <= 10
    await nodes[claims.index(True)].release(film)
    assert await nodes[claims.index(False)].claim(film)


async def test_a_film_is_claimed_once_on_one_node_too_and_apart_from_other_films(redis: Redis) -> None:
    marks, (film, other_film) = FilmMarks(redis), film_ids(2)
    assert [await marks.claim(film), await marks.claim(film), await marks.claim(other_film)] == [True, False, True]


async def test_a_claim_that_ran_out_is_not_taken_from_whom_it_went_to(redis: Redis) -> None:
    slow, quick, (film,) = FilmMarks(redis), FilmMarks(redis), film_ids(1)
    assert await slow.claim(film)
    await redis.delete(FILM_CLAIM(str(film)))
    assert await quick.claim(film)
    await slow.release(film)
    assert not await slow.claim(film)
    await quick.release(film)
    assert await slow.claim(film)


async def test_without_redis_nothing_is_known_and_everything_may_be_fetched(data_dir: Path) -> None:
    (port,) = free_ports(1)
    server = Valkey(data_dir / f"marks{port}", port, "--bind", "127.0.0.1", "--save", "")
    async with started([server]), open_redis(f"redis://127.0.0.1:{port}") as redis:
        marks, (film,) = FilmMarks(redis), film_ids(1)
        await marks.note_missing(film)
        assert await marks.missing([film]) == {film}
        await server.kill()
        assert await marks.missing([film]) == set()
        assert [await marks.claim(film), await marks.claim(film)] == [True, True]
        await marks.note_missing(film)
        await marks.release(film)
