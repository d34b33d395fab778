"""What each field on the socket means, in English and Chinese: for the AsyncAPI document and the page that shows it.

A name means the same wherever it stands, unless it is said for one model by itself, as `Model.field`. What type a field
has and what its bounds are is in the declarations. A field without a meaning is shown without one; a test asks for it.
"""

from typing import NamedTuple, TypeAlias

Model: TypeAlias = str
Field: TypeAlias = str


class Said(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str


def meaning(model: Model, field: Field) -> Said | None:
    """What a field means, where that is said."""
    return MEANINGS.get(f"{model}.{field}") or MEANINGS.get(field)


_ENVELOPE = {
    "type": Said("What kind of message this is", "消息的种类"),
    "id": Said(
        "The client's own name for its message; every answer to it has it too",
        "客户端给消息起的名字；对它的每一条回答都带着它",
    ),
    "code": Said("0: it worked; otherwise as HTTP's status", "0 表示成功；否则与 HTTP 状态码一致"),
    "message": Said("For people to read", "给人看的文字"),
    "data": Said("What was asked for", "所要的内容"),
    "content": Said("What this frame has to say", "这一帧的内容"),
    "request_id": Said(
        "Which run of an answer; `resume` and `cancel` take it", "哪一次回答；`resume` 和 `cancel` 用它"
    ),
    "seq": Said(
        "The number of the frame in its run: 1, 2, 3 …; only `restart` may jump",
        "帧在这次回答里的编号：1、2、3……；只有 `restart` 可以跳号",
    ),
    "reason": Said("What programs switch on", "程序据此判断"),
    "retryable": Said("Whether the same message may be sent again", "同一条消息能否再发"),
    "retry_after_ms": Said("When to send it again; null: when you like", "多少毫秒后再发；null 表示随时"),
    "field": Said("Which field of the message was wrong, as `ids.3`", "消息里哪个字段有误，例如 `ids.3`"),
    "Goodbye.retry_after_ms": Said("When to come back", "多少毫秒后重连"),
    "Goodbye.code": Said("The code with which the socket will be closed", "随后关闭连接用的关闭码"),
    "ErrorFrame.type": Said(
        "`error`; a failed login has the type of its own reply", "`error`；登录失败时是它自己的回复类型"
    ),
    "ErrorFrame.code": Said("As HTTP's status", "与 HTTP 状态码一致"),
    "ErrorFrame.data": Said("Always null", "总是 null"),
    "ErrorFrame.content": Said("For pages that read `content` of every frame", "给只读各帧 `content` 的页面"),
}

_ACCOUNTS = {
    "LogIn.code": Said("A fresh code from `wx.login`; it works once", "刚从 `wx.login` 得到的 code，只能用一次"),
    "Authenticate.token": Said(
        "The token of a `login_response` or an `auth_response`", "`login_response` 或 `auth_response` 给的令牌"
    ),
    "openid": Said("Who the user is in this mini program", "用户在这个小程序里的标识"),
    "unionid": Said(
        "Who the user is in all apps of the same owner, where WeChat says it",
        "同一主体各应用通用的标识，微信给出时才有",
    ),
    "Profile.created_at": Said("When the user first was here", "用户第一次来的时间"),
    "secret": Said("The `guest_secret` of the guest's first answer", "访客第一次回答里的 `guest_secret`"),
    "guest_secret": Said(
        "Comes with a guest's first answer over HTTP; `adopt_guest` takes it",
        "访客经 HTTP 的第一次回答才有；`adopt_guest` 用它",
    ),
    "GuestAdopted.conversations": Said("How many conversations the user has more", "用户多了多少个会话"),
    "films": Said("How many films of the watchlist the user has more", "用户的片单多了多少部影片"),
    "session_id": Said("The session that the token belongs to", "令牌所属的会话"),
    "token": Said("A bearer token, for `auth`, the handshake and HTTP", "bearer 令牌，用于 `auth`、握手和 HTTP"),
    "expires_in": Said("Seconds until the token expires", "令牌多少秒后过期"),
    "server": Said("What a client needs to know of this server", "客户端需要知道的服务器参数"),
    "connection_id": Said("The name of this connection in the server's logs", "这条连接在服务器日志里的名字"),
    "ping_interval_s": Said("Send a `ping` this often, in seconds", "每隔多少秒发一次 `ping`"),
    "resume_window_s": Said(
        "How long after its end an answer's frames can be had, in seconds", "回答结束后多少秒内还能取到它的帧"
    ),
    "max_message_bytes": Said("The longest message that is taken, in bytes of UTF-8", "一条消息最长多少字节（UTF-8）"),
    "after": Said("`next_after` of the page before", "上一页的 `next_after`"),
    "next_after": Said("Where the next page begins; null on the last one", "下一页的起点；最后一页是 null"),
    "conversations": Said("Conversations on this page", "这一页的会话"),
    "messages": Said("Messages on this page", "这一页的消息"),
    "feedback": Said("What was thought of answers, on this page", "这一页的评价"),
    "profile": Said("Who the user is; on the first page only", "用户是谁；只在第一页"),
    "ExportPage.watchlist": Said("Films of the watchlist on this page", "这一页的片单影片"),
}

_CHATS = {
    "query": Said("The question", "问题"),
    "stream": Said("Whether frames are wanted while the answer is made", "是否要在生成时逐帧接收"),
    "ResumeRun.stream": Said("Has no effect: frames come always", "不起作用：总是逐帧"),
    "use_auto_rag": Said("Look into the film catalogue before answering", "先查片库再回答"),
    "kb_prefix": Said("The knowledge base to ask; `movie` is the film catalogue", "要查的知识库；`movie` 是片库"),
    "conversation_id": Said("Which conversation", "哪个会话"),
    "SendChat.conversation_id": Said(
        "Where the question goes; the standing conversation when left out", "问题进入哪个会话；不写则是常设会话"
    ),
    "ReadHistory.conversation_id": Said(
        "Whose messages; the standing conversation's when left out", "读哪个会话；不写则是常设会话"
    ),
    "ChatAccepted.conversation_id": Said(
        "Where the question went; null when nothing is stored", "问题进入了哪个会话；什么都不保存时是 null"
    ),
    "ChatReply.conversation_id": Said(
        "Where the question went; null when nothing is stored", "问题进入了哪个会话；什么都不保存时是 null"
    ),
    "debug": Said("Adds `status` frames", "多出 `status` 帧"),
    "incognito": Said("Nothing of question and answer is stored", "问答都不保存"),
    "watchlist_auto_capture": Said(
        "Note films in the watchlist that the question says one wants to see, has seen or does not want",
        "把问题里说想看、看过、不想看的影片记入片单",
    ),
    "on_busy": Said(
        "While the conversation is being answered: refuse, wait for it, or cut it short",
        "会话正在回答时：拒绝、排队，或截断它",
    ),
    "ChunkFrame.content": Said("The next piece of the text", "下一段文字"),
    "StatusFrame.content": Said("The stage, and facts of it", "阶段，以及它的情况"),
    "CompleteFrame.content": Said("Always null", "总是 null"),
    "answer": Said("The whole text", "全文"),
    "message_id": Said("Which stored message", "哪条已保存的消息"),
    "CompleteFrame.message_id": Said(
        "The stored answer; null when nothing was stored", "已保存的回答；没有保存时是 null"
    ),
    "EditQuestion.message_id": Said("The question to be asked otherwise", "要改问的那个问题"),
    "RegenerateAnswer.message_id": Said("The question, or one of its answers", "问题，或它的某个回答"),
    "ChooseBranch.message_id": Said("A message on the branch to be shown", "要显示的分支上的一条消息"),
    "finish_reason": Said(
        "Why it ended: said all, too long, cancelled, or broken off", "为何结束：说完、太长、被取消、中断"
    ),
    "usage": Said("What the model counted; null when it did not say", "模型的计数；没有给出时是 null"),
    "prompt_tokens": Said("Tokens that the model read", "模型读入的 token 数"),
    "completion_tokens": Said("Tokens that the model wrote", "模型写出的 token 数"),
    "aigc": Said("A machine made it: label it so", "机器生成：请标明“AI 生成”"),
    "RestartContent.reason": Said("Why another node begins anew", "为何由另一个节点重新开始"),
    "RetractContent.reason": Said("Why the text is taken back", "为何收回文字"),
    "msg": Said("The whole answer", "完整的回答"),
    "ChatReply.id": Said("The stored answer; null when nothing was stored", "已保存的回答；没有保存时是 null"),
    "recommendations": Said("Films that the answer recommends", "回答推荐的影片"),
    "ChatReply.watchlist": Said("What was noted in the watchlist", "记入片单的内容"),
    "Message.id": Said("The message", "消息的 id"),
    "Message.content": Said("Its text", "消息的文字"),
    "Message.request_id": Said("The run that made it, or that it asked for", "生成它的、或它引发的那次回答"),
    "change": Said(
        "What became of it: a title, another title, gone, an answer, another branch",
        "它怎么了：有了标题、改名、被删除、有了回答、换了分支",
    ),
    "ChangedConversation.title": Said("Its title now; null until it has one", "现在的标题；还没有时是 null"),
    "ChangedConversation.updated_at": Said("When it got a message last", "最近有消息的时间"),
    "role": Said("Who said it", "谁说的"),
    "created_at": Said("When it was made", "建立的时间"),
    "parent_id": Said("The message that it follows; null for a first one", "它接在哪条消息之后；第一条是 null"),
    "chosen": Said("Whether it is on the branch that is shown", "是否在当前显示的分支上"),
    "siblings": Said("Those that follow the same message, itself among them", "接在同一条消息之后的各条，包括它自己"),
    "after_seq": Said("The last `seq` that you have", "您收到的最后一个 `seq`"),
    "recovered": Said("Whether the frames can still be had", "各帧是否还能取到"),
    "last_seq": Said("The newest frame's `seq`", "最新一帧的 `seq`"),
    "running": Said("Whether the answer is still being made", "回答是否还在生成"),
    "Resumed.message": Said("What was stored, when the frames are gone", "各帧已不在时，已保存的回答"),
    "chat_id": Said("The `id` that the chat was sent with", "发送 chat 时用的 `id`"),
    "limit": Said("At most so many", "最多多少条"),
    "before": Said("`next_before` of the page before", "上一页的 `next_before`"),
    "items": Said("What is on this page", "这一页的内容"),
    "next_before": Said("Where the next page begins; null at the end", "下一页的起点；到头了是 null"),
    "title": Said("The title", "标题"),
    "Recommendations.title": Said("A heading for the list", "列表的标题"),
    "RecommendedFilms.title": Said("A heading for the list", "列表的标题"),
    "mode": Said("How the films were found", "影片是怎样找到的"),
    "conversation": Said("The conversation itself", "会话本身"),
    "Conversation.id": Said("The conversation", "会话的 id"),
    "Conversation.title": Said("Its title; null until it has one", "标题；还没有时是 null"),
    "updated_at": Said("When it was made or last got a message", "建立或最近有消息的时间"),
    "SearchConversations.query": Said("What the messages contain", "消息里包含的文字"),
    "FoundMessage.message": Said("The message that was found", "找到的消息"),
    "FoundMessage.title": Said("The title of its conversation", "它所在会话的标题"),
    "rating": Said("1 to 5", "1 到 5"),
    "comment": Said("Why", "为什么"),
    "changed_at": Said("When it was last changed", "最近改动的时间"),
}

_FILMS = {
    "ids": Said("Films by their TMDB ids", "影片的 TMDB id"),
    "missing_ids": Said("Ids that the catalogue does not have", "片库里没有的 id"),
    "tmdb_id": Said("The film's id at TMDB", "影片的 TMDB id"),
    "tmdb_ids": Said("Films by their TMDB ids, best first", "影片的 TMDB id，最合适的在前"),
    "feed": Said("Which list", "哪个榜单"),
    "offset": Said("How many to leave out", "跳过多少部"),
    "next_offset": Said("Where the next page begins; null at the end", "下一页的起点；到头了是 null"),
    "SearchMovies.query": Said(
        "A title, a part of it, pinyin, initials, or a name", "片名、片名的一部分、拼音、首字母或人名"
    ),
    "movie": Said("The film", "影片"),
    "WatchlistItem.movie": Said("The film; null when the catalogue has lost it", "影片；片库里已没有它时是 null"),
    "original_title": Said("The title in its own language", "原文片名"),
    "release_date": Said("ISO 8601; null when unknown", "ISO 8601；未知时是 null"),
    "year": Said("Of its release", "上映年份"),
    "poster_url": Said("The whole address of the poster", "海报的完整地址"),
    "backdrop_url": Said("The whole address of a still", "剧照的完整地址"),
    "vote_average": Said("0 to 10", "0 到 10"),
    "vote_count": Said("How many voted", "评分人数"),
    "genres": Said("Genres", "类型"),
    "directors": Said("Who directed it", "导演"),
    "top_cast": Said("The first five of the cast", "前五位演员"),
    "runtime": Said("Minutes; null when unknown", "片长（分钟）；未知时是 null"),
    "overview": Said("What it is about", "简介"),
    "cast": Said("Who plays whom", "演员与角色"),
    "crew": Said("Who did what", "职员与职务"),
    "name": Said("The person's name", "姓名"),
    "character": Said("Whom they play", "饰演的角色"),
    "job": Said("What they did", "职务"),
}

_WATCHLIST = {
    "state": Said("Wanted, seen, or not wanted", "想看、看过，或不想看"),
    "ListWatchlist.state": Said("Only those; all when left out", "只要这一种；不写则全部"),
    "RestoredFilm.state": Said(
        "What it is again; null when it is in the list no more", "恢复成的状态；已不在片单里时是 null"
    ),
    "source": Said("Who set its state last: the user, or a chat", "最近由谁设定：用户，或聊天"),
    "added_at": Said("When it was added", "加入的时间"),
    "item": Said("The film as it is in the list now", "影片现在在片单里的样子"),
    "removed": Said("False when it was not there", "原本就不在时是 false"),
    "capture_id": Said("What one chat noted; `watchlist_undo` takes it", "一次聊天所记的内容；`watchlist_undo` 用它"),
    "WatchlistCaptured.items": Said("The films that were noted", "记下的影片"),
    "previous_state": Said(
        "What it was before; null when it was not in the list", "之前的状态；原本不在片单里时是 null"
    ),
    "restored": Said("Films that are again as they were", "恢复原状的影片"),
    "kept": Said("Films that were changed since, and are left so", "之后又改过、保持不动的影片"),
}

MEANINGS = _ENVELOPE | _ACCOUNTS | _CHATS | _FILMS | _WATCHLIST
