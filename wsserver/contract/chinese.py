"""What the declarations say of messages and frames in English, in Chinese, for the page at `/docs/ws`.

What is not here is shown in English, as in the documents. What fields mean is in `meanings.py`.
"""

SUMMARIES = {
    "ping": "保持连接；登录前也可以",
    "login": "用 wx.login 的 code 登录",
    "auth": "用令牌登录，或续期",
    "logout": "注销会话",
    "account_export": "用户的一切，分页导出",
    "account_delete": "删除用户的一切，结束它的全部会话",
    "regenerate": "让一个问题重新得到回答",
    "edit": "换个说法再问",
    "branch_choose": "显示一条消息所在的分支",
    "adopt_guest": "把作为访客问过、存下的东西变成自己的",
    "chat": "提问，边生成边接收回答",
    "resume": "从中断处继续接收回答",
    "cancel": "立即结束一次回答",
    "history": "一个会话的消息",
    "conversation_create": "建立一个空会话",
    "conversation_list": "自己的会话，最近有消息的在前",
    "conversation_get": "一个会话和它的一页消息",
    "conversation_rename": "给会话改名",
    "conversation_delete": "永久删除一个会话",
    "conversation_search": "在自己的消息里找文字",
    "feedback": "评价一条回答",
    "movies_bulk": "按 TMDB id 取影片卡片",
    "movies_feed": "还没提问时展示的榜单",
    "movie_detail": "一部影片的全部信息",
    "movies_search": "按输入找影片：片名、片名的一部分、拼音、打错的字、人名",
    "watchlist_list": "片单里的影片，最近改动的在前",
    "watchlist_add": "把影片加入片单，或改变它的状态",
    "watchlist_remove": "把影片移出片单",
    "watchlist_undo": "撤销聊天记入片单的内容",
}
"""By the operations' names."""

ABOUTS = {
    "login": "用刚取得的 `wx.login` code 换取会话。",
    "auth": "不用 `wx.login` 就能重新登录，也可以给正在使用的连接换新的令牌。",
    "logout": "注销会话：它的令牌全部失效，它的连接被关闭。",
    "account_export": "用户的一切，一次一页。`after` 是上一页的 `next_after`。",
    "account_delete": "永久删除用户的一切，并结束它的全部会话。再次登录就从头开始。",
    "regenerate": (
        "让一个问题重新得到回答；`message_id` 是问题，或它的某个回答。\n\n"
        "新的回答取代问题之后的内容，原来的保留在旁边。如果没有得到回答，什么都不变。其余与 `chat` 相同。"
    ),
    "edit": "换个说法：`query` 取代问题 `message_id` 及其后的内容，原来的保留。\n\n其余与 `chat` 相同。",
    "branch_choose": "显示这条消息所在的分支，直到它最新的末端，并从那里继续。",
    "chat": (
        "提问。不带 `conversation_id` 时，问题进入常设会话。\n\n`use_auto_rag` 和 `kb_prefix` 要求先查知识库；`debug`"
        " 多出 `status` 帧；`incognito` 的问题什么都不保存。`watchlist_auto_capture` 把问题里说想看、看过、不想看的影片"
        "记入片单，`incognito` 的除外。"
    ),
    "resume": "从中断处继续接收回答：任何节点都行，生成期间可以，结束后十分钟内也可以。",
    "adopt_guest": (
        "把作为访客问过、存下的东西变成自己的：一个访客只有一次，永久有效。再发一次，回答相同。\n\n"
        "两边片单里都有的影片，以用户的为准。访客的常设会话得到新的 id，它的名字重新开始。"
    ),
    "cancel": "立即结束一次回答，已有的内容会保留；用它的 `request_id`，或发送 chat 时的 `id` 指明。",
    "history": "一个会话的消息，默认是常设会话。`before` 是一条消息的 id。",
    "conversation_create": "建立一个空会话。再发一次就再建一个：多一个空会话无妨。",
    "conversation_list": "最近有消息的在前。`before` 是上一页的 `next_before`。",
    "conversation_get": "一个会话和它的一页消息。`before` 是一条消息的 id。",
    "conversation_rename": "给会话另起标题。它在列表里的位置不变。",
    "conversation_delete": "永久删除一个会话；其中正在生成的回答被取消。",
    "conversation_search": (
        "自己的消息里含有这段文字的，不分大小写，新的在前。\n\n在最近有消息的一百个会话里找，每个看最新的五十条。"
    ),
    "feedback": "评价自己会话里的一条回答。再说一次就取代之前的。",
    "movies_bulk": "按给出的 id 的顺序返回卡片，重复的只回答一次。",
    "movies_feed": "顺序稳定的榜单，按偏移量翻页。",
    "movies_search": "片名与输入相似的影片，或由叫这个名字的人创作的影片；最合适的在前。",
    "watchlist_list": "最近改动的在前。`before` 是上一页的 `next_before`。",
    "watchlist_add": "加入一部影片，或改变已有影片的状态。再说一次不会改变什么。",
    "watchlist_undo": "把聊天记入的内容恢复原状。再说一次不会改变什么，回答也相同。",
}
"""By the operations' names: what stands below the summary."""

FRAMES = {
    "status": "回答进行到哪个阶段；只有问题带了 `debug` 才有。",
    "chunk": "回答的一段文字。",
    "recommendations": "回答推荐的影片，一次回答至多一条。每个 id 都在片库里。",
    "watchlist": "问题里说到、已记入片单的影片，一次回答至多一条。",
    "complete": "回答结束。没有保存时 `message_id` 是 null；`aigc`：机器生成，请标明。",
    "restart": "正在回答的节点不在了，另一个重新开始：丢掉已有文字。只有这里 `seq` 可以跳号。",
    "retract": "收回已显示的文字：它被拒绝，或无法检查。随后是同样原因的 `error`。",
    "connected": "每条被接纳的连接的第一帧。",
    "conversation_updated": "发给该用户的每条连接：一个会话有了变化。",
    "goodbye": "这个节点即将停止：等 `retry_after_ms` 后重连，任何节点都行。",
    "chat_processing": "问题已保存，开始回答",
    "resume_response": "回答的现状",
    "error": ("这次回答失败了，不再有帧。程序按 `reason` 判断；`retryable` 和 `retry_after_ms` 说明能否、何时重试。"),
}
"""By the types of what the server sends."""
