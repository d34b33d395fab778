/**
 * The chat: text that grows as it streams, cards for what is recommended, and nothing lost that was typed.
 *
 * What is shown is the stored past, and behind it what was asked here, each question with its answer. An answer that was
 * unfinished when the app was closed is taken up where it stood.
 */
var DRAFT = 'draft'
var PAST = 30 // messages of the past that are shown at once
var MISSING_MS = 3000 // the server goes on fetching films that it did not have yet; they are asked for once more

Page({
  data: {
    messages: [],
    input: '',
    notice: '',
    canReconnect: false,
    bottom: ''
  },

  onLoad: function () {
    var page = this
    this.client = getApp().client
    this.past = []
    this.live = []
    this.nextBefore = null
    this.conversationId = undefined
    this.opening = 0
    this.setData({ input: wx.getStorageSync(DRAFT) || '' })
    this.stopState = this.client.on('state', function (state) {
      page.showState(state)
    })
    this.stopTitles = this.client.on('conversation_updated', function (conversation) {
      if (conversation.conversation_id === page.conversationId) page.showTitle(conversation.title)
    })
    this.showState(this.client.state())
  },

  onShow: function () {
    var wanted = getApp().globalData.conversationId
    if (wanted !== this.conversationId) this.open(wanted)
  },

  onUnload: function () {
    this.stopState()
    this.stopTitles()
  },

  // ---- what is shown ----

  open: function (conversationId) {
    var page = this
    this.conversationId = conversationId
    this.past = []
    this.pastIsHere = false
    this.loadingPast = false
    this.opening += 1
    this.nextBefore = null
    this.live = []
    this.showTitle('CineWire')
    this.client.unfinished().forEach(function (run) {
      if (run.askedIn !== conversationId && (!conversationId || run.conversationId !== conversationId)) return
      var answer = page.begin(run.id, run.query, run.text)
      answer.sent = run.sent
      answer.requestId = run.requestId
      if (run.recommendations) page.showCards(answer, run.recommendations)
      page.follow(answer, page.client.follow(run.id, page.handlers(answer)))
    })
    this.show()
    this.scroll()
    this.loadPast()
  },

  loadPast: function () {
    var page = this
    var opening = this.opening
    var wanted = { conversation_id: this.conversationId, before: this.nextBefore, limit: PAST }
    this.loadingPast = true
    this.client.request('history', wanted).then(
      function (history) {
        if (page.opening !== opening) return
        page.loadingPast = false
        var older = page.pastIsHere
        page.past = history.items.map(shownMessage).concat(page.past)
        page.pastIsHere = true
        page.nextBefore = history.next_before
        page.show()
        if (!older) page.scroll()
      },
      function (error) {
        if (page.opening !== opening) return
        page.loadingPast = false
        if (error.reason === 'conversation_not_found') {
          // It was deleted, here or on another device.
          getApp().globalData.conversationId = null
          page.open(null)
        } else if (error.reason !== 'signed_out' && error.reason !== 'offline') {
          wx.showToast({ title: error.message, icon: 'none' })
        }
      }
    )
  },

  loadOlder: function () {
    if (this.nextBefore && !this.loadingPast) this.loadPast()
  },

  /** Everything anew; what is both stored and live is shown once. */
  show: function () {
    var live = {}
    this.live.forEach(function (message) {
      if (message.requestId) live[message.requestId] = true
    })
    var past = this.past.filter(function (message) {
      return !live[message.requestId]
    })
    this.setData({ messages: past.concat(this.live) })
  },

  /** One answer anew: only what changed goes to the view. */
  update: function (answer, fields) {
    var at = this.data.messages.map(function (message) {
      return message.key
    }).indexOf(answer.key)
    var changes = {}
    for (var name in fields) {
      answer[name] = fields[name]
      changes['messages[' + at + '].' + name] = fields[name]
    }
    if (at < 0) return
    this.setData(changes)
  },

  /** To the end. A view goes where it was told before only when the name is another. */
  scroll: function () {
    this.setData({ bottom: this.data.bottom === 'bottom' ? 'very-bottom' : 'bottom' })
  },

  showTitle: function (title) {
    wx.setNavigationBarTitle({ title: title })
  },

  showState: function (state) {
    var notices = {
      offline: '网络已断开，你可以继续输入，恢复后自动发送',
      replaced: '已在其他设备上打开',
      refused: '微信登录未通过',
      stopped: '版本过旧，请更新小程序',
      signed_out: '已退出登录，请到“我的”登录'
    }
    if (state.state === 'signed_out') {
      this.past = []
      this.live = []
      this.conversationId = undefined
      this.setData({ messages: [], input: '' })
      wx.removeStorageSync(DRAFT)
    }
    // Nobody was there to give it when the page opened.
    var lacking = this.conversationId !== undefined && !this.pastIsHere && !this.loadingPast
    if (state.state === 'online' && lacking) this.loadPast()
    this.setData({ notice: notices[state.state] || '', canReconnect: state.state === 'replaced' })
  },

  // ---- asking ----

  onInput: function (event) {
    this.setData({ input: event.detail.value })
    wx.setStorageSync(DRAFT, event.detail.value)
  },

  send: function () {
    var query = this.data.input.trim()
    if (!query) {
      wx.showToast({ title: '请输入消息', icon: 'none' })
      return
    }
    this.ask(query)
    this.setData({ input: '' })
    wx.removeStorageSync(DRAFT)
  },

  ask: function (query) {
    var answer = { key: 'a' }
    var promise = this.client.chat(
      this.handlers(answer, { query: query, conversationId: this.conversationId, watchlistAutoCapture: true })
    )
    this.follow(this.begin(promise.id, query, '', answer), promise)
    this.show()
    this.scroll()
  },

  /** A question and its answer, which is still to come. */
  begin: function (runId, query, text, answer) {
    answer = answer || {}
    answer.key = 'a' + runId
    answer.role = 'assistant'
    answer.runId = runId
    answer.query = query
    answer.text = text
    answer.sent = false
    answer.done = false
    answer.requestId = null
    answer.question = { key: 'q' + runId, role: 'user', text: query, requestId: null }
    this.live.push(answer.question, answer)
    return answer
  },

  handlers: function (answer, options) {
    var page = this
    var handlers = options || {}
    handlers.onAccepted = function (accepted) {
      answer.question.requestId = accepted.requestId
      page.update(answer, { sent: true, requestId: accepted.requestId })
      // The past may have the question already.
      if (page.past.length > 0) page.show()
    }
    handlers.onChunk = function (delta, text) {
      page.update(answer, { text: text })
      page.scroll()
    }
    handlers.onRecommendations = function (recommended) {
      page.showCards(answer, recommended)
    }
    handlers.onWatchlist = function (captured) {
      page.update(answer, { captured: shownCapture(captured) })
    }
    handlers.onRestart = function () {
      page.update(answer, { text: '', cards: null })
    }
    handlers.onRetract = handlers.onRestart
    return handlers
  },

  follow: function (answer, promise) {
    var page = this
    promise.then(
      function (whole) {
        page.update(answer, {
          text: whole.text,
          done: true,
          sent: true,
          requestId: whole.requestId,
          messageId: whole.messageId,
          stopped: whole.finishReason === 'cancelled' || whole.finishReason === 'interrupted'
        })
      },
      function (error) {
        page.update(answer, { done: true, error: error.message || '出错了', cards: null })
      }
    )
  },

  stop: function (event) {
    this.client.cancel(event.currentTarget.dataset.run).then(null, function (error) {
      wx.showToast({ title: error.message, icon: 'none' })
    })
  },

  askAgain: function (event) {
    var key = event.currentTarget.dataset.key
    var failed = this.live.filter(function (message) {
      return message.key === key
    })[0]
    this.live = this.live.filter(function (message) {
      return message !== failed && message !== failed.question
    })
    this.ask(failed.query)
  },

  reconnect: function () {
    this.client.connect()
  },

  // ---- films ----

  /** Skeletons at once, films as soon as they are there. */
  showCards: function (answer, recommended) {
    this.update(answer, {
      cardsTitle: recommended.title,
      cards: recommended.tmdb_ids.map(function (id) {
        return { tmdb_id: id, skeleton: true }
      })
    })
    this.loadCards(answer, recommended.tmdb_ids, true)
  },

  loadCards: function (answer, ids, again) {
    var page = this
    this.client.request('movies_bulk', { ids: ids }).then(
      function (found) {
        page.fillCards(answer, found.items, again ? [] : found.missing_ids)
        if (!again || found.missing_ids.length === 0) return
        setTimeout(function () {
          page.loadCards(answer, found.missing_ids, false)
        }, MISSING_MS)
      },
      function () {
        page.fillCards(answer, [], ids)
      }
    )
  },

  fillCards: function (answer, films, missing) {
    if (!answer.cards) return
    var cards = answer.cards.filter(function (card) {
      return missing.indexOf(card.tmdb_id) < 0
    })
    this.update(answer, {
      cards: cards.map(function (card) {
        var film = films.filter(function (one) {
          return one.tmdb_id === card.tmdb_id
        })[0]
        return film ? shownFilm(film) : card
      })
    })
  },

  openMovie: function (event) {
    wx.navigateTo({ url: '/pages/movie-detail/movie-detail?tmdb_id=' + event.currentTarget.dataset.id })
  },

  undoCapture: function (event) {
    var page = this
    var key = event.currentTarget.dataset.key
    var answer = this.live.filter(function (message) {
      return message.key === key
    })[0]
    this.client.request('watchlist_undo', { capture_id: answer.captured.id }).then(
      function () {
        page.update(answer, { captured: null })
      },
      function (error) {
        wx.showToast({ title: error.message, icon: 'none' })
      }
    )
  }
})

function shownMessage(message) {
  return {
    key: message.id,
    role: message.role,
    text: message.content,
    requestId: message.request_id,
    sent: true,
    done: true,
    stopped: message.finish_reason === 'cancelled' || message.finish_reason === 'interrupted'
  }
}

function shownFilm(film) {
  return {
    tmdb_id: film.tmdb_id,
    skeleton: false,
    title: film.title,
    year: film.year || '',
    poster: film.poster_url || '',
    vote: film.vote_average ? film.vote_average.toFixed(1) : '',
    directors: film.directors.slice(0, 2).join(' / '),
    cast: film.top_cast.slice(0, 3).join(' / ')
  }
}

var STATES = { to_watch: '想看', watched: '看过', dismissed: '不想看' }

function shownCapture(captured) {
  return {
    id: captured.capture_id,
    text: captured.items.map(function (film) {
      return STATES[film.state] + '《' + film.title + '》'
    }).join('、')
  }
}
