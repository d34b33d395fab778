"""What a question says of films: that one wants to see them, has seen them, or does not want them.

Pure: the films are marks in the text, and which films they are is not known here. A rule holds only when all that
stands before its verb in the clause is known to be harmless, and when the clause ends after the films: what is
asked, doubted, supposed or said of somebody else has other words there, and is left alone.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.watchlist import WatchlistState
from wsserver.domains.assistant.words import FILM, PERSON

OTHER_FILM = "\ue002"
"""What stands in the place of a title that is no single film of the catalogue."""

SIGNS = re.compile(
    r"看|刷|补|重温|期待|片单|清单|列表|收藏|标记|兴趣|无感|算了|免了|跳过|推荐|推送|屏蔽|忽略|watch|\bse(?:e|en|"
    r"eing)\b|\bsaw\b|finish|catch|check|interested|\blist\b|queue|bookmark|recommend|skip|\bpass\b|\bfor me\b",
    re.IGNORECASE,
)
"""Without one of these words no rule can hold, and nothing has to be looked up."""

_F = f"[{FILM}{OTHER_FILM}]"
_SENTENCE = re.compile(r"(?:[^。！!？?；;\n….]|\.(?!\s|$))+[。！!？?；;\n….]*")
_COMMA = "[，,]"

# Between films and what follows there may be no comma: "看过A但没看过B", "看过A想看B".
_RUNS_ON = re.compile(
    rf"({_F}(?:了|啦)?)\s*(?=但|不过|可是|只是|然后|所以|因为|而(?!且)|求|有没有|有什么|有类似|帮|请|谢|推荐|"
    rf"我(?!的))|({_F}(?:了|啦))\s*(?=想|还想|也|再|不想|打算)|({_F})\s*(?=(?:也|还)?(?:没|不?想|打算|看过|看完|"
    rf"看了)[^，,。]*{_F})"
)

# --- Chinese. Loops are possessive: what they take they keep, so that no text can make them try all ways. ---
_WHO = r"我们俩?|我自己|我|本人|咱们?"
_WHEN = (
    r"今天|今晚|今日|昨天|昨晚|昨日|前天|前几天|前两天|前阵子|前段时间|最近|近期|上个?(?:周末?|月|星期|礼拜)|去年|"
    r"今年|前年|以前|之前|早前|小时候|刚刚|刚才|刚|早就|早已|早|已经|已|终于|总算|周末|[这下]个?(?:周末?|月)|明天|"
    r"明晚|后天|晚上|早上|下午|中午|待会儿?|一会儿?|马上|过几天|改天|有空|下班后?|放假|国庆|春节|暑假|寒假|"
    r"在(?:家里?|电影院|影院|飞机上|学校|网上)|一起|一口气|重新|再次|第[一二三]次"
)
_HOW = (
    r"才|也|都|还是|还|又|就|其实|确实|真的|真|很|好|超级|超|特别|非常|挺|蛮|最|一直都?|总|有点儿?|有些|全部|全|"
    r"实在|一定|肯定|必须|本来"
)
_LINK = (
    r"但是|但|不过|可是|只是|然后|而且|并且|所以|因为|那么|那|嗯+|对了|好的|哦|啊|另外|顺便|说起来|话说|还有|同时|"
    r"首先|其次|最后|你好|您好|谢谢|听说|据说|hi|hello|[、，,\s]"
)
_COMPANY = (
    r"[和跟陪带](?:女朋友|男朋友|朋友们?|老婆|老公|孩子们?|家人|爸妈|父母|同学|同事|室友|妈妈|爸爸|我妈|我爸|她|他)"
)
_LEAD = rf"(?:{_WHO}|{_WHEN}|{_COMPANY}|{_HOW}|{_LINK})*+"
_ASKS = (
    rf"(?:能不能|能否|可不可以|可以|可否|能|你|您|请|麻烦|帮我|帮忙|给我|替我|我?想要?(?!看)|我要|要(?!不)|{_WHEN}|"
    rf"{_LINK}|就|都|我)*+"
)
_START = r"(?:^|[，,：:])\s*"
_YEAR = r"(?:\d{4}\s*(?:年(?:上映)?(?:的|版的?)?|版的?)\s*)"
_INTRO = (
    rf"\s*(?:(?:一部|那部|这部|部|一下|电影|影片|片子|动画片?|叫做?|名叫|"
    rf"经典)\s*)*+[:：]?\s*{_YEAR}?(?:{PERSON}\s*(?:导演|执导|主演|导|演|拍)?的\s*)?(?:电影|影片|动画片?|那部)?\s*"
)
_AFTER_FILM = (
    r"(?:\s*[(（]?\d{4}\s*(?:年?版)?[)）]|\s*\d{4}\s*年?版|\s+\d{4}(?=\s*(?:$|[，,])))?(?:\s*(?:这部(?:电影|片子?|"
    r"影片)?|这片子?|电影))?"
)
_ONE = rf"(?:\s*{_YEAR}?{_F}{_AFTER_FILM})"
_FILMS = (
    rf"(?P<films>{_ONE}(?:\s*(?:、|[，,]\s*(?:和|还有|以及)?|和|跟|与|以及|还有|及|[/+＋&]|\band\b)?{_ONE}){{0,19}})"
)
_PARTICLES = r"[了啦的吧啊呀哦喔噢哈嘛~～\s\"”’)）👍😊]*"
_MORE = rf"\s*(?:、|和|跟|与|以及|还有)(?!\s*{_F})"
_END = rf"(?={_PARTICLES}(?:$|{_COMMA})|{_MORE})"
_AFTERWARDS = rf"(?={_PARTICLES}(?:$|{_COMMA})|{_MORE}|\s*(?:之后|以后|后|很多遍|[一二两三四五几好\d]+[遍次回]))"
_BEFORE_SEEING = (
    rf"(?:{_COMPANY}|再|去|来|先|赶紧|尽快|抽空|找个?时间|回家|一起|一口气|重新|今晚|明天|后天|周末|晚上)*+"
)
_SEE = r"(?:看看|看一看|看一下|看完|看|重温|二刷|三刷|补看|补一下|补|刷)(?:一下|一遍|一次|下)?"
_SEEN = r"(?:看过|看完|看了|刷过|刷完|二刷了?|三刷了?|刷了|补完|补了|重温了|重温完)"
_TIMES = r"(?:\s*(?:[一二两三四五几\d]+|好几|很多|无数|[nN])\s*[遍次回])?"
_WANT = rf"(?:想要?|打算|准备|计划|决定|期待|希望能?|要(?!不)){_BEFORE_SEEING}{_SEE}"
_SOON = r"(?:今晚|明天|明晚|后天|周末|[这下]周末?|晚上|待会儿?|一会儿?|改天|有空)"
_NOT_WANT = (
    r"(?:不太|不怎么|不大|再也不|再不|并不|不|没)(?:再)?(?:想|打算|准备|愿意|要)(?:再|去)*+(?:看到|看见|看|刷到)|"
    r"懒得(?:去)?看|(?:不会|绝不会?)(?:再|去)*+看"
)
_NO_INTEREST = r"(?:完全|根本|一点都?|也)?(?:不感兴趣|不太感兴趣|没有?(?:什么|啥|任何)?兴趣|无感|提不起兴趣)"
_STOP = r"(?:请|以后|就)*+(?:别|不要|不用|甭|停止)(?:再)?(?:给我|跟我|向我)?(?:推荐|推送|推)(?:给我)?"
_LIST = r"(?:片单|想看|待看|观影|心愿|愿望|收藏|稍后观看|watch\s*list|列表|清单)(?:的)?(?:列表|清单|片单|单|夹)?"
_SEEN_LIST = r"(?:已看|看过|已观看)的?(?:列表|清单|片单)"
_PUT = (
    r"(?:都|也|全部?|一起|一并|给我|帮我|先|再)*+\s*(?:加入|添加|加|放|收藏|收|存|列|塞)(?:到|进|入|在|至|"
    r"上)*+\s*(?:我的?|你的)?\s*"
)
_HINT_END = r"(?=(?:里面?|中|内|去|上|吧|了|啦|啊|好|谢谢|可以|行|吗|么|嘛|[~～\s])*(?:$|[，,]))"
_NOT_ASKED_IF = r"(?!\s*(?:里面?|中)?(?:了\s*[没吗么]|没))"

# --- English. ---
_START_EN = r"(?:^|[，,:;—–-]|\b(?:and|but|so|then|because)\b)\s*"
_LEAD_EN = (
    r"(?:(?:well|ok(?:ay)?|hey|hi|hello|so|and|but|also|then|now|yes|yeah|no|nope|actually|honestly|btw|by the way|"
    r"please|thanks|last (?:night|week|weekend|month|year)|yesterday|today|tonight|(?:this|next) (?:weekend|week)|"
    r"tomorrow|finally|recently|cinewire)\b[\s,]*)*+"
)
_ADVERB = (
    r"(?:(?:really|also|still|just|definitely|so|absolutely|actually|already|finally|recently|totally|both|kind of|"
    r"have|always|once|all)\s+)*+"
)
_I = r"(?:i|we|my (?:wife|husband|girlfriend|boyfriend|friends?|kids|family|partner|son|daughter) and i)"
_INTRO_EN = r"\s+(?:the\s+)?(?:(?:movie|film)s?\s+)?(?:called\s+)?[:]?\s*(?:the\s+)?(?:\d{4}\s+)?"
_AFTER_EN = r"(?:\s*\(\d{4}\)|\s+(?:from\s+)?\d{4}(?=\s*(?:$|[,，])))?(?:\s+(?:movie|film))?"
_ONE_EN = rf"(?:(?:the\s+)?(?:\d{{4}}\s+)?{_F}{_AFTER_EN})"
_FILMS_EN = (
    rf"(?P<films>{_ONE_EN}(?:(?:\s*[,，、]\s*(?:and\s+)?|\s+and\s+|\s*[&/+]\s*|和)(?:then\s+)?{_ONE_EN}){{0,19}})"
)
_END_EN = (
    r"(?=\s*(?:$|[，,;)]|[—–]|\s-\s)|\s+(?:and|but|so|because|since|though|although|while|tonight|tomorrow|today|"
    r"yesterday|again|this|next|last|later|soon|some ?day|one day|sometime|too|as well|first|please|now|with|"
    r"in (?:the )?(?:imax|theat\w+|cinemas?)|on|at|before|after|once|twice|already|ago|a (?:few|couple|long|week|"
    r"month|year)|when|for the|many|several|\w+ times?|anymore|any more|ever|at all|right|thanks|thank you|pls|"
    r"lol)\b)"
)
_WISHES = (
    rf"(?:{_I}(?:'?d|\s+would)?\s+{_ADVERB}(?:want to|wanna|want to go|like to|love to|plan to|intend to|hope to|"
    rf"need to|have to|can'?t wait to|cannot wait to|decided to)|{_I}(?:'?m|\s+am|'?re|"
    rf"\s+are)\s+{_ADVERB}(?:going to|gonna|planning to|hoping to|dying to|about to|excited to)|{_I}(?:'?ll|"
    rf"\s+will)|{_I}(?:'?ve|\s+have)\s+{_ADVERB}(?:been\s+)?(?:always\s+)?(?:wanted to|wanting to|meaning to|"
    rf"planning to)|"
    r"(?:really\s+)?(?:want to|wanna|would like to|would love to|planning to|going to|gonna|can'?t wait to))"
)
_SEE_EN = r"\s+(?:go\s+)?(?:finally\s+)?(?:watch|see|check out|catch|rewatch|re-watch|stream)"
_SEEING_EN = (
    rf"{_I}(?:'?m|\s+am|'?re|\s+are)\s+{_ADVERB}(?:planning on|looking forward to|thinking of)\s+(?:watching|seeing)"
)
_SEEN_EN = (
    rf"(?:{_I}(?:'?ve|\s+have)?\s+{_ADVERB}(?:seen|watched|saw|finished watching|finished|rewatched|re-watched|"
    rf"caught)|(?:already\s+|just\s+|finally\s+)*+(?:seen|watched|saw|finished(?: watching)?|rewatched))"
)
_NOT_EN = (
    rf"(?:(?:{_I}(?:'?m|\s+am|'?re|\s+are)\s+)?{_ADVERB}(?:not|no longer|never)\s+(?:really\s+|at all\s+|that\s+|"
    rf"very\s+)?"
    r"interested in(?:\s+(?:watching|seeing))?|"
    rf"{_I}\s+(?:really\s+|just\s+)?(?:don'?t|do not|won'?t|will not|never|would never|wouldn'?t|no longer|"
    rf"would rather not)\s+"
    r"(?:really\s+|ever\s+|even\s+)?(?:(?:want|care|plan|need|wish|like)\s+to\s+|wanna\s+|feel like\s+)?(?:watch|"
    r"see|watching|seeing)|"
    rf"{_I}\s+have no interest in(?:\s+(?:watching|seeing))?|{_I}(?:'?ll|\s+will)\s+(?:skip|pass on)|"
    r"(?:please\s+)?(?:don'?t|do not|stop|never)\s+(?:ever\s+)?(?:recommend(?:ing)?|suggest(?:ing)?|"
    r"show(?:ing)?)(?:\s+me)?|(?:please\s+)?(?:skip|hide|dismiss)|no more)"
)
_ASKS_EN = (
    r"(?:(?:please|can you|could you|would you|will you|pls|kindly|i want to|i'?d like to|i'?d like you to|"
    r"i want you to|let'?s|help me|go ahead and|just|also|then|and|so|ok(?:ay)?|hey|hi|now)\b[\s,]*)*+"
)
_TO_LIST = (
    r"\s+(?:to|on|in|onto|into)\s+(?:my|the|our)\s+(?:movie\s+|film\s+)?(?:watch[- ]?list|(?:to|"
    r"want)[- ](?:to[- ])?watch(?: list)?|queue|list|favou?rites)\b"
)
_TO_SEEN_LIST = r"\s+(?:as (?:watched|seen)|(?:to|on|in)\s+(?:my|the)\s+(?:watched|seen)(?: list)?)\b"
_PRONOUN_EN = r"\s+(?:it|that|this|them)(?:\s+(?:both|all|one|movie|film))?"


@dataclass(frozen=True, slots=True)
class _Rule:
    """`asks`: said as a question it is a request. `points_back`: it says nothing of a film of which more was said."""

    state: WatchlistState
    text: str
    asks: bool = False
    points_back: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        return _compiled(self.text)


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """When a rule is first used: all of them take a fifth of the time that the whole server needs to start."""
    return re.compile(pattern, re.IGNORECASE)


_PRAISED = (
    r"(?:\s*(?:看起来|听起来|好像|感觉|应该)?(?:很|挺|真|还|也|特别|非常)?(?:不错|好看|有意思|有趣|经典|很棒|很火|"
    r"精彩)(?:的样子)?)?"
)
_TOPIC = (
    rf"(?:{_WHEN}|{_LINK}|你(?:刚才|上面|刚刚|上次|之前)?(?:说|推荐|提到?|讲)(?:给我)?的|电影|影片|那部|这部|其中|"
    rf"像|关于|对于)*+"
)
_FRONT = rf"{_START}{_TOPIC}{_FILMS}{_PRAISED}\s*[，,]?\s*(?:这些|这[几两]部|两部|三部)?{_LEAD}"
_AND_STOP = rf"(?={_PARTICLES}(?:$|{_COMMA}|{_STOP}))"
_PRAISED_EN = r"(?:\s+(?:looks?|sounds?|seems?|is|are)\s+(?:\w+\s+)?\w+)?"

_MARKED_AS: tuple[tuple[WatchlistState, str], ...] = (
    ("to_watch", "想看|待看"),
    ("watched", "看过|已看|看完|已观看"),
    ("dismissed", "不想看|不感兴趣"),
)
_SAID_OF_IT: tuple[tuple[WatchlistState, str], ...] = (
    ("to_watch", rf"{_WISHES}{_SEE_EN}"),
    ("watched", _SEEN_EN),
    ("dismissed", _NOT_EN),
)

_RULES = (
    _Rule("to_watch", rf"{_START}{_LEAD}{_WANT}{_INTRO}{_FILMS}{_END}"),
    _Rule(
        "to_watch",
        rf"{_START}(?:我们?|咱们?|那|就|{_LINK})*+{_SOON}(?:我们?|就|再|要|会|来|一起|{_COMPANY})*+去?看{_INTRO}{_FILMS}{_END}",
    ),
    _Rule("watched", rf"{_START}{_LEAD}去?{_SEEN}{_TIMES}了?{_INTRO}{_FILMS}{_AFTERWARDS}"),
    _Rule("watched", rf"{_START}{_LEAD}看的(?:是|就是){_INTRO}{_FILMS}{_END}"),
    _Rule("to_watch", rf"{_START}{_LEAD}想看的(?:电影|片子)?(?:是|就是){_INTRO}{_FILMS}{_END}"),
    _Rule("dismissed", rf"{_START}{_LEAD}(?:{_NOT_WANT}){_INTRO}{_FILMS}{_END}"),
    _Rule("dismissed", rf"{_START}{_LEAD}对{_INTRO}{_FILMS}{_LEAD}{_NO_INTEREST}{_END}"),
    _Rule("dismissed", rf"{_START}{_ASKS}{_STOP}{_INTRO}{_FILMS}{_END}", asks=True),
    _Rule("dismissed", rf"{_START}{_ASKS}(?:屏蔽|拉黑|忽略|跳过){_INTRO}{_FILMS}{_END}", asks=True),
    _Rule("to_watch", rf"{_START}{_ASKS}(?:把|将)?{_INTRO}{_FILMS}{_PUT}{_LIST}{_NOT_ASKED_IF}{_HINT_END}", asks=True),
    _Rule(
        "watched", rf"{_START}{_ASKS}(?:把|将)?{_INTRO}{_FILMS}{_PUT}{_SEEN_LIST}{_NOT_ASKED_IF}{_HINT_END}", asks=True
    ),
    _Rule(
        "to_watch",
        rf"{_START}{_ASKS}(?:加入|添加|加|收藏)(?:一下|上)?{_INTRO}{_FILMS}\s*(?:到|进|入|至)\s*(?:我的?)?\s*{_LIST}{_HINT_END}",
        asks=True,
    ),
    _Rule("to_watch", rf"{_START}{_ASKS}(?:收藏)(?:一下)?{_INTRO}{_FILMS}{_END}", asks=True),
    *(
        _Rule(
            state,
            rf"{_START}{_ASKS}(?:把|将)?{_INTRO}{_FILMS}(?:都|也|全部?|给我|帮我)*+(?:标记?|设置?|改|标注|记)(?:成|"
            rf"为|作|到)?[“\"「]?(?:{words}){_HINT_END}",
            asks=True,
        )
        for state, words in _MARKED_AS
    ),
    _Rule("to_watch", rf"{_START_EN}{_LEAD_EN}(?:{_WISHES}{_SEE_EN}|{_SEEING_EN}){_INTRO_EN}{_FILMS_EN}{_END_EN}"),
    _Rule("watched", rf"{_START_EN}{_LEAD_EN}{_SEEN_EN}{_INTRO_EN}{_FILMS_EN}{_END_EN}"),
    _Rule("dismissed", rf"{_START_EN}{_LEAD_EN}{_NOT_EN}{_INTRO_EN}{_FILMS_EN}{_END_EN}"),
    _Rule(
        "to_watch",
        rf"{_START_EN}{_ASKS_EN}(?:add|put|save|include|throw|stick){_INTRO_EN}{_FILMS_EN}{_TO_LIST}",
        asks=True,
    ),
    _Rule("to_watch", rf"{_START_EN}{_ASKS_EN}(?:bookmark|watchlist){_INTRO_EN}{_FILMS_EN}{_END_EN}", asks=True),
    _Rule("watched", rf"{_START_EN}{_ASKS_EN}(?:mark|add|put){_INTRO_EN}{_FILMS_EN}{_TO_SEEN_LIST}", asks=True),
    _Rule("watched", rf"{_FRONT}{_SEEN}{_TIMES}(?={_PARTICLES}(?:$|{_COMMA}))", points_back=True),
    _Rule(
        "to_watch",
        rf"{_FRONT}(?:想要?|打算|准备|计划){_BEFORE_SEEING}{_SEE}(?={_PARTICLES}(?:$|{_COMMA}))",
        points_back=True,
    ),
    _Rule(
        "dismissed",
        rf"{_FRONT}(?:{_NOT_WANT}|不看了|{_NO_INTEREST}|(?:就|还是)*+(?:算了|免了|跳过|pass)吧?){_AND_STOP}",
        points_back=True,
    ),
    _Rule("dismissed", rf"{_FRONT}{_STOP}(?={_PARTICLES}(?:$|{_COMMA}))", asks=True, points_back=True),
    _Rule(
        "dismissed",
        rf"{_START_EN}{_LEAD_EN}{_FILMS_EN}\s+(?:is not|isn'?t|are not|aren'?t)\s+(?:really\s+)?for me{_END_EN}",
    ),
    *(
        _Rule(
            state,
            rf"(?:^|[,，]\s*){_LEAD_EN}(?:i heard |"
            rf"i think )?{_FILMS_EN}{_PRAISED_EN}\s*[,，:;–—-]?\s*{_LEAD_EN}{verb}{_PRONOUN_EN}{_END_EN}",
            points_back=True,
        )
        for state, verb in _SAID_OF_IT
    ),
)


def wishes(text: str) -> dict[int, WatchlistState]:
    """What is said of the films that FILM and OTHER_FILM stand for, by where in the text the mark stands.

    For a thread: the first time takes a tenth of a second.
    """
    found: dict[int, WatchlistState] = {}
    for start, sentence, is_question in _sentences(text.replace("’", "'").replace("‘", "'")):
        for rule in _RULES:
            for match in rule.pattern.finditer(sentence.text):
                asked = is_question and not re.search(_COMMA, sentence.text[match.end() :])
                if asked and not rule.asks:
                    continue
                for at in range(*match.span("films")):
                    place = start + sentence.places[at]
                    if sentence.text[at] == FILM and not (rule.points_back and place in found):
                        found[place] = rule.state
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class _Sentence:
    """`places` says where each character stood before commas were put where the sentence runs on."""

    text: str
    places: list[int]


def _sentences(text: str) -> Iterator[tuple[int, _Sentence, bool]]:
    for match in _SENTENCE.finditer(text):
        words = match[0].rstrip("。！!？?；;\n…. ")
        is_question = bool(re.search("[?？]", match[0][len(words) :]))
        commas = {found.end(found.lastindex or 0) for found in _RUNS_ON.finditer(words)}
        marked, places = "", []
        for at, character in enumerate(words):
            if at in commas:
                marked += "，"
                places.append(at)
            marked += character
            places.append(at)
        yield match.start(), _Sentence(marked, places), is_question
