"""What a question says of films: wants to see, has seen, does not want; and all that only looks like it."""

import pytest

from storage.demo.people import people_in_chinese
from storage.movies import Movies
from storage.postgres import Postgres
from storage.watchlist import Watchlist
from wsserver.domains.watchlist_capture import WatchlistCapture

INCEPTION, INTERSTELLAR, MATRIX, TITANIC, UP, FROZEN = 27205, 157336, 603, 597, 14160, 109445
WANT, SEEN, NO = "to_watch", "watched", "dismissed"


@pytest.fixture
def capture(postgres: Postgres) -> WatchlistCapture:
    return WatchlistCapture(Watchlist(postgres), Movies(postgres), people_in_chinese())


SAID: list[tuple[str, dict[int, str]]] = [
    # wants to see
    ("想看《盗梦空间》", {INCEPTION: WANT}),
    ("我想看盗梦空间", {INCEPTION: WANT}),
    ("打算看《星际穿越》", {INTERSTELLAR: WANT}),
    ("我打算周末看泰坦尼克号", {TITANIC: WANT}),
    ("准备今晚看黑客帝国", {MATRIX: WANT}),
    ("最近很想看《冰雪奇缘》！", {FROZEN: WANT}),
    ("一直想看星际穿越，有什么类似的推荐吗？", {INTERSTELLAR: WANT}),
    ("我想看《盗梦空间》和《星际穿越》", {INCEPTION: WANT, INTERSTELLAR: WANT}),
    ("想看盗梦空间、星际穿越和黑客帝国", {INCEPTION: WANT, INTERSTELLAR: WANT, MATRIX: WANT}),
    ("想看《盗梦空间》，《星际穿越》，《黑客帝国》", {INCEPTION: WANT, INTERSTELLAR: WANT, MATRIX: WANT}),
    ("想看诺兰的《盗梦空间》", {INCEPTION: WANT}),
    ("想看1997年的《泰坦尼克号》", {TITANIC: WANT}),
    ("想看《泰坦尼克号》(1997)", {TITANIC: WANT}),
    ("我想再看一遍盗梦空间", {INCEPTION: WANT}),
    ("明天去看黑客帝国", {MATRIX: WANT}),
    ("周末和女朋友去看《泰坦尼克号》", {TITANIC: WANT}),
    ("把《盗梦空间》加到片单", {INCEPTION: WANT}),
    ("请把盗梦空间加到我的想看列表", {INCEPTION: WANT}),
    ("帮我把《盗梦空间》和《星际穿越》都加入片单", {INCEPTION: WANT, INTERSTELLAR: WANT}),
    ("能把《黑客帝国》加到想看列表吗？", {MATRIX: WANT}),
    ("可以帮我把泰坦尼克号加到片单里吗？", {TITANIC: WANT}),
    ("收藏《盗梦空间》", {INCEPTION: WANT}),
    ("《盗梦空间》我想看", {INCEPTION: WANT}),
    ("你推荐的《黑客帝国》看起来不错，我想看", {MATRIX: WANT}),
    ("想看大鱼", {587: WANT}),
    ("打算看变脸", {754: WANT}),
    ("想看《她》", {152601: WANT}),
    ("想看终结者2", {280: WANT}),
    ("想看 Inception", {INCEPTION: WANT}),
    ("想看《沙丘》和《盗梦空间》", {INCEPTION: WANT}),
    ("我老婆想看《泰坦尼克号》，我想看《黑客帝国》", {MATRIX: WANT}),
    ("I want to watch Inception", {INCEPTION: WANT}),
    ("i want to watch inception", {INCEPTION: WANT}),
    ("I'd like to see The Matrix tonight.", {MATRIX: WANT}),
    ("I really want to watch Inception and Interstellar", {INCEPTION: WANT, INTERSTELLAR: WANT}),
    ("I'm going to watch Titanic this weekend with my wife", {TITANIC: WANT}),
    ("I've always wanted to see Up", {UP: WANT}),
    ("add Inception to my watchlist", {INCEPTION: WANT}),
    ("Please add Titanic and The Matrix to my watch list", {TITANIC: WANT, MATRIX: WANT}),
    ("Can you add “Up” to my list?", {UP: WANT}),
    ("Inception looks great, I want to watch it", {INCEPTION: WANT}),
    ("I can’t wait to see Interstellar!", {INTERSTELLAR: WANT}),
    ("want to watch titanic", {TITANIC: WANT}),
    ("i want to watch up", {UP: WANT}),
    # has seen
    ("看过盗梦空间了", {INCEPTION: SEEN}),
    ("我看过《盗梦空间》", {INCEPTION: SEEN}),
    ("昨天看完了《星际穿越》", {INTERSTELLAR: SEEN}),
    ("昨晚刚看了泰坦尼克号，太感人了", {TITANIC: SEEN}),
    ("《黑客帝国》我早就看过了", {MATRIX: SEEN}),
    ("盗梦空间和星际穿越都看过了", {INCEPTION: SEEN, INTERSTELLAR: SEEN}),
    ("你推荐的《盗梦空间》我已经看过三遍了", {INCEPTION: SEEN}),
    ("看完《盗梦空间》之后想找类似的片子", {INCEPTION: SEEN}),
    ("我看过盗梦空间，有类似的电影吗？", {INCEPTION: SEEN}),
    ("看过盗梦空间 有类似的吗", {INCEPTION: SEEN}),
    ("看过《盗梦空间》但没看过《星际穿越》", {INCEPTION: SEEN}),
    ("把盗梦空间标记为看过", {INCEPTION: SEEN}),
    ("上周末和老婆看了《泰坦尼克号》", {TITANIC: SEEN}),
    ("变脸我看过了", {754: SEEN}),
    ("I've seen Inception", {INCEPTION: SEEN}),
    ("I have already seen The Matrix", {MATRIX: SEEN}),
    ("just watched Titanic", {TITANIC: SEEN}),
    ("I just watched Inception, it was great", {INCEPTION: SEEN}),
    ("Yesterday we saw Interstellar in IMAX", {INTERSTELLAR: SEEN}),
    ("I've seen Inception, Interstellar and Titanic", {INCEPTION: SEEN, INTERSTELLAR: SEEN, TITANIC: SEEN}),
    ("I've seen Inception. Any movies like it?", {INCEPTION: SEEN}),
    ("mark Titanic as watched please", {TITANIC: SEEN}),
    # does not want
    ("不想看《泰坦尼克号》", {TITANIC: NO}),
    ("我不太想看泰坦尼克号", {TITANIC: NO}),
    ("泰坦尼克号就算了，别再推荐", {TITANIC: NO}),
    ("《泰坦尼克号》 就算了别再推荐", {TITANIC: NO}),
    ("对泰坦尼克号不感兴趣", {TITANIC: NO}),
    ("我对《泰坦尼克号》没什么兴趣", {TITANIC: NO}),
    ("别再给我推荐泰坦尼克号了", {TITANIC: NO}),
    ("《泰坦尼克号》我不想看", {TITANIC: NO}),
    ("not interested in Titanic", {TITANIC: NO}),
    ("I'm not interested in Titanic or anything sad", {}),
    ("I don't want to watch Titanic", {TITANIC: NO}),
    ("please don't recommend Titanic again", {TITANIC: NO}),
    ("Titanic isn't for me", {TITANIC: NO}),
    # several things at once
    (
        "看过《盗梦空间》，想看《星际穿越》，不想看《泰坦尼克号》",
        {INCEPTION: SEEN, INTERSTELLAR: WANT, TITANIC: NO},
    ),
    ("盗梦空间看过了，想看星际穿越", {INCEPTION: SEEN, INTERSTELLAR: WANT}),
    ("看过盗梦空间了想看黑客帝国", {INCEPTION: SEEN, MATRIX: WANT}),
    ("I've seen Inception but I want to watch Interstellar", {INCEPTION: SEEN, INTERSTELLAR: WANT}),
    ("I've seen Inception and I don't want to see Titanic", {INCEPTION: SEEN, TITANIC: NO}),
    ("Watched Up yesterday. Now I want to watch Frozen.", {UP: SEEN, FROZEN: WANT}),
]

NOT_SAID = [
    "有没有看过《盗梦空间》？",
    "你看过盗梦空间吗",
    "你看过《盗梦空间》没有？",
    "盗梦空间好看吗",
    "想看点科幻片",
    "想看诺兰的电影",
    "不知道想不想看《盗梦空间》",
    "想不想看盗梦空间",
    "要不要看《盗梦空间》？",
    "该不该看盗梦空间",
    "想看盗梦空间吗？",
    "看过盗梦空间吗",
    "《盗梦空间》看过没",
    "我没看过《盗梦空间》",
    "还没看过盗梦空间",
    "我朋友看过《盗梦空间》",
    "我妈想看泰坦尼克号",
    "谁看过盗梦空间",
    "如果想看盗梦空间的话需要多久",
    "可能想看盗梦空间",
    "等我看完《盗梦空间》再说",
    "想看类似盗梦空间的电影",
    "想看和盗梦空间一样烧脑的",
    "想看像《盗梦空间》那样的电影",
    "想看盗梦空间的预告片",
    "想看盗梦空间的导演的其他作品",
    "看过盗梦空间的人多吗",
    "看了《盗梦空间》的影评",
    "想看盗梦空间还是星际穿越",
    "想看盗梦空间和星际穿越的区别",
    "想看冰雪奇缘2",
    "想看《银翼杀手》2049",
    "想看1953年的《泰坦尼克号》",
    "想看指环王",
    "想看《沙丘》",
    "为什么把《盗梦空间》加到片单",
    "盗梦空间加到片单了吗",
    "不要把盗梦空间加到片单",
    "盗梦空间",
    "介绍一下《盗梦空间》",
    "推荐类似盗梦空间的电影",
    "盗梦空间和星际穿越哪个好看",
    "后天想看电影",
    "有没有想看《盗梦空间》的朋友",
    "听说有人不想看泰坦尼克号",
    "《盗梦空间》想看吗？",
    "have you seen Inception?",
    "Have you watched The Matrix",
    "should I watch Inception?",
    "what should I watch",
    "Do you want to watch Titanic?",
    "I haven't seen Inception",
    "I've never seen Inception",
    "I want to watch something like Inception",
    "I want to watch movies like The Matrix",
    "I want to see the sequel of Frozen",
    "I want to watch Frozen 2",
    "I want to watch Avatar: The Way of Water",
    "My friend has seen Inception",
    "If I've seen Inception, what is next?",
    "I think I've seen Inception",
    "I don't know if I want to watch Titanic",
    "Did I add Inception to my watchlist?",
    "don't add Inception to my watchlist",
    "is Titanic worth watching?",
    "I want to see cars",
    "想看阿凡达：水之道",
    "I saw her yesterday",
    "Who directed Inception?",
    "Are you not interested in Titanic?",
    "I want to watch it",
    "",
]


@pytest.mark.parametrize(("query", "expected"), SAID, ids=[query for query, _ in SAID])
async def test_what_is_said_of_films_is_noted(capture: WatchlistCapture, query: str, expected: dict[int, str]) -> None:
    assert {wish.tmdb_id: wish.state for wish in await capture.read(query)} == expected


@pytest.mark.parametrize("query", NOT_SAID)
async def test_what_is_asked_or_doubted_or_said_of_others_is_not(capture: WatchlistCapture, query: str) -> None:
    assert await capture.read(query) == []
