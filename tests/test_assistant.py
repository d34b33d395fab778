"""The catalogue assistant: what it answers to a single question in Chinese or English."""

import re

import pytest

from storage.demo.people import people_in_chinese
from storage.film_filter import FilmFilter, Order
from storage.movies import Movies
from storage.postgres import Postgres
from tests.talks import TODAY, Talk
from wsserver.domains.assistant.catalogue import CatalogueAssistant
from wsserver.domains.film_knowledge import FilmKnowledge


@pytest.fixture
def assistant(postgres: Postgres) -> CatalogueAssistant:
    return CatalogueAssistant(FilmKnowledge(Movies(postgres), people_in_chinese(), today=lambda: TODAY))


@pytest.fixture
def talk(assistant: CatalogueAssistant, postgres: Postgres) -> Talk:
    return Talk(assistant, Movies(postgres))


ONE_FILM: list[tuple[str, list[str]]] = [
    ("介绍一下盗梦空间", ["《盗梦空间》", "2010", "克里斯托弗·诺兰", "148分钟", "莱昂纳多·迪卡普里奥", "科幻", "梦境"]),
    ("盗梦空间", ["《盗梦空间》", "克里斯托弗·诺兰"]),
    ("《星际穿越》什么时候上映", ["《星际穿越》", "2014年11月"]),
    ("星际穿越是哪年的电影", ["2014"]),
    ("黑客帝国是谁演的", ["基努·里维斯", "Neo"]),
    ("黑客帝国的导演是谁？", ["拉娜·沃卓斯基", "莉莉·沃卓斯基"]),
    ("肖申克的救赎评分多少", ["8.7"]),
    ("盗梦空间好看吗", ["8.1"]),
    ("泰坦尼克号片长多少", ["194分钟", "3小时14分"]),
    ("阿凡达是什么类型的电影", ["动作", "冒险", "奇幻", "科幻"]),
    ("《她》讲了什么", ["《她》", "人工智能"]),
    ("千与千寻的原名是什么", ["千と千尋の神隠し", "Spirited Away"]),
    ("幽灵公主是什么语言的", ["日语"]),
    ("谁导演了泰坦尼克号", ["詹姆斯·卡梅隆"]),
    ("Inception的导演是谁", ["《盗梦空间》", "克里斯托弗·诺兰"]),
    ("Up 的导演是谁", ["《飞屋环游记》", "彼特·道格特"]),
    ("300是谁导演的", ["《斯巴达300勇士》", "扎克·施奈德"]),
    ("WALL-E 多长时间", ["《机器人总动员》", "98分钟"]),
    ("教父的导演是谁", ["没有片名正好是“教父”", "《教父2》", "科波拉"]),
    ("指环王的导演是谁", ["彼得·杰克逊", "护戒使者", "双塔奇兵", "王者无敌"]),
    ("盗梦空间的票房是多少", ["没有《盗梦空间》"]),
    ("盗梦空间的灯光师是谁", ["关于“灯光师”我没有资料", "《盗梦空间》"]),
    ("小李子在泰坦尼克号里演谁", ["莱昂纳多·迪卡普里奥", "Jack"]),
    ("汤姆·克鲁斯演过盗梦空间吗", ["没有汤姆·克鲁斯"]),
    ("教父2和无间行者哪个评分高", ["8.3", "7.9", "评分更高的是《教父2》"]),
    ("星际穿越和盗梦空间哪个长", ["169分钟", "148分钟", "更长的是《星际穿越》"]),
    ("who directed Inception?", ["“Inception”", "Christopher Nolan"]),
    ("tell me about The Matrix", ["“The Matrix” (1999)", "Keanu Reeves", "136 minutes", "action"]),
    ("how long is The Matrix", ["136 minutes"]),
    ("when was Jaws released?", ["1975"]),
    ("What's Interstellar about?", ["The plot of “Interstellar”"]),
    ("who stars in forrest gump", ["Tom Hanks", "Forrest Gump"]),
    ("who plays Neo in The Matrix", ["Keanu Reeves plays Neo"]),
    ("rating of the shawshank redemption", ["8.7"]),
    ("what genre is Gattaca", ["science fiction"]),
    ("what is the Chinese title of Titanic?", ["泰坦尼克号"]),
    ("Who directed Her?", ["“Her”", "Spike Jonze"]),
    ("tell me about Up", ["“Up”", "Pete Docter"]),
    ("who directed 盗梦空间", ["was directed by Christopher Nolan"]),
    ("is Tom Hanks in Forrest Gump?", ["Tom Hanks plays Forrest Gump"]),
    ("which is longer, Titanic or Avatar?", ["“Titanic” (1997) is longer"]),
    ("who wrote Inception", ["does not have the writers"]),
    ("amelie director", ["Jean-Pierre Jeunet"]),
    ("钢铁侠和蝙蝠侠哪个更早上映", ["2008年", "1989年", "更早上映的是《蝙蝠侠》"]),
    ("谁演了蝙蝠侠黑暗骑士里的小丑", ["希斯·莱杰"]),
    ("阿甘正传获得了什么奖", ["没有《阿甘正传》"]),
    ("do you have The Room?", ["“Room”"]),
]


@pytest.mark.parametrize(("question", "expected"), ONE_FILM, ids=[question for question, _ in ONE_FILM])
async def test_a_question_about_a_film_is_answered(talk: Talk, question: str, expected: list[str]) -> None:
    answer = await talk.ask(question)
    for part in expected:
        assert part in answer.text, answer.text


LISTS: list[tuple[str, set[int]]] = [
    ("诺兰导演的科幻片", {157336, 27205}),
    ("诺兰导演过哪些电影", {155, 272, 1124, 27205, 49026, 157336}),
    ("诺兰和小李子合作的电影", {27205}),
    ("宫崎骏的动画片", {128, 129, 4935}),
    ("日本电影", {128, 129, 4935}),
    ("韩国片", {110415}),
    ("斯皮尔伯格导演汤姆汉克斯主演的电影", {857, 640, 594, 296098}),
    ("1999年评分最高的三部电影", {550, 497}),
    ("90年代的科幻片", {603}),
    ("评分最高的十部电影", {278, 424, 13, 807, 129}),
    ("8分以上的科幻片", {157336, 27205}),
    ("最长的电影", {122, 240}),
    ("90分钟以内的动画片", {808, 9502}),
    ("指环王系列有哪些", {120, 121, 122}),
    ("盗梦空间的导演还拍过什么", {157336, 155}),
    ("推荐几部近期热门的电影", {157336}),
    ("推荐三部热门的电影", {157336}),
    ("类似盗梦空间的电影", {157336}),
    ("和星际穿越类似的片子", {286217}),
    ("最新的电影", {278927, 293660}),
    ("莱昂纳多演过哪些科幻片", {27205}),
    ("昆汀是谁", {16869, 68718}),
    ("科幻喜剧片", {105}),
    ("八十年代的恐怖片", {694}),
    ("films directed by Nolan", {27205, 157336}),
    ("spielberg war movies", {857, 424}),
    ("films directed by spielberg starring tom hanks", {857, 640, 594, 296098}),
    ("movies with both Brad Pitt and Edward Norton", {550}),
    ("sci-fi movies from the 1990s", {603}),
    ("best horror movies before 1990", {694, 539}),
    ("films like Inception", {157336}),
    ("top 10 movies", {278, 424, 13}),
    ("japanese animation", {128, 129, 4935}),
    ("best Tarantino movie", {16869, 68718}),
    ("movies between 1970 and 1975", {578, 240}),
    ("movies longer than 3 hours", {122, 240}),
    ("tom cruise action movies after 2000", {137113, 180}),
    ("蝙蝠侠系列", {268, 272, 155, 49026}),
    ("最近有什么新片", {278927, 293660}),
    ("I loved Interstellar, what should I watch next?", {286217}),
]


@pytest.mark.parametrize(("question", "expected"), LISTS, ids=[question for question, _ in LISTS])
async def test_a_question_for_films_recommends_films(talk: Talk, question: str, expected: set[int]) -> None:
    answer = await talk.ask(question)
    assert expected <= set(answer.ids), answer.text
    assert answer.recommended is not None
    assert answer.recommended.title
    assert answer.recommended.mode.startswith("movie_")
    cards = await talk.movies.cards(answer.ids)
    assert set(cards) == set(answer.ids)
    assert len(answer.ids) == len(set(answer.ids))
    is_chinese = bool(re.search("[一-鿿]", question))
    for card in cards.values():
        assert not is_chinese or f"《{card.title}》" in answer.text


@pytest.mark.parametrize(
    ("question", "holds"),
    [
        ("2010年以后的爱情片", lambda film: film.year >= 2010 and 10749 in film.genre_ids),
        ("90年代的科幻片", lambda film: 1990 <= film.year <= 1999 and 878 in film.genre_ids),
        ("short comedies", lambda film: film.runtime <= 100 and 35 in film.genre_ids),
        ("不要恐怖片，推荐几部惊悚片", lambda film: 53 in film.genre_ids and 27 not in film.genre_ids),
        ("1990到1995年的犯罪片", lambda film: 1990 <= film.year <= 1995 and 80 in film.genre_ids),
        ("老电影", lambda film: film.year < 1990),
        ("7分以上的喜剧", lambda film: film.vote_average >= 7 and 35 in film.genre_ids),
        ("horror movies of two hours or less", lambda film: film.runtime <= 120 and 27 in film.genre_ids),
        ("French movies", lambda film: film.original_language == "fr"),
        ("give me 3 horror movies", lambda film: 27 in film.genre_ids),
        ("2000年左右的动作片", lambda film: 1998 <= film.year <= 2002 and 28 in film.genre_ids),
        ("movies from 1994", lambda film: film.year == 1994),
        ("science fiction or comedy films", lambda film: {878, 35} & set(film.genre_ids)),
    ],
)
async def test_every_film_of_a_list_is_as_asked(talk: Talk, question: str, holds: object) -> None:
    answer = await talk.ask(question)
    assert answer.ids
    assert callable(holds)
    by_id = {film.tmdb_id: film for film in await talk.movies.search(FilmFilter(), Order.POPULAR, limit=1000)}
    assert all(holds(by_id[tmdb_id]) for tmdb_id in answer.ids), answer.text


@pytest.mark.parametrize(
    ("question", "films"),
    [
        ("推荐三部喜剧", 3),
        ("来十部科幻片", 10),
        ("top 7 movies", 7),
        ("recommend two comedies", 2),
        ("推荐一部电影", 1),
    ],
)
async def test_as_many_films_as_were_asked_for(talk: Talk, question: str, films: int) -> None:
    assert len((await talk.ask(question)).ids) == films


async def test_counts_are_counted(talk: Talk) -> None:
    sci_fi = await talk.movies.count_matching(FilmFilter(genres=(878,)))
    assert f" {sci_fi} 部" in (await talk.ask("有多少部科幻片")).text
    assert f"has {sci_fi} " in (await talk.ask("how many sci-fi movies are there?")).text
    assert "14 部" in (await talk.ask("汤姆·汉克斯演过几部电影")).text


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("你好", "片库助手"),
        ("hello", "catalogue assistant"),
        ("谢谢", "不客气"),
        ("thanks!", "welcome"),
        ("再见", "再见"),
        ("你是谁", "不是大语言模型"),
        ("你是ChatGPT吗", "不是大语言模型"),
        ("what can you do?", "not a language model"),
        ("今天天气怎么样", "我不知道"),
        ("写一首诗", "不知道"),
        ("who won the world cup", "don't know"),
        ("what is 1+1", "don't know"),
        ("推荐一家餐厅", "不知道"),
        ("关于海盗的电影", "不会按“海盗”"),
        ("movies about prisoners", 'cannot find films by "prisoners"'),
        ("《不存在的电影》讲了什么", "没有找到“不存在的电影”"),
        ('who directed "The Film That Is Not There"?', "not in the catalogue"),
        ("泰坦尼克的导演是谁", "你是不是想问《泰坦尼克号》"),
        ("它的导演是谁", "哪一部"),
        ("who directed it?", "Which film"),
        ("他导演过什么", "你指的是谁"),
        ("即将上映的电影", "没有找到即将上映的电影"),
        ("国产电影有哪些", "没有找到华语电影"),
        ("诺兰导演的西部片", "没有找到"),
        ("诺兰多大了", "没有克里斯托弗·诺兰的个人资料"),
        ("适合全家看的轻松喜剧", "“"),
    ],
)
async def test_it_says_what_it_does_not_know_or_is(talk: Talk, question: str, expected: str) -> None:
    assert expected in (await talk.ask(question)).text


@pytest.mark.parametrize(
    ("question", "not_about"),
    [
        ("I want a movie to cheer me up", "“Up”"),
        ("it is what it is", "“It”"),
        ("what happened to her yesterday", "“Her”"),
        ("can you speed up", "“Speed”"),
        ("后天有什么电影", "《后天》"),
        ("推荐300部电影", "《斯巴达300勇士》"),
        ("2001年的电影", "《2001太空漫游》"),
        ("any good ghost movies", "“Ghost”"),
    ],
)
async def test_a_word_that_is_also_a_title_is_a_word(talk: Talk, question: str, not_about: str) -> None:
    assert f"{not_about} (" not in (answer := await talk.ask(question)).text or answer.recommended is not None
    assert not answer.text.startswith(not_about)


@pytest.mark.parametrize(
    "question", ["《后天》的导演", "电影后天是谁导演的", "I watched Speed, who directed it?", '"Up" cast']
)
async def test_a_word_that_is_marked_as_a_title_is_one(talk: Talk, question: str) -> None:
    answer = await talk.ask(question)
    assert re.match("《(后天|生死时速)》|“(Up|Speed)”", answer.text), answer.text
