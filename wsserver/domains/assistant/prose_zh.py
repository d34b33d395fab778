"""Answers about films in Chinese."""

from collections.abc import Sequence

from protocol.movies import MovieDetail
from storage.film_filter import Film, Order, Role
from wsserver.domains.assistant.people import PeopleNames
from wsserver.domains.assistant.prose import CREW_JOBS
from wsserver.domains.assistant.questions import Question
from wsserver.domains.assistant.words import GENRE_NAMES, LANGUAGE_NAMES, Aspect

ANY_FILM = "电影"

_ORDERS = {
    Order.BEST: "评分最高的",
    Order.WORST: "评分最低的",
    Order.POPULAR: "热门的",
    Order.NEWEST: "最新的",
    Order.OLDEST: "最早的",
    Order.LONGEST: "最长的",
    Order.SHORTEST: "最短的",
}
_MISSING = {
    Aspect.DIRECTOR: "导演",
    Aspect.CAST: "演员",
    Aspect.DATE: "上映日期",
    Aspect.RUNTIME: "片长",
    Aspect.RATING: "评分",
    Aspect.GENRE: "类型",
    Aspect.PLOT: "剧情",
    Aspect.LANGUAGE: "语言",
    Aspect.WRITER: "编剧",
    Aspect.MUSIC: "配乐",
    Aspect.PHOTOGRAPHY: "摄影",
    Aspect.UNKNOWN: "这方面的",
}


class Chinese:
    """Implements `prose.Prose`."""

    greeting = (
        "你好！我是片库助手，可以按片名、导演、演员、类型和年代帮你查电影、找电影。比如问我：“诺兰导演的科幻片有哪些？”"
    )
    thanks = "不客气！还想看什么电影，随时问我。"
    ready = "好的。还想看什么电影，随时问我。"
    goodbye = "再见，祝你观影愉快！"
    abilities = (
        "我是片库助手，不是大语言模型：我按规则读懂关于电影的问题，只用片库里的资料回答。\n"
        "你可以问我：\n"
        "· 一部电影的导演、演员、上映时间、片长、评分、类型和剧情，比如“《星际穿越》什么时候上映？”\n"
        "· 按类型、年代、导演、演员、语言、片长和评分找电影，比如“90年代评分最高的科幻片”\n"
        "· 推荐，比如“推荐三部热门的喜剧片”“类似盗梦空间的电影”，然后接着问“还有别的吗”“它的导演是谁”"
    )
    not_understood = (
        "这个问题我不知道怎么回答。我不是大语言模型，只会用片库里的资料回答关于电影的问题，"
        "比如“介绍一下盗梦空间”“推荐几部90年代的科幻片”“诺兰导演过哪些电影”。"
    )
    which_film = "你指的是哪一部电影？请告诉我片名，或者说“第一部”“第二部”。"
    which_person = "你指的是谁？请告诉我导演或演员的名字。"
    nothing_more = "片库里符合条件的没有更多了。换个类型、年代或演员试试？"
    more_hint = "还想看更多，可以说“还有别的吗”。"
    recent_is_old = "片库里近几年的电影不多，这些是目前最热门的：\n"

    def __init__(self, people: PeopleNames) -> None:
        self._people = people

    def title(self, film: Film) -> str:
        return f"《{film.title}》（{film.year}）" if film.year else f"《{film.title}》"

    def names(self, names: Sequence[str]) -> str:
        return "、".join(self._people.in_chinese(name) for name in names)

    def card(self, film: Film) -> str:
        other = film.title_en if film.title_en != film.title else film.original_title
        told = "，".join(filter(None, (str(film.year or ""), other if other != film.title else "")))
        facts = [
            f"由{self.names(film.directors[:3])}执导" if film.directors else "",
            f"片长{film.runtime}分钟" if film.runtime else "",
        ]
        kind = f"{self._genres(film)}片" if film.genre_ids else "电影"
        sentences = [
            f"《{film.title}》{f'（{told}）' if told else ''}是一部{'，'.join(filter(None, (kind, *facts)))}。",
            f"主演有{self.names(film.cast_names[:4])}。" if film.cast_names else "",
            f"\n剧情：{film.overview}" if film.overview else "",
            f"\n评分 {film.vote_average:.1f}（{film.vote_count:,} 人评价）。" if film.vote_count else "",
        ]
        return "".join(sentences)

    def aspect(self, aspect: Aspect, film: Film, detail: MovieDetail | None) -> str:
        title, said = self.title(film), ""
        match aspect:
            case Aspect.DIRECTOR if film.directors:
                said = f"{title}的导演是{self.names(film.directors)}。"
            case Aspect.CAST if detail and detail.cast:
                said = f"{title}的主要演员有{self._cast(detail)}。"
            case Aspect.DATE if film.release_date:
                day = film.release_date
                said = f"{title}于{day.year}年{day.month}月{day.day}日上映。"
            case Aspect.RUNTIME if film.runtime:
                said = f"{title}片长{film.runtime}分钟{self._hours(film.runtime)}。"
            case Aspect.RATING if film.vote_count:
                said = f"{title}的评分是 {film.vote_average:.1f}（满分10分，{film.vote_count:,} 人评价）。"
            case Aspect.GENRE if film.genre_ids:
                said = f"{title}的类型是{self._genres(film)}。"
            case Aspect.PLOT if film.overview:
                said = f"{title}的剧情：{film.overview}"
            case Aspect.LANGUAGE if film.original_language:
                said = f"{title}的原始语言是{_language(film.original_language)}。"
            case Aspect.TITLES:
                said = f"{title}的英文名是 {film.title_en}，原名是 {film.original_title}。"
            case Aspect.WRITER | Aspect.MUSIC | Aspect.PHOTOGRAPHY if detail:
                names = [person.name for person in detail.crew if person.job in CREW_JOBS[aspect]]
                said = f"{title}的{_MISSING[aspect]}是{self.names(list(dict.fromkeys(names)))}。" if names else ""
        return said or f"片库里没有{title}{_MISSING[aspect]}资料。"

    def winner(self, aspect: Aspect, film: Film, text: str) -> str:
        if aspect is Aspect.RATING:
            return f"评分更高的是{self.title(film)}。"
        if aspect is Aspect.RUNTIME:
            return f"片长更长的是{self.title(film)}。"
        return f"更早上映的是{self.title(film)}。" if "早" in text else f"更晚上映的是{self.title(film)}。"

    def item(self, number: int, film: Film) -> str:
        facts = [
            self._genres(film),
            f"{self.names(film.directors[:2])}执导" if film.directors else "",
            f"{film.runtime}分钟" if film.runtime else "",
            f"评分 {film.vote_average:.1f}" if film.vote_count else "",
        ]
        return f"{number}. {self.title(film)}：{'，'.join(filter(None, facts))}"

    def wanted(self, question: Question) -> str:
        asked = question.wanted
        joint = "或" if asked.any_genre else "、"
        parts = [
            _years(asked.year_from, asked.year_to),
            self._credits(question),
            f"{asked.longest}分钟以内的" if asked.longest else "",
            f"{asked.shortest}分钟以上的" if asked.shortest else "",
            f"{asked.lowest_rating:g}分以上的" if asked.lowest_rating is not None else "",
            f"{asked.highest_rating:g}分以下的" if asked.highest_rating is not None else "",
            f"不含{'、'.join(GENRE_NAMES[genre][0] for genre in asked.without_genres)}的"
            if asked.without_genres
            else "",
            "华语" if len(asked.languages) > 1 else "".join(_language(code) for code in asked.languages),
            joint.join(GENRE_NAMES[genre][0] for genre in asked.genres) + "片" if asked.genres else ANY_FILM,
        ]
        return "".join(parts)

    def list_title(self, question: Question) -> str:
        return f"为你推荐（{self._ordered(question)}）"

    def list_intro(self, question: Question, found: int, *, is_all: bool) -> str:
        if not is_all:
            return f"{self._ordered(question)}，先给你{found}部：\n"
        return (
            f"{self._ordered(question)}，片库里有这{found}部：\n"
            if found > 1
            else f"{self._ordered(question)}，为你找到：\n"
        )

    def similar_intro(self, films: Sequence[Film]) -> str:
        return f"和{'、'.join(map(self.title, films))}类似的电影（按共同的导演、演员和类型）：\n"

    def series_intro(self, name: str, found: int) -> str:
        return f"片库里和“{name}”有关的有{found}部：\n"

    def makers_intro(self, film: Film, names: Sequence[str]) -> str:
        return f"{self.title(film)}是{self.names(names)}的作品，片库里还有他们参与的这些：\n"

    def person_intro(self, names: Sequence[str]) -> str:
        return f"我没有{self.names(names)}的个人资料，只能从片库里列出参与的电影：\n"

    def nothing(self, question: Question) -> str:
        return f"片库里没有找到{self._ordered(question)}。可以放宽年代、类型或人物再试试。"

    def nothing_similar(self, films: Sequence[Film]) -> str:
        return f"片库里没有找到和{'、'.join(map(self.title, films))}相近的电影。"

    def count(self, question: Question, films: int) -> str:
        return f"片库里共有 {films} 部{self.wanted(question)}。"

    def in_film(self, film: Film, name: str, character: str | None, *, is_director: bool, is_cast: bool) -> str:
        person, title = self.names([name]), self.title(film)
        if is_cast:
            part = f"饰演 {character}" if character else "参加了演出"
            return f"{person}在{title}中{part}{'，同时也是导演' if is_director else ''}。"
        if is_director:
            return f"{person}是{title}的导演。"
        return f"片库里{title}的导演和主要演员中没有{person}。"

    def only_part(self, asked: str, film: Film) -> str:
        return f"片库里没有片名正好是“{asked}”的电影，最接近的是{self.title(film)}。\n"

    def namesakes(self, films: Sequence[Film]) -> str:
        return f"\n片库里还有同名的{'、'.join(map(self.title, films))}。"

    def not_in_catalogue(self, asked: str) -> str:
        return f"片库里没有找到“{asked}”，我不知道答案：我只懂片库里的电影。换个片名（中文名、英文名都可以）再试试？"

    def did_you_mean(self, asked: str, film: Film) -> str:
        return f"片库里没有“{asked}”。你是不是想问《{film.title}》？"

    def ignored(self, asked: str) -> str:
        return f"（“{asked}”我不会筛选，下面没有考虑它。）\n"

    def no_such_fact(self, asked: str) -> str:
        return f"关于“{asked}”我没有资料，只知道这些：\n"

    def cannot_filter(self, asked: str) -> str:
        return (
            f"我不会按“{asked}”找电影，片库只能按类型、年代、导演、演员、语言、片长和评分来找。比如“90年代的科幻片”。"
        )

    def _ordered(self, question: Question) -> str:
        wanted = self.wanted(question)
        if question.upcoming:
            return f"即将上映的{wanted}"
        order = question.order or (Order.POPULAR if wanted == ANY_FILM else None)
        return (_ORDERS[order] if order else "") + wanted

    def _credits(self, question: Question) -> str:
        said: dict[Role, list[str]] = {}
        for person, credit in zip(question.people, question.wanted.credits, strict=False):
            said.setdefault(credit.role, []).append(person.name)
        ends = {Role.DIRECTOR: "执导的", Role.CAST: "出演的", Role.ANY: "参与的"}
        return "".join(
            self.names(names) + ("合作的" if role is Role.ANY and len(names) > 1 else ends[role])
            for role, names in said.items()
        )

    def _cast(self, detail: MovieDetail) -> str:
        return "、".join(
            self.names([member.name]) + (f"（饰 {member.character}）" if member.character else "")
            for member in detail.cast[:6]
        )

    def _genres(self, film: Film) -> str:
        return "、".join(GENRE_NAMES[genre][0] for genre in film.genre_ids if genre in GENRE_NAMES)

    def _hours(self, minutes: int) -> str:
        hours, rest = divmod(minutes, 60)
        return f"（{hours}小时{f'{rest}分' if rest else ''}）" if hours else ""


def _language(code: str) -> str:
    return LANGUAGE_NAMES[code][0] if code in LANGUAGE_NAMES else code


def _years(first: int | None, last: int | None) -> str:
    if first is None and last is None:
        return ""
    if first is None:
        return f"{last}年及以前的"
    if last is None:
        return f"{first}年以后的"
    if first == last:
        return f"{first}年的"
    if first % 10 == 0 and last == first + 9:
        return f"{first}年代的"
    return f"{first}年到{last}年的"
