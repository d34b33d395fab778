/** All conversations: opened, begun, named, deleted, and searched. */
Page({
  data: {
    items: [],
    loaded: false,
    error: '',
    query: '',
    found: null
  },

  onLoad: function () {
    var page = this
    this.client = getApp().client
    this.stopTitles = this.client.on('conversation_updated', function (conversation) {
      page.retitle(conversation.conversation_id, conversation.title)
    })
  },

  onUnload: function () {
    this.stopTitles()
  },

  onShow: function () {
    this.reload()
  },

  reload: function () {
    this.nextBefore = null
    return this.load([])
  },

  onReachBottom: function () {
    if (this.nextBefore) this.load(this.data.items)
  },

  load: function (before) {
    var page = this
    return this.client.request('conversation_list', { before: this.nextBefore }).then(
      function (list) {
        page.nextBefore = list.next_before
        page.setData({ items: before.concat(list.items.map(shownConversation)), loaded: true, error: '' })
      },
      function (error) {
        page.setData({ loaded: true, error: error.message })
      }
    )
  },

  retitle: function (id, title) {
    for (var i = 0; i < this.data.items.length; i++) {
      if (this.data.items[i].id !== id) continue
      var change = {}
      change['items[' + i + '].title'] = title
      this.setData(change)
    }
  },

  open: function (event) {
    this.openConversation(event.currentTarget.dataset.id)
  },

  openConversation: function (id) {
    getApp().globalData.conversationId = id
    wx.switchTab({ url: '/pages/chat/chat' })
  },

  create: function () {
    var page = this
    this.client.request('conversation_create').then(function (conversation) {
      page.openConversation(conversation.id)
    }, complain)
  },

  rename: function (event) {
    var page = this
    var id = event.currentTarget.dataset.id
    wx.showModal({
      title: '重命名',
      editable: true,
      placeholderText: '新的标题',
      success: function (answer) {
        var title = answer.confirm ? (answer.content || '').trim() : ''
        if (!title) return
        page.client.request('conversation_rename', { conversation_id: id, title: title }).then(function () {
          page.retitle(id, title)
        }, complain)
      }
    })
  },

  remove: function (event) {
    var page = this
    var id = event.currentTarget.dataset.id
    wx.showModal({
      title: '删除会话',
      content: '删除后无法恢复',
      success: function (answer) {
        if (!answer.confirm) return
        page.client.request('conversation_delete', { conversation_id: id }).then(function () {
          // The chat page may show it still.
          if (getApp().globalData.conversationId === id) getApp().globalData.conversationId = null
          return page.reload()
        }, complain)
      }
    })
  },

  onQuery: function (event) {
    this.setData({ query: event.detail.value })
    if (!event.detail.value) this.setData({ found: null })
  },

  search: function () {
    var page = this
    var query = this.data.query.trim()
    if (!query) return
    this.client.request('conversation_search', { query: query }).then(function (found) {
      page.setData({ found: found.items.map(shownFound) })
    }, complain)
  }
})

function complain(error) {
  wx.showToast({ title: error.message, icon: 'none' })
}

function shownConversation(conversation) {
  return { id: conversation.id, title: conversation.title || '新会话', when: localTime(conversation.updated_at) }
}

function shownFound(found) {
  return {
    key: found.message.id,
    id: found.message.conversation_id,
    title: found.title || '新会话',
    text: found.message.content,
    aigc: found.message.aigc
  }
}

/** ISO 8601 in UTC as people here read it. Some phones' `Date` refuses microseconds, so it is taken apart. */
function localTime(iso) {
  var parts = iso.match(/\d+/g).map(Number)
  var date = new Date(Date.UTC(parts[0], parts[1] - 1, parts[2], parts[3], parts[4]))
  return date.getMonth() + 1 + '月' + date.getDate() + '日 ' + two(date.getHours()) + ':' + two(date.getMinutes())
}

function two(number) {
  return (number < 10 ? '0' : '') + number
}
