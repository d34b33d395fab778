"""The words of the page at `/docs/ws`, in English and Chinese. What the declarations say is not here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["en", "zh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One language."""

    language: Language
    html_lang: str
    other_language: str
    title: str
    about: str
    contents: str
    skip: str
    documents: str
    # Sections.
    connect: str
    connect_about: str
    talk: str
    talk_about: str
    shapes: str
    shapes_about: str
    reply_shape: str
    frame_shape: str
    error_shape: str
    frames: str
    frames_about: str
    unasked: str
    unasked_about: str
    types: str
    types_about: str
    errors: str
    errors_about: str
    closes: str
    closes_about: str
    domains: Mapping[str, str]
    # Connecting.
    addresses: str
    over_tls: str
    subprotocol: str
    optional_subprotocol: str
    bearer: str
    bearer_about: str
    size: str
    size_about: str
    heartbeat: str
    heartbeat_about: str
    login_within: str
    login_about: str
    # Messages.
    you_send: str
    you_get: str
    then_frames: str
    resumed_frames: str
    whole: str
    fails_with: str
    always: str
    also_always: str
    any_may_fail: str
    before_login: str
    after_login: str
    streams: str
    no_fields: str
    no_data: str
    example: str
    client: str
    server: str
    # Tables.
    field: str
    type_: str
    meaning: str
    required: str
    optional: str
    sometimes: str
    default: str
    reason: str
    code: str
    shown: str
    do: str
    retryable: str
    because: str
    # Types.
    or_: str
    list_of: str
    string: str
    integer: str
    number: str
    boolean: str
    object_: str
    anything: str
    items: str
    characters: str
    formats: Mapping[str, str]


EN = Words(
    language="en",
    html_lang="en",
    other_language="中文",
    title="The socket",
    about=(
        "One WebSocket carries everything: login, answers that stream, films. This page is made from the server's own"
        " declarations, so it says what this server does."
    ),
    contents="Contents",
    skip="Skip to the messages",
    documents="Documents",
    connect="Connect",
    connect_about="Every node is the same; come back to any of them.",
    talk="A whole talk",
    talk_about="From the open socket to the end of an answer.",
    shapes="Three shapes",
    shapes_about=(
        "Whatever you send has a `type`, and may have an `id` of 1 to 64 characters that every answer to it echoes."
        " Whatever you get is one of these three. Ignore keys, types and reasons that you do not know: more will"
        " come."
    ),
    reply_shape="A reply, one for each message",
    frame_shape="A frame, many for each answer",
    error_shape="An error, instead of a reply or as the last frame",
    frames="Frames of an answer",
    frames_about=(
        "In the order of their `seq`. After `complete` or `error` there are no more. An answer belongs to the server:"
        " it goes on when your socket is gone, and `resume` gives you what you missed."
    ),
    unasked="Said unasked",
    unasked_about="What the server says by itself.",
    types="Types",
    types_about="What several messages have in them.",
    errors="Errors",
    errors_about=(
        "Switch on `reason`, show `message`. The socket stays open. Treat a `reason` that you do not know by its"
        " `retryable`."
    ),
    closes="Close codes",
    closes_about="Why the server closes a socket, and what your client does then.",
    domains={
        "accounts": "Login",
        "guests": "Guests",
        "chat": "Chat",
        "branches": "Branches",
        "conversations": "Conversations",
        "movies": "Films",
        "watchlist": "Watchlist",
        "belongings": "Account",
    },
    addresses="Addresses",
    over_tls=". The first is what mini programs use. Over TLS it is wss.",
    subprotocol="Subprotocol",
    optional_subprotocol="is accepted and not needed.",
    bearer="Token",
    bearer_about="In the handshake, or by `login` or `auth` in the first message. Never in the address.",
    size="Message",
    size_about="Text of one JSON object, at most {bytes} bytes of UTF-8.",
    heartbeat="Heartbeat",
    heartbeat_about="Send `ping` every {ping} s. After {silence} s without traffic the socket is closed with 4004.",
    login_within="Login",
    login_about=(
        "Within {login} s, or the socket is closed with 4001. Until then only `ping`, `login` and `auth` are taken."
    ),
    you_send="You send",
    you_get="You get",
    then_frames="then, with `stream: true`, frames:",
    resumed_frames="then the frames that you miss, and those that are still to come:",
    whole="or, without `stream`, the whole answer at once",
    fails_with="Fails with",
    always="what every message may fail with",
    also_always="and what every message may",
    any_may_fail="Every message may fail with",
    before_login="also before login",
    after_login="after login",
    streams="streams",
    no_fields="Nothing but `type` and `id`.",
    no_data="`data` is null.",
    example="Example",
    client="client",
    server="server",
    field="Field",
    type_="Type",
    meaning="Meaning",
    required="required",
    optional="optional",
    sometimes="not always",
    default="default",
    reason="Reason",
    code="Code",
    shown="Message",
    do="What your client does",
    retryable="retryable",
    because="Because",
    or_=" or ",
    list_of="list of ",
    string="string",
    integer="integer",
    number="number",
    boolean="boolean",
    object_="object",
    anything="anything",
    items="items",
    characters="characters",
    formats={"uuid": "UUID", "date-time": "time, ISO 8601 in UTC"},
)

ZH = Words(
    language="zh",
    html_lang="zh-CN",
    other_language="English",
    title="WebSocket 接口",
    about=(
        "一条 WebSocket 承载一切：登录、流式回答、影片。本页由服务器自己的声明生成，所以它说的就是这台服务器所做的。"
    ),
    contents="目录",
    skip="跳到消息",
    documents="文档",
    connect="连接",
    connect_about="每个节点都一样，重连到哪个都行。",
    talk="完整的一次对话",
    talk_about="从打开连接到回答结束。",
    shapes="三种形状",
    shapes_about=(
        "您发送的每条消息都有 `type`，可以带 `id`（1 到 64 个字符），对它的每条回答都带回这个 `id`。"
        "您收到的都是下面三种之一。遇到不认识的键、类型和 `reason` 请忽略：以后还会有新的。"
    ),
    reply_shape="回复：每条消息一个",
    frame_shape="帧：每次回答若干个",
    error_shape="错误：代替回复，或作为最后一帧",
    frames="回答的各帧",
    frames_about=(
        "按 `seq` 的顺序到来，`complete` 或 `error` 之后不再有。回答属于服务器：您的连接断了它照样继续，"
        "`resume` 会补上您错过的部分。"
    ),
    unasked="服务器主动说的",
    unasked_about="没有人问，服务器自己发出的消息。",
    types="类型",
    types_about="多条消息里共用的对象。",
    errors="错误",
    errors_about="程序按 `reason` 判断，`message` 给人看。连接保持打开。不认识的 `reason` 按 `retryable` 处理。",
    closes="关闭码",
    closes_about="服务器为何关闭连接，以及您的客户端随后该做什么。",
    domains={
        "accounts": "登录",
        "guests": "访客",
        "chat": "聊天",
        "branches": "分支",
        "conversations": "会话",
        "movies": "影片",
        "watchlist": "片单",
        "belongings": "账号",
    },
    addresses="地址",
    over_tls="。小程序用第一个；经 TLS 时是 wss。",
    subprotocol="子协议",
    optional_subprotocol="可以带，不是必须。",
    bearer="令牌",
    bearer_about="放在握手里，或在第一条消息里用 `login` 或 `auth` 给出。绝不放进地址。",
    size="消息",
    size_about="文本帧，一个 JSON 对象，最多 {bytes} 字节（UTF-8）。",
    heartbeat="心跳",
    heartbeat_about="每 {ping} 秒发一次 `ping`。{silence} 秒没有任何往来，连接会以 4004 关闭。",
    login_within="登录",
    login_about="在 {login} 秒之内，否则连接会以 4001 关闭。登录前只接受 `ping`、`login` 和 `auth`。",
    you_send="您发送",
    you_get="您收到",
    then_frames="`stream: true` 时，随后是各帧：",
    resumed_frames="随后是您缺少的帧，以及后续的帧：",
    whole="不带 `stream` 时，一次给出完整的回答",
    fails_with="可能失败",
    always="任何消息都可能遇到的",
    also_always="以及任何消息都可能遇到的",
    any_may_fail="任何消息都可能遇到：",
    before_login="登录前也可以",
    after_login="登录后",
    streams="流式",
    no_fields="只有 `type` 和 `id`。",
    no_data="`data` 是 null。",
    example="示例",
    client="客户端",
    server="服务器",
    field="字段",
    type_="类型",
    meaning="含义",
    required="必填",
    optional="可选",
    sometimes="不一定有",
    default="默认",
    reason="原因",
    code="代码",
    shown="给人看的文字",
    do="客户端应当",
    retryable="可重试",
    because="原因",
    or_=" 或 ",
    list_of="数组，元素为 ",
    string="字符串",
    integer="整数",
    number="数字",
    boolean="布尔",
    object_="对象",
    anything="任意",
    items="项",
    characters="个字符",
    formats={"uuid": "UUID", "date-time": "时间，ISO 8601，UTC"},
)

LANGUAGES: Mapping[str, Words] = {"en": EN, "zh": ZH}
