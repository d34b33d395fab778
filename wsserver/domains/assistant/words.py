"""The words in which films are asked for, in Chinese and English: genres, languages, orders, aspects, courtesies.

Only words and patterns are here; `questions.py` reads questions with them.
"""

import re
from enum import StrEnum

from storage.film_filter import Order

FILM, PERSON = "\ue000", "\ue001"
"""What stands in a question in the place of a film's title and of a person's name while the rest is read."""


class Aspect(StrEnum):
    """What is asked about a film."""

    DIRECTOR = "director"
    CAST = "cast"
    DATE = "date"
    RUNTIME = "runtime"
    RATING = "rating"
    GENRE = "genre"
    PLOT = "plot"
    LANGUAGE = "language"
    TITLES = "titles"
    WRITER = "writer"
    MUSIC = "music"
    PHOTOGRAPHY = "photography"
    UNKNOWN = "unknown"
    """Something that no catalogue of TMDB's film details answers."""


def _any(words: str) -> re.Pattern[str]:
    return re.compile(words, re.IGNORECASE)


GENRES: tuple[tuple[int, re.Pattern[str]], ...] = tuple(
    (genre_id, _any(words))
    for genre_id, words in (
        (878, r"科幻|太空片|\bsci[- ]?fi\b|\bscience[- ]fiction\b"),
        (28, r"动作|武打|\baction\b"),
        (12, r"冒险|探险|\badventures?\b"),
        (16, r"动画|动漫|卡通|\banimat(?:ed|ions?)\b|\banime\b|\bcartoons?\b"),
        (35, r"喜剧|搞笑|\bcomed(?:y|ies)\b|\bfunny\b"),
        (80, r"犯罪|黑帮|警匪|\bcrime\b|\bgangsters?\b"),
        (99, r"纪录片?|\bdocumentar(?:y|ies)\b"),
        (10749, r"爱情|浪漫|言情|\bromances?\b|\bromantic\b|\blove stor(?:y|ies)\b|\brom-?coms?\b"),
        (10751, r"家庭片?|合家欢|亲子|儿童|孩子|小朋友|\bfamily\b|\bkids?\b|\bchildren'?s\b"),
        (14, r"奇幻|魔幻|\bfantas(?:y|ies)\b"),
        (36, r"历史(?!上)|\bhistor(?:y|ical)\b"),
        (27, r"恐怖|鬼片|吓人|\bhorrors?\b|\bscary\b"),
        (10402, r"音乐|歌舞|\bmusicals?\b|\bmusic\b"),
        (9648, r"悬疑|推理|侦探|烧脑|\bmyster(?:y|ies)\b|\bdetective\b"),
        (53, r"惊悚|\bthrillers?\b"),
        (10752, r"战争|\bwars?\b"),
        (37, r"西部片?|牛仔|\bwesterns?\b"),
        (18, r"剧情(?:片|类)|文艺片?|\bdramas?\b"),
    )
)
GENRE_NAMES: dict[int, tuple[str, str]] = {
    28: ("动作", "action"),
    12: ("冒险", "adventure"),
    16: ("动画", "animation"),
    35: ("喜剧", "comedy"),
    80: ("犯罪", "crime"),
    99: ("纪录", "documentary"),
    18: ("剧情", "drama"),
    10751: ("家庭", "family"),
    14: ("奇幻", "fantasy"),
    36: ("历史", "history"),
    27: ("恐怖", "horror"),
    10402: ("音乐", "music"),
    9648: ("悬疑", "mystery"),
    10749: ("爱情", "romance"),
    878: ("科幻", "science fiction"),
    10770: ("电视电影", "TV movie"),
    53: ("惊悚", "thriller"),
    10752: ("战争", "war"),
    37: ("西部", "western"),
}
WITHOUT = re.compile(
    r"(?:不要|不想看|不看|不是|别|除了|排除|除去|非|\bnot?\b|\bwithout\b|\bexcept\b|\bother than\b)\s*(?:太)?$", re.I
)
EITHER = re.compile(r"或者?|还是|\bor\b", re.I)

# TMDB knows Mandarin as zh and Cantonese as cn. Countries are told by the original language: nothing else is kept.
LANGUAGES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = tuple(
    (codes, _any(words))
    for codes, words in (
        (("cn",), r"粤语|港片|香港|\bcantonese\b|\bhong kong\b"),
        (("zh", "cn"), r"国产|华语|中文(?!名|片名)|国语|中国|大陆|台湾|\bchinese(?! (?:title|name))\b|\bmandarin\b"),
        (("ja",), r"日语|日本|日漫|日(?=片|影)|\bjapan(?:ese)?\b|\banime\b"),
        (("ko",), r"韩语|韩国|韩(?=片|影)|\bkorean?\b"),
        (("fr",), r"法语|法国|\bfrench\b|\bfrance\b"),
        (("de",), r"德语|德国|\bgerman(?:y)?\b"),
        (("es",), r"西班牙语?|\bspanish\b|\bspain\b"),
        (("it",), r"意大利语?|\bitalian\b|\bitaly\b"),
        (("hi",), r"印地语|印度|宝莱坞|\bindian?\b|\bhindi\b|\bbollywood\b"),
        (("ru",), r"俄语|俄罗斯|\brussian?\b"),
        (("th",), r"泰语|泰国|\bthai(?:land)?\b"),
        (
            ("en",),
            r"英语|英文(?!名|片名)|好莱坞|美国|美(?=片|影)|英国|\benglish\b|\bhollywood\b|\bamerican\b|\bbritish\b",
        ),
    )
)
LANGUAGE_NAMES: dict[str, tuple[str, str]] = {
    "zh": ("华语", "Chinese"),
    "cn": ("粤语", "Cantonese"),
    "ja": ("日语", "Japanese"),
    "ko": ("韩语", "Korean"),
    "fr": ("法语", "French"),
    "de": ("德语", "German"),
    "es": ("西班牙语", "Spanish"),
    "it": ("意大利语", "Italian"),
    "hi": ("印地语", "Hindi"),
    "ru": ("俄语", "Russian"),
    "th": ("泰语", "Thai"),
    "en": ("英语", "English"),
}

ORDERS: tuple[tuple[Order, re.Pattern[str]], ...] = tuple(
    (order, _any(words))
    for order, words in (
        (Order.WORST, r"(?:评分|分数)?(?:最低|最差|最烂)(?:分)?|烂片|\bworst\b|\blowest[- ](?:rated|ratings?)\b"),
        (
            Order.BEST,
            r"(?:评分|分数|口碑|评价)?(?:最高|更高|较高|比较高|很高)(?:分)?|(?:口碑)?最好(?:看)?|最佳|高分|好评|"
            r"口碑好|"
            r"(?:评分|分数)高(?:一点|一些|的)?|经典|最棒|神作|必看|"
            r"\bbest\b|\btop[- ]rated\b|\bhighly[- ]rated\b|\bhigh[- ]rated\b|\bhighest[- ](?:rated|ratings?)\b|"
            r"\bgreatest\b|\bacclaimed\b|\bclassics?\b|\bmust[- ]see\b|\bmasterpieces?\b|\btop\b(?= \d|"
            r" \w+ (?:movies|films))",
        ),
        (
            Order.POPULAR,
            r"热门|热播|最火|火爆|很火|流行|受欢迎|人气(?:最?高)?|有名|著名|知名|大片|"
            r"\b(?:most )?popular\b|\btrending\b|\bhot\b|\bfamous\b|\bblockbusters?\b",
        ),
        (Order.OLDEST, r"最早|最老|\boldest\b|\bearliest\b"),
        (Order.LONGEST, r"(?:时长|片长)?最长|\blongest\b"),
        (Order.SHORTEST, r"(?:时长|片长)?最短|\bshortest\b"),
        (
            Order.NEWEST,
            r"最新|最近|近期|新片|新电影|新上映|刚上映|新出|正在上映|正在热映|热映|院线|"
            r"\bnewest\b|\blatest\b|\b(?:most )?recent(?:ly)?\b|\bnew\b|\bnow playing\b|\bin (?:theat(?:er|re)s|"
            r"cinemas?)\b",
        ),
    )
)
UPCOMING = _any(r"即将上映|快要上映|待映|将要上映|还没上映|\bupcoming\b|\bcoming soon\b")
OLD = _any(r"老片|老电影|怀旧|\bold (?=movies?|films?|\w+ (?:movies|films))")
SHORT = _any(r"(?:时长|片长)?(?:比较|较|很)?短(?:一点|一些|的|片)|短片|\bshort(?:er)?\b(?! (?:stor|of))")
LONG = _any(r"(?:时长|片长)(?:比较|较|很)?长的?|长片|\blong(?:er)?\b(?= (?:movie|film|one|\w+ (?:movies|films)))")

ASPECTS: tuple[tuple[Aspect, re.Pattern[str]], ...] = tuple(
    (aspect, _any(words))
    for aspect, words in (
        (
            Aspect.UNKNOWN,
            r"票房|预算|成本|投资|获奖|获得?了?(?:什么|哪些|哪个)?奖|什么奖|得奖|奖项|拿奖|奥斯卡|在哪里?(?:能|可以)?看|哪里?(?:能|可以)看|在线|下载|"
            r"资源|预告|续集|"
            r"彩蛋|结局|影评|取景|拍摄地|\bbox[- ]office\b|\bbudget\b|\bgross(?:ed)?\b|\boscars?\b|\bawards?\b|"
            r"\bstream(?:ing)?\b|"
            r"\bdownload\b|\btrailers?\b|\bsequels?\b|\bending\b|\breviews?\b|\bwhere (?:can|to|was)\b",
        ),
        (Aspect.WRITER, r"编剧|谁写的|剧本|\bwr(?:ote|itten|iters?)\b|\bscreenplay\b|\bscreenwriters?\b"),
        (Aspect.MUSIC, r"配乐|作曲|\bcompos(?:er|ed)\b|\bscore by\b|\bsoundtrack\b"),
        (Aspect.PHOTOGRAPHY, r"摄影师?|\bcinematograph(?:er|y)\b"),
        (
            Aspect.LANGUAGE,
            r"什么语言?|哪国|哪个国家|原始语言|\b(?:what|which|original) language\b|\bwh(?:at|ich) country\b",
        ),
        (
            Aspect.TITLES,
            r"(?:英文|中文|原|原版|外文)(?:片)?名|译名|\b(?:chinese|english|original) (?:title|name)\b|\bcalled in\b",
        ),
        (
            Aspect.RUNTIME,
            r"片长|时长|(?:哪[个部]|谁)(?:更|比较)?[长短]|多长(?:时间)?|多久|(?:几|多少)个?(?:分钟|小时)|"
            r"\bhow long\b|\brun(?:ning)?[- ]?time\b|\blength\b|\blonger\b|"
            r"\bhow many (?:minutes|hours)\b|更长|比较长",
        ),
        (
            Aspect.RATING,
            r"评分|(?:哪[个部]|谁)(?:更|比较)?(?:好|高)|多少分|几分|打分|分数|口碑|评价|好看吗|好看不|好不好看|"
            r"值得(?:一)?看|好看|怎么样|如何|更好|"
            r"\brat(?:ings?|ed)\b|\bscores?\b|\bany good\b|\bhow good\b|\bworth\b|\bis \ue000 good\b|\bbetter\b",
        ),
        (
            Aspect.DATE,
            r"上映|(?:哪[个部]|谁)(?:更|比较)?[早晚新老]|哪一?年|什么时候|何时|年份|几几年|几年的|首映|日期|更早|"
            r"更新|"
            r"\bwhen\b|\b(?:what|which) year\b|\breleased?\b|\bc[oa]me out\b|\byear\b|\bdate\b|\bnewer\b|"
            r"\bolder\b|\bhow old\b",
        ),
        (
            Aspect.CAST,
            r"主演|演员|谁演|(?<!导)演[了的过]|出演|参演|阵容|卡司|饰演|扮演|主角|角色|男主|女主|演谁|"
            r"\bstar(?:s|ring|red)?\b|\bcast\b|\bact(?:s|ed|ors?|resse?s?|ing)\b|\bact\b|\bplay(?:s|ed|ing)?\b|"
            r"\bwho(?:'s| is| was| are| were) in\b|\bappear(?:s|ed)?\b|\bcharacters?\b",
        ),
        (
            Aspect.DIRECTOR,
            r"谁?导演|执导|谁导的?|谁拍的?|\bdirect(?:s|ed|or|ors|ing)?\b|\bwho made\b|\bfilm-?maker\b",
        ),
        (
            Aspect.GENRE,
            r"(?:什么|哪种|哪类|属于|啥)(?:类型|片|题材)|类型|\bgenres?\b|\b(?:what|which) (?:kind|type|sort)\b",
        ),
        (
            Aspect.PLOT,
            r"讲(?:的|了|述)?(?:是)?(?:个|一个)?(?:什么|啥)|说的?是?什么|剧情|情节|故事|内容|简介|梗概|"
            r"\bwhat(?:'s| is| was)? .{0,40}\babout\b|\bplot\b|\bstor(?:y|yline)\b|\bsynopsis\b|\bsummary\b|"
            r"\boverview\b",
        ),
    )
)

RECOMMEND = _any(
    r"推荐|求|安利|来(?=[几一二两三四五六七八九十\d]+部)|\brecommend\b|\bsuggest(?:ions?)?\b|\bshow me\b|\bgive me\b"
)
FILM_WORD = _any(
    r"电影|影片|片子|片单|(?<=[\u4e00-\u9fff])片|部|看(?:什么|啥|点)|作品|\bmovies?\b|\bfilms?\b|"
    r"\bflicks?\b|\bwatch\b|\bpictures?\b"
)
SIMILAR = _any(
    r"类似|相似|差不多|同类|像\s*\ue000|\ue000\s*(?:那样|这样|一样)|\blike \ue000|\bsimilar\b|"
    r"\bsame (?:vibe|style|mood)\b|"
    r"(?:喜欢|爱看)(?:看|过)?\s*\ue000|\b(?:lik|lov|enjoy)ed? \ue000|"
    r"(?:像|跟)(?:它|这部)|\b(?:movies|films|something|more) like (?:it|that|this)\b"
)
SERIES = _any(r"系列|三部曲|全集|\bseries\b|\btrilogy\b|\bsaga\b|\bfranchise\b|\ue000 (?:movies|films)\b")
COUNT = _any(r"多少部|多少(?:个)?(?:电影|片)|(?:有|了|过|共)几部|一共(?:有)?|总共|\bhow many\b|\bnumber of\b")
ALL = _any(
    r"哪些|所有|全部|都有|什么电影|哪几部|\ball\b|\bwhat (?:else|movies|films)\b|\bwhich (?:movies|"
    r"films)\b|\blist\b|\bfilmography\b"
)
MORE = _any(
    r"还有(?!谁)(?:什么|哪些)?(?:别的|其他|其它|更多|类似)?|再(?:来|推荐|给|说)|换(?:一?批|一些|几部|一部|"
    r"个|一个)|更多|其他的?|其它的?|别的|下一批|继续|"
    r"\bmore\b|\bothers?\b|\banother\b|\belse\b|\bdifferent ones?\b|\bnext\b"
)
INSTEAD = _any(
    r"^\s*(?:那么?|只要|只看|要|换成|改成|如果是)|呢\s*[?？]?\s*$|^\s*(?:how about|what about|and|only|just|but)\b"
)
THAT_FILM = _any(
    r"它|这部|那部|这片|该片|此片|本片|这个?电影|刚才(?:那|说的)|上面(?:那|说的)|"
    r"\bit'?s?\b|\bth(?:is|at) (?:movie|film|one)\b|\bthe (?:movie|film)\b|\bthat\b"
)
THAT_PERSON = _any(
    r"(?<!其)[他她](?:们)?|这个?导演|该导演|这位|这个?演员|\bhe\b|\bshe\b|\bhim\b|\bhis\b|\bher\b|"
    r"\bthis (?:director|actor|actress)\b"
)
OTHER_WORK = _any(r"还(?:有|拍|导|演)|其他|其它|别的|\belse\b|\bother\b|\bmore\b")
BIOGRAPHY = _any(
    r"是谁|多大|几岁|生日|出生|哪里人|哪国人|老婆|妻子|丈夫|身高|结婚|\bwho(?:'s| is)\b|\bhow old\b|"
    r"\bborn\b|\bmarried\b|\bwife\b|\bhusband\b|\bheight\b"
)
ABOUT_FILM = _any(
    r"介绍|说说|讲讲|聊聊|知道|看过|看了|听说|\btell me\b|\bintroduce\b|\bheard of\b|\bknow\b|\babout\b|"
    r"\bwho\b|\bdo you have\b"
)
YES = _any(
    r"^\W*(?:是的?|对的?|没错|嗯+|就是(?:它|这个|这部)?|好的?|yes|yeah|yep|yup|right|correct|exactly|sure|ok)\W*$"
)

GREETING = _any(
    r"^\W*(?:你好|您好|嗨|哈喽|哈啰|早上好|下午好|晚上好|早安|晚安|在吗|hi|hello|hey|good (?:morning|"
    r"afternoon|evening)|what'?s up|greetings)"
    r"(?:\s*(?:啊|呀|there|cinewire))?\W*$"
)
THANKS = _any(
    r"^\W*(?:非常|太|多)?(?:谢谢|感谢|谢了|多谢)(?:你|您|啦|了)?\W*$|^\W*(?:thanks?(?: you)?(?: (?:so|"
    r"very) much| a lot)?|thx|ty|cheers)\W*$"
)
GOODBYE = _any(r"^\W*(?:再见|拜拜|回见|bye(?:[- ]?bye)?|goodbye|see you(?: later)?)\W*$")
ABILITIES = _any(
    r"你(?:都)?(?:能|会|可以)(?:帮我)?(?:做|干|回答)?(?:些)?(?:什么|啥)|你是(?:谁|什么|机器人|人|真人|ai|"
    r"chatgpt|gpt|大?(?:语言)?模型)|你叫什么|"
    r"怎么(?:用|使用)(?:你)?\W*$|^\W*(?:帮助|功能|help)\W*$|"
    r"\bwhat can you do\b|\bwho are you\b|\bwhat are you\b|\bare you (?:an? )?(?:ai|bot|robot|human|"
    r"chatgpt|language model|llm)\b|"
    r"\bwhat(?:'s| is) your name\b|\bhow do(?:es)? (?:you|this) work\b"
)

FILLERS = _any(
    r"请问一?下?|请|麻烦|帮我|帮忙|给我|告诉我|我(?:们)?(?:今晚|今天|周末|晚上)?(?:就)?(?:想|要|很|最|"
    r"非常|超)?(?:要|看|找|知道|了解|听|问)?|你(?:们)?(?:觉得|认为|知道|能|可以|会)?|您|"
    r"想|要|只|换|找找?|看看?|看[过了完]|推荐|介绍|说说|讲讲|聊聊|安利|求|来|一下|一些|一点|点|有没有|"
    r"有什么|有哪些|哪些|哪几|哪个|哪一?部|什么|啥|谁|多少|几|哪|"
    r"可以|能不能|能否|可否|能|会|知道|觉得|应该|比较|更|最|很|非常|特别|超级?|都|也|还|就|又|再|是不是|"
    r"是否|是|有|没有?|在|里面?|中|上|下|吗|呢|吧|啊|呀|嘛|哦|哈|了|过|的|地|得|"
    r"和|与|跟|及|以及|或者?|但|且|并且|而且|这|那|电影|影片|片子|片单|片|作品|拍|导|演|部|个|种|类型?|"
    r"题材|系列|好看|不错|值得|精彩|优秀|好|适合|关于|之间|合作|一起|共同|主题|最近|其中|分别|"
    r"喜欢|爱看|听说|叫|名字|对|把|让|被|从|到|给|年|分|版|大家|今晚|晚上|今天|周末|随便|随机|任意|"
    r"\b(?:the|a|an|i|i'm|i'd|i've|me|my|we|us|you|your|is|are|was|were|be|been|do|does|did|done|have|has|"
    r"had|can|could|would|will|should|shall|may|"
    r"please|tell|show|give|find|get|list|want|need|know|like|liked|love|loved|enjoy|enjoyed|see|seen|"
    r"watch|watched|watching|look|looking|think|introduce|explain|describe|"
    r"who|whom|what|what's|who's|which|when|where|how|why|that|this|these|those|it|its|it's|there|there's|"
    r"any|some|something|anything|all|every|few|couple|many|much|more|"
    r"most|very|really|good|great|nice|cool|interesting|of|in|on|at|by|for|from|to|with|about|and|or|but|"
    r"if|so|as|than|then|between|also|too|not|no|other|else|one|ones|"
    r"movies?|films?|flicks?|pictures?|titles?|features?|recommend(?:ations?|ed)?|suggest(?:ions?)?|"
    r"together|both|made|make|makes|come|came|out|set|tonight|today|ok|okay|hey|hi|"
    r"let|let's|just|only|best|ever|time|kind|type|sort|works?|worked|collaborat(?:e|ed|ions?)|feel|"
    r"feeling|mood|us|story|again|called|named|title|say|said)\b"
)

ORDINARY = frozenset(
    """
    it her him us them up home heat alien aliens seven hero speed ghost room drive brave cars rush taken
    wolf frozen gravity split signs soul big old nope war wonder life love once crash hunger arrival contact
    network rain light moon star stars fire ice babe casino species congo prisoners assassins hackers
    spotlight outbreak ransom mask disclosure thing others help firm fan net client crow rock relic shadow
    phantom craft fly game ring father mother brother son girl boy man woman day night time out get inside
    about in off face true lies alone the a an for to of and on at with into wild die hard first cut be
    there will blood best horse house money train city paris green mile lost found now then what who where
    when how why pretty good bad boys nice guys bird school music sound story tale legend movie film cast
    director actor terminal specialist eraser intern martian impossible great white black red blue dark
    perfect
    """.split()  # noqa: SIM905 - one word a line is 150 lines
)
"""English words that are also titles. Unquoted and uncapitalised, one is a title only when nothing else fits."""
ORDINARY_CHINESE = frozenset({"好家伙", "圣诞老人", "独立日", "第六感", "美国总统", "机器人", "蝴蝶效应"})
PRONOUNS = frozenset({"it", "her", "him", "us", "them", "它", "她", "他"})
