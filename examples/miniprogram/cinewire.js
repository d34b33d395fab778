/**
 * CineWire's client for WeChat mini programs: one socket that comes and goes, and answers that do not.
 *
 * Answers: connecting, logging in, staying alive and coming back; every unfinished answer followed to its end; what was
 * typed kept until it is answered. Does not answer: what pages show.
 *
 * ES5, one file, no dependency: copy it into a mini program and `require` it. See docs/miniprogram.md for its interface.
 */
'use strict'

var PING_S = 25 // until `connected` says what the server wants
var PONG_MS = 10000 // no frame for so long after a ping: the socket is dead, whatever WeChat says of it
var CONNECT_MS = 8000 // a network that swallows the handshake answers nothing at all
var CLOSED_MS = 500 // a socket that takes nothing more is closed, and says within this time why
var SUSPEND_MS = 5000 // WeChat cuts sockets when a mini program was in the background for so long
var BACKOFF_MS = 500 // first wait before coming back; doubled each time
var MAX_BACKOFF_MS = 30000
var SETTLED_MS = 10000 // logged in for so long, the next loss starts the back-off anew
var BLOCKED_AFTER = 2 // sockets in a row that said nothing: this network blocks them, HTTP is tried
var SOCKET_AGAIN_MS = 60000 // while HTTP is used, how often a socket is tried beside it
var CALL_MS = 30000 // how long a request may take, waiting for the network included
var REQUEST_MS = 60000 // WeChat's own bound of wx.request
var LOGIN_MS = 10000 // how long WeChat may take for a code
var LOGIN_REPLY_MS = 30000 // as long for the code, and as long for the server to ask WeChat about it
var BUSY_MS = 2000 // another device's answer in the same conversation ends any moment
var SAVE_MS = 1000 // an answer that grows is put into storage at most so often
var SENDS_PER_S = 15 // the server takes 20 messages a second, 40 at once
var SEND_BURST = 30
var REQUESTS_AT_ONCE = 8 // WeChat takes 10
var MAX_MESSAGE_BYTES = 65536 // until `connected` says it

var REFUSED = 1 // in place of a close code: there is no login to be had

/** Requests that are not sent a second time by themselves: what they do to the next session is not what was meant. */
var ONCE = { logout: true, account_delete: true }

// ---- errors ----

/** An Error whose `reason` is what programs switch on; reasons of the server, and a few of our own. */
function failure(reason, message, more) {
  var error = new Error(message)
  error.reason = reason
  error.code = (more && more.code) || 0
  error.retryable = Boolean(more && more.retryable)
  error.retryAfterMs = (more && more.retry_after_ms) || null
  error.field = (more && more.field) || null
  return error
}

function failureOf(frame) {
  return failure(frame.reason || 'internal', frame.message || '', frame)
}

// ---- text: UTF-8 and server-sent events that come in any pieces ----

/** Decodes UTF-8 that is cut anywhere. Bytes that are none become U+FFFD; a byte order mark is left where it is. */
function Utf8() {
  this._point = 0
  this._missing = 0
  this._least = 0
}

Utf8.prototype.push = function (bytes) {
  var pieces = []
  var units = []
  for (var i = 0; i < bytes.length; i++) {
    this._byte(bytes[i], units)
    if (units.length > 4096) {
      pieces.push(String.fromCharCode.apply(null, units))
      units = []
    }
  }
  pieces.push(String.fromCharCode.apply(null, units))
  return pieces.join('')
}

Utf8.prototype._byte = function (byte, units) {
  if (this._missing > 0) {
    if ((byte & 0xc0) === 0x80) {
      this._point = (this._point << 6) | (byte & 0x3f)
      this._missing -= 1
      if (this._missing === 0) this._put(units)
      return
    }
    this._missing = 0
    units.push(0xfffd)
  }
  if (byte < 0x80) units.push(byte)
  else if (byte >= 0xc2 && byte < 0xe0) this._begin(byte & 0x1f, 1, 0x80)
  else if (byte >= 0xe0 && byte < 0xf0) this._begin(byte & 0x0f, 2, 0x800)
  else if (byte >= 0xf0 && byte < 0xf5) this._begin(byte & 0x07, 3, 0x10000)
  else units.push(0xfffd)
}

Utf8.prototype._begin = function (point, missing, least) {
  this._point = point
  this._missing = missing
  this._least = least
}

Utf8.prototype._put = function (units) {
  var point = this._point
  if (point < this._least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) units.push(0xfffd)
  else if (point < 0x10000) units.push(point)
  else units.push(0xd800 + ((point - 0x10000) >> 10), 0xdc00 + ((point - 0x10000) & 0x3ff))
}

function utf8Length(text) {
  var length = 0
  for (var i = 0; i < text.length; i++) {
    var unit = text.charCodeAt(i)
    // Half of a pair counts two: the pair is four bytes.
    length += unit < 0x80 ? 1 : unit < 0x800 ? 2 : unit >= 0xd800 && unit <= 0xdfff ? 2 : 3
  }
  return length
}

/** Reads server-sent events that are cut anywhere, and calls `onEvent` with the data of each. */
function Events(onEvent) {
  this._onEvent = onEvent
  this._line = ''
  this._data = []
  this._afterCr = false
}

Events.prototype.push = function (text) {
  if (this._afterCr && text.charAt(0) === '\n') text = text.slice(1)
  if (text === '') return
  this._afterCr = text.charAt(text.length - 1) === '\r'
  var lines = (this._line + text).split(/\r\n|\r|\n/)
  this._line = lines.pop()
  for (var i = 0; i < lines.length; i++) this._take(lines[i])
}

Events.prototype._take = function (line) {
  if (line === '') {
    var data = this._data.join('\n')
    this._data = []
    if (data !== '') this._onEvent(data)
  } else if (line.slice(0, 5) === 'data:') {
    this._data.push(line.charAt(5) === ' ' ? line.slice(6) : line.slice(5))
  }
}

// ---- links: two ways to the server, of which one is in use ----

/** A socket. It says `connected`, is logged in, and then carries everything. */
function SocketLink(client) {
  this.kind = 'socket'
  this.client = client
  this.ready = false
  this.dead = false
  this.heard = false
  this.readyAt = 0
  this.comeBackMs = null
  this._loginId = null
  this._logins = 0
  this._queue = []
  this._tokens = SEND_BURST
  this._filledAt = Date.now()
  this._pongDueAt = null
  this._failed = false
  this._timers = {}
}

SocketLink.prototype.open = function () {
  var link = this
  var task = this.client._wx.connectSocket({
    url: this.client._socketUrl,
    fail: function () {
      link.lose(1006)
    }
  })
  this._task = task
  this._after('connect', this.client._times.connectMs, function () {
    link.lose(1006)
  })
  if (this.dead) return task.close({ code: 1000 })
  task.onMessage(function (message) {
    if (!link.dead) link._hear(message.data)
  })
  task.onClose(function (closed) {
    link.lose((closed && closed.code) || 1006)
  })
  task.onError(function () {
    link.lose(1006)
  })
}

SocketLink.prototype._after = function (name, ms, then) {
  clearTimeout(this._timers[name])
  this._timers[name] = setTimeout(then, ms)
}

SocketLink.prototype._hear = function (text) {
  this.heard = true
  clearTimeout(this._timers.pong)
  this._pongDueAt = null
  var frame = parsed(text)
  if (frame === null) return
  if (frame.type === 'connected') this._greeted(frame.server || {})
  else if (frame.type === 'goodbye') this.comeBackMs = frame.retry_after_ms
  else if (frame.id && frame.id === this._loginId) this._loggedIn(frame)
  else if (frame.type === 'error' && !frame.id && !frame.request_id) this._refused(frame)
  else if (frame.type !== 'pong') this.client._frame(frame)
}

SocketLink.prototype._greeted = function (server) {
  clearTimeout(this._timers.connect)
  this.pingS = server.ping_interval_s || PING_S
  this.maxBytes = server.max_message_bytes || MAX_MESSAGE_BYTES
  this._logIn()
}

SocketLink.prototype._logIn = function () {
  var link = this
  this._logins += 1
  if (!this.ready) {
    // The connection may die before the login is answered, and there are no pings yet that would show it.
    this._after('login', this.client._times.loginMs, function () {
      link.lose(1006)
    })
  }
  this.client._credential(function (message) {
    if (link.dead) return
    link._loginId = message.id
    link._send(message)
  }, function () {
    link.lose(1006)
  })
}

SocketLink.prototype._loggedIn = function (frame) {
  this._loginId = null
  var verdict = this.client._takeLogin(frame)
  if (verdict === 'in') {
    if (this.ready) return
    clearTimeout(this._timers.login)
    this.ready = true
    this.readyAt = Date.now()
    this._beat()
    this.client._linkReady(this)
  } else if (verdict === 'again' && this._logins < 3) this._logIn()
  else {
    this.comeBackMs = frame.retry_after_ms
    this.lose(verdict === 'refused' ? REFUSED : 1006)
  }
}

/** An error that names no message: one of those just sent was over the rate, or nobody is let in now. */
SocketLink.prototype._refused = function (frame) {
  var link = this
  this.comeBackMs = frame.retry_after_ms
  if (frame.reason === 'rate_limited' && this.ready) {
    this._tokens = 0
    this._after('again', frame.retry_after_ms || 1000, function () {
      link.comeBackMs = null
      link.client._sendAgain(link)
    })
  }
}

SocketLink.prototype._beat = function () {
  var link = this
  // Spread, so that clients that came back together do not stay together.
  this._after('beat', this.pingS * 1000 * (0.7 + 0.3 * Math.random()), function () {
    link.probe(link.client._times.pongMs)
    if (link.client._tokenIsOld()) link._logIn()
    link._beat()
  })
}

/** Ask whether the server is still there; without any answer in time the socket is given up. */
SocketLink.prototype.probe = function (patienceMs) {
  var link = this
  var dueAt = Date.now() + patienceMs
  this._send({ type: 'ping' })
  // The next ping does not put off what the one before it waits for.
  if (this._pongDueAt !== null && this._pongDueAt <= dueAt) return
  this._pongDueAt = dueAt
  this._after('pong', patienceMs, function () {
    link.lose(1006)
  })
}

SocketLink.prototype.call = function (call) {
  this._send(call.message)
}

SocketLink.prototype.follow = function (run) {
  if (run.requestId) {
    run.resumeId = this.client._newId()
    this._send({ type: 'resume', id: run.resumeId, request_id: run.requestId, after_seq: run.seq })
  } else {
    this._send(run.message)
  }
}

SocketLink.prototype._send = function (message) {
  this._queue.push(message)
  this._drain()
}

SocketLink.prototype._drain = function () {
  var link = this
  var now = Date.now()
  this._tokens = Math.min(SEND_BURST, this._tokens + ((now - this._filledAt) / 1000) * SENDS_PER_S)
  this._filledAt = now
  while (this._queue.length > 0 && !this.dead) {
    if (this._tokens < 1) {
      this._after('drain', Math.ceil(1000 / SENDS_PER_S), function () {
        link._drain()
      })
      return
    }
    this._tokens -= 1
    this._task.send({
      data: JSON.stringify(this._queue.shift()),
      fail: function () {
        link._sendFailed()
      }
    })
  }
}

/** The code may forbid to come back, and comes after this. */
SocketLink.prototype._sendFailed = function () {
  var link = this
  if (this._failed || this.dead) return
  this._failed = true
  this._after('closed', CLOSED_MS, function () {
    link.lose(1006)
  })
}

/** The socket is gone, or shall be: whoever says it first is believed. */
SocketLink.prototype.lose = function (code) {
  if (this.dead) return
  this.close()
  this.client._linkLost(this, code)
}

SocketLink.prototype.close = function () {
  this.dead = true
  for (var name in this._timers) clearTimeout(this._timers[name])
  if (this._task) this._task.close({ code: 1000 })
}

/** Requests and server-sent events, where sockets are blocked. */
function HttpLink(client) {
  this.kind = 'http'
  this.client = client
  this.ready = false
  this.dead = false
  this.heard = true
  this.readyAt = 0
  this.comeBackMs = null
  this.maxBytes = MAX_MESSAGE_BYTES
  this._logins = 0
  this._busy = 0
  this._queue = []
  this._tasks = []
}

HttpLink.prototype.open = function () {
  this._logIn()
}

HttpLink.prototype._logIn = function () {
  var link = this
  this._logins += 1
  this.client._credential(function (message) {
    if (link.dead) return
    link._post(message, function (frame) {
      link._loggedIn(frame)
    })
  }, function () {
    link.lose(1006)
  })
}

HttpLink.prototype._loggedIn = function (frame) {
  var verdict = this.client._takeLogin(frame)
  if (verdict === 'in') {
    this.ready = true
    this.readyAt = Date.now()
    this.client._linkReady(this)
  } else if (verdict === 'again' && this._logins < 3) this._logIn()
  else {
    this.comeBackMs = frame.retry_after_ms
    this.lose(verdict === 'refused' ? REFUSED : 1006)
  }
}

HttpLink.prototype.probe = function () {}

HttpLink.prototype.call = function (call) {
  var link = this
  this._post(call.message, function (frame) {
    link._answered(frame)
  })
}

HttpLink.prototype._answered = function (frame) {
  if (isAboutSession(frame)) this._sessionEnded()
  else this.client._frame(frame)
}

HttpLink.prototype._sessionEnded = function () {
  this.lose(4003)
}

HttpLink.prototype._post = function (message, then) {
  var link = this
  this._request({ method: 'POST', url: '/api/v1/messages', data: message }, function (task, done) {
    task.success = function (response) {
      done()
      var frame = typeof response.data === 'string' ? parsed(response.data) : response.data
      // What is no frame comes from something between us and the server, which is not reached.
      if (frame === null || typeof frame !== 'object' || !frame.type) link.lose(1006)
      else then(frame)
    }
    task.fail = function () {
      done()
      link.lose(1006)
    }
  })
}

HttpLink.prototype.follow = function (run) {
  var link = this
  var reader = new RunReader(this, run)
  var path = '/api/v1/streams/' + encodeURIComponent(run.requestId || '') + '?after_seq=' + run.seq
  var options = run.requestId
    ? { method: 'GET', url: path }
    : { method: 'POST', url: '/api/v1/messages', data: run.message }
  this._request(options, function (task, done) {
    task.header.Accept = 'text/event-stream'
    task.enableChunked = true
    task.responseType = 'text'
    task.dataType = 'text'
    task.success = function (response) {
      done()
      if (!link.dead) reader.end(response)
    }
    task.fail = function () {
      done()
      if (!link.dead) link.client._streamBroke(run, link)
    }
    task.opened = function (opened) {
      if (!opened || !opened.onChunkReceived) return
      opened.onChunkReceived(function (chunk) {
        if (!link.dead) reader.take(chunk.data)
      })
    }
  })
}

/** Have a request made as soon as WeChat takes one more. `prepare` gets its options, and what says that it is over. */
HttpLink.prototype._request = function (options, prepare) {
  this._queue.push({ options: options, prepare: prepare })
  this._next()
}

HttpLink.prototype._next = function () {
  var link = this
  while (!this.dead && this._busy < REQUESTS_AT_ONCE && this._queue.length > 0) begin(this._queue.shift())

  function begin(waiting) {
    var options = waiting.options
    var over = false
    var task = null
    options.url = link.client._url + options.url
    options.timeout = REQUEST_MS
    options.header = { 'Content-Type': 'application/json' }
    // Who logs in is nobody yet, and a bad token is never overlooked.
    if (link.ready && link.client._token) options.header.Authorization = 'Bearer ' + link.client._token.token
    waiting.prepare(options, function () {
      if (over) return
      over = true
      link._busy -= 1
      link._tasks.splice(link._tasks.indexOf(task), 1)
      link._next()
    })
    link._busy += 1
    task = link.client._wx.request(options)
    link._tasks.push(task)
    if (options.opened) options.opened(task)
  }
}

HttpLink.prototype.lose = function (code) {
  if (this.dead) return
  this.close()
  this.client._linkLost(this, code)
}

HttpLink.prototype.close = function () {
  this.dead = true
  this._tasks.slice().forEach(function (task) {
    task.abort()
  })
}

/** The events of one answer over HTTP. */
function RunReader(link, run) {
  var reader = this
  this._link = link
  this._run = run
  this._utf8 = new Utf8()
  this._raw = ''
  this._any = false
  this._events = new Events(function (data) {
    var frame = parsed(data)
    if (frame !== null && run.on === link) reader._frame(frame)
  })
}

/** `data` is an ArrayBuffer on phones; tools have given its view, or text. */
RunReader.prototype.take = function (data) {
  var text = typeof data === 'string' ? data : this._utf8.push(new Uint8Array(data))
  if (!this._any && this._raw.length < MAX_MESSAGE_BYTES) this._raw += text
  this._events.push(text)
}

RunReader.prototype._frame = function (frame) {
  var client = this._link.client
  this._any = true
  if (isAboutSession(frame)) this._link._sessionEnded()
  else if (frame.type === 'generate_start') client._accepted(this._run, frame.content || {})
  else if (frame.type === 'resume_response') client._resumed(this._run, frame.data || {})
  else client._frame(frame)
}

/** The response is over: with the answer, with an error instead of one, or too soon. */
RunReader.prototype.end = function (response) {
  // Where there are no chunks, all of it comes at the end.
  if (!this._any && this._raw === '' && typeof response.data === 'string') this.take(response.data)
  if (this._any || this._run.on !== this._link) return this._link.client._streamBroke(this._run, this._link)
  var body = parsed(this._raw)
  if (body === null && response.data && typeof response.data === 'object') body = response.data
  var error = body && (body.reason ? body : body.error)
  if (!error || !error.reason) this._link.client._streamBroke(this._run, this._link)
  else if (isAboutSession(error)) this._link._sessionEnded()
  else this._link.client._runRefused(this._run, error)
}

function isAboutSession(frame) {
  return frame.code === 401 && frame.reason !== undefined
}

function parsed(text) {
  try {
    return JSON.parse(text)
  } catch (error) {
    return null // whoever sent it is no server of ours; the caller says what that means
  }
}

// ---- the client ----

/**
 * `options.url` is the server's address, `https://…` without a path. Others are for tests and unusual servers:
 * `socketUrl`, `wx`, `storagePrefix`, and the times `connectMs`, `loginMs`, `pongMs`, `suspendMs`, `backoffMs`, `socketAgainMs`.
 */
function Client(options) {
  this._wx = options.wx || wx
  this._url = options.url.replace(/\/+$/, '')
  this._socketUrl = options.socketUrl || this._url.replace(/^http/, 'ws') + '/wechat/ws'
  this._prefix = options.storagePrefix || 'cinewire.'
  this._times = {
    connectMs: options.connectMs || CONNECT_MS,
    loginMs: options.loginMs || LOGIN_REPLY_MS,
    pongMs: options.pongMs || PONG_MS,
    suspendMs: options.suspendMs || SUSPEND_MS,
    backoffMs: options.backoffMs || BACKOFF_MS,
    socketAgainMs: options.socketAgainMs || SOCKET_AGAIN_MS
  }
  this._listeners = {}
  this._link = null
  this._upgrade = null
  this._visible = false
  this._hiddenAt = 0
  this._attempts = 0
  this._silent = 0
  this._timer = null
  this._saveTimer = null
  this._calls = []
  this._token = this._read('token', null)
  this._state = this._read('signed_out', false) ? 'signed_out' : 'offline'
  this._runs = this._read('runs', []).map(runOf)
  var client = this
  if (this._wx.onNetworkStatusChange) {
    this._wx.onNetworkStatusChange(function (network) {
      if (!network.isConnected) return
      client._silent = 0 // another network may let sockets through
      if (client._state === 'offline') client._comeBack(0)
    })
  }
}

function create(options) {
  return new Client(options)
}

/** One question on its way to its answer: what is in storage of it, and who waits. */
function runOf(stored) {
  return {
    id: stored.id,
    message: stored.message,
    askedAt: stored.askedAt,
    requestId: stored.requestId || null,
    conversationId: stored.conversationId || null,
    seq: stored.seq || 0,
    text: stored.text || '',
    recommendations: stored.recommendations || null,
    watchlist: stored.watchlist || null,
    on: null,
    acked: false,
    resumeId: null,
    fetching: null,
    attempts: 0,
    timer: null,
    watchers: []
  }
}

// ---- storage ----

Client.prototype._read = function (name, otherwise) {
  var value = this._wx.getStorageSync(this._prefix + name)
  return value === '' || value === undefined || value === null ? otherwise : value
}

Client.prototype._write = function (name, value) {
  try {
    if (value === null) this._wx.removeStorageSync(this._prefix + name)
    else this._wx.setStorageSync(this._prefix + name, value)
  } catch (error) {
    // Storage is full (10 MB): what is in memory goes on, and the page may say so.
    this._emit('error', failure('storage_full', String((error && error.errMsg) || error)))
  }
}

Client.prototype._save = function () {
  clearTimeout(this._saveTimer)
  this._saveTimer = null
  var kept = this._runs.filter(function (run) {
    return !run.message.incognito
  })
  this._write('runs', kept.length === 0 ? null : kept.map(function (run) {
    return {
      id: run.id,
      message: run.message,
      askedAt: run.askedAt,
      requestId: run.requestId,
      conversationId: run.conversationId,
      seq: run.seq,
      text: run.text,
      recommendations: run.recommendations,
      watchlist: run.watchlist
    }
  }))
}

Client.prototype._saveSoon = function () {
  var client = this
  if (this._saveTimer === null) {
    this._saveTimer = setTimeout(function () {
      client._save()
    }, SAVE_MS)
  }
}

// ---- events ----

/** `state` {state, transport}, `conversation_updated` {conversation_id, title}, `error` Error. Gives what ends it. */
Client.prototype.on = function (event, listener) {
  var listeners = this._listeners[event] || (this._listeners[event] = [])
  listeners.push(listener)
  return function () {
    var at = listeners.indexOf(listener)
    if (at >= 0) listeners.splice(at, 1)
  }
}

Client.prototype._emit = function (event, value) {
  var listeners = (this._listeners[event] || []).slice()
  for (var i = 0; i < listeners.length; i++) safely(listeners[i], value)
}

/** A page's mistake is the page's: it is thrown where nobody of ours is in the way. */
function safely(listener, a, b) {
  try {
    listener(a, b)
  } catch (error) {
    setTimeout(function () {
      throw error
    }, 0)
  }
}

/** offline, connecting, online, replaced, refused, stopped or signed_out; `transport` is socket, http or null. */
Client.prototype.state = function () {
  return { state: this._state, transport: this._link && this._link.ready ? this._link.kind : null }
}

Client.prototype._become = function (state) {
  if (this._state === state && state !== 'online') return
  this._state = state
  this._emit('state', this.state())
}

// ---- coming and going ----

/** To be called by the app's `onShow`. */
Client.prototype.show = function () {
  var away = this._hiddenAt ? Date.now() - this._hiddenAt : 0
  this._visible = true
  this._hiddenAt = 0
  this._attempts = 0
  if (this._state === 'signed_out' || this._state === 'refused' || this._state === 'stopped') return
  if (this._link && away >= this._times.suspendMs) {
    // WeChat has cut it, and may never say so.
    var link = this._link
    link.close()
    this._letGo(link)
    this._runs.forEach(function (run) {
      run.on = null
    })
  }
  if (this._link) {
    if (this._link.ready) this._link.probe(Math.min(3000, this._times.pongMs))
  } else {
    this._comeBack(0)
  }
}

/** To be called by the app's `onHide`. */
Client.prototype.hide = function () {
  this._visible = false
  this._hiddenAt = Date.now()
  clearTimeout(this._timer)
  this._timer = null
  this._save()
}

/** Connect at once: after `replaced`, or because somebody pulled the page down. */
Client.prototype.connect = function () {
  this._visible = true
  this._attempts = 0
  if (this._state === 'signed_out') return
  if (!this._link) this._comeBack(0)
}

/** Log in after `logout`, or after WeChat refused to. */
Client.prototype.login = function () {
  this._write('signed_out', null)
  if (this._state === 'signed_out' || this._state === 'refused' || this._state === 'stopped') this._state = 'offline'
  this.connect()
}

/** Who asks for something wants to be here, whatever other device took the place. */
Client.prototype._wanted = function () {
  if (this._state === 'replaced' && this._visible) this.connect()
}

Client.prototype._comeBack = function (waitMs) {
  var client = this
  clearTimeout(this._timer)
  this._timer = null
  if (!this._visible) return this._become('offline')
  if (waitMs > 0) {
    this._become('offline')
    this._timer = setTimeout(function () {
      client._open()
    }, waitMs)
  } else {
    this._open()
  }
}

Client.prototype._open = function () {
  this._timer = null
  if (this._link || !this._visible) return
  this._become('connecting')
  this._link = this._silent >= BLOCKED_AFTER ? new HttpLink(this) : new SocketLink(this)
  this._link.open()
}

Client.prototype._linkReady = function (link) {
  if (link === this._upgrade) {
    // Answers that are under way over HTTP end there; everything else moves.
    this._upgrade = null
    this._link = link
  }
  if (link.kind === 'socket') this._silent = 0
  else this._trySocketLater()
  this._become('online')
  this._flush()
}

Client.prototype._trySocketLater = function () {
  var client = this
  clearTimeout(this._upgradeTimer)
  this._upgradeTimer = setTimeout(function () {
    if (!client._link || client._link.kind !== 'http' || client._upgrade) return
    if (!client._visible) return client._trySocketLater()
    client._upgrade = new SocketLink(client)
    client._upgrade.open()
  }, this._times.socketAgainMs)
}

/** Whatever was on its way over this link is on its way no more. */
Client.prototype._letGo = function (link) {
  if (this._link === link) this._link = null
  this._runs.forEach(function (run) {
    if (run.on === link) run.on = null
  })
  this._calls.slice().forEach(function (call) {
    if (call.on !== link) return
    call.on = null
    var error = failure('connection_lost', '连接断开，不知道是否已完成', { retryable: true })
    if (ONCE[call.message.type]) this._endCall(call, error, null)
  }, this)
}

/** After these nothing is tried again by itself. */
var RESTS = { 4002: 'stopped', 4008: 'replaced' }
RESTS[REFUSED] = 'refused'

Client.prototype._linkLost = function (link, code) {
  if (link === this._upgrade) {
    this._upgrade = null
    return this._trySocketLater()
  }
  if (link !== this._link) {
    // HTTP that a socket has taken over from.
    this._letGo(link)
    return this._flush()
  }
  if (!this._visible) this._silent = 0 // WeChat cut it, which says nothing of the network
  else if (link.kind === 'socket') this._silent = link.heard ? 0 : this._silent + 1
  else if (code !== 4003) this._silent = BLOCKED_AFTER - 1 // a socket is tried once, then HTTP again
  if (code === 1009) this._dropLargest(link)
  this._letGo(link)
  if (this._state === 'signed_out') return
  if (RESTS[code]) return this._become(RESTS[code])
  if (code === 4003) this._setToken(null)
  if (link.readyAt && Date.now() - link.readyAt >= SETTLED_MS) this._attempts = 0
  this._comeBack(this._waitAfter(link, code))
}

Client.prototype._waitAfter = function (link, code) {
  if (link.comeBackMs !== null && link.comeBackMs !== undefined) return link.comeBackMs
  var slow = code === 4006 || code === 1013 ? 10 : 1
  var bound = Math.min(MAX_BACKOFF_MS, this._times.backoffMs * slow * Math.pow(2, this._attempts))
  this._attempts += 1
  // Our own session ended, or we read too slowly: the server is well and waits for nobody.
  if ((code === 4003 || code === 4004 || code === 4005) && this._attempts === 1) return 0
  return bound * (0.5 + 0.5 * Math.random())
}

/** A message was too big for the server though not for us: the biggest one that is unanswered is not sent again. */
Client.prototype._dropLargest = function (link) {
  var largest = null
  this._runs.concat(this._calls).forEach(function (one) {
    var size = one.on === link && !one.acked ? JSON.stringify(one.message).length : 0
    if (size > 0 && (largest === null || size > JSON.stringify(largest.message).length)) largest = one
  })
  var error = failure('too_large', '消息太大')
  if (largest === null) return
  if (this._runs.indexOf(largest) >= 0) this._endRun(largest, error, null)
  else this._endCall(largest, error, null)
}

// ---- who we are ----

/** The message that logs in: with the token if there is one, else with a fresh code of WeChat's. */
Client.prototype._credential = function (then, failed) {
  var client = this
  if (this._token && this._token.expiresAt > Date.now()) {
    return then({ type: 'auth', id: this._newId(), token: this._token.token })
  }
  this._wx.login({
    timeout: LOGIN_MS,
    success: function (login) {
      if (login.code) then({ type: 'login', id: client._newId(), code: login.code })
      else failed()
    },
    fail: function (error) {
      client._emit('error', failure('wx_login_failed', (error && error.errMsg) || 'wx.login', { retryable: true }))
      failed()
    }
  })
}

/** What became of a login: `in`, `again` at once with a fresh code, `later`, or `refused`. */
Client.prototype._takeLogin = function (frame) {
  if (frame.code === 0) {
    var data = frame.data
    this._setToken({
      token: data.token,
      openid: data.openid || (this._token && this._token.openid) || null,
      sessionId: data.session_id,
      takenAt: Date.now(),
      expiresAt: Date.now() + data.expires_in * 1000
    })
    return 'in'
  }
  if (frame.code === 401) {
    this._setToken(null)
    return 'again'
  }
  this._emit('error', failureOf(frame))
  return frame.retryable ? 'later' : 'refused'
}

Client.prototype._setToken = function (token) {
  this._token = token
  this._write('token', token)
}

Client.prototype._tokenIsOld = function () {
  var token = this._token
  return Boolean(token) && Date.now() > token.takenAt + 0.8 * (token.expiresAt - token.takenAt)
}

/** `{openid, sessionId}`, or null. */
Client.prototype.user = function () {
  return this._token && { openid: this._token.openid, sessionId: this._token.sessionId }
}

/** End the session on the server; then everything of it is forgotten here. */
Client.prototype.logout = function () {
  return this._leave('logout')
}

/** Delete everything that the server has of the user, for ever; then the same here. */
Client.prototype.deleteAccount = function () {
  return this._leave('account_delete')
}

Client.prototype._leave = function (type) {
  var client = this
  return this.request(type).then(function () {
    client._write('signed_out', true)
    client._setToken(null)
    client._state = 'signed_out'
    var link = client._link
    if (link) {
      link.close()
      client._letGo(link)
    }
    var gone = failure('signed_out', '已退出登录')
    client._runs.slice().forEach(function (run) {
      client._endRun(run, gone, null)
    })
    client._calls.slice().forEach(function (call) {
      client._endCall(call, gone, null)
    })
    client._emit('state', client.state())
  })
}

/** Everything that the server has of the user: `{conversations, messages, feedback, watchlist}`. */
Client.prototype.exportAccount = function () {
  var client = this
  var all = { conversations: [], messages: [], feedback: [], watchlist: [] }
  function page(after) {
    return client.request('account_export', after ? { after: after } : {}).then(function (data) {
      for (var name in all) all[name] = all[name].concat(data[name] || [])
      return data.next_after ? page(data.next_after) : all
    })
  }
  return page(null)
}

// ---- requests ----

/** Send a message of this type and give the `data` of its reply; waits for the network, sends again after a loss. */
Client.prototype.request = function (type, fields, options) {
  var client = this
  var message = merged({ type: type, id: this._newId() }, fields)
  var problem = this._problem(message)
  if (problem) return Promise.reject(problem)
  return new Promise(function (resolve, reject) {
    var call = { id: message.id, message: message, resolve: resolve, reject: reject, on: null, timer: null }
    call.timer = setTimeout(function () {
      var reason = client._state === 'online' ? 'timeout' : 'offline'
      client._endCall(call, failure(reason, '网络不可用，请稍后再试', { retryable: true }), null)
    }, (options && options.timeoutMs) || CALL_MS)
    client._calls.push(call)
    client._wanted()
    client._flush()
  })
}

Client.prototype._endCall = function (call, error, data) {
  var at = this._calls.indexOf(call)
  if (at < 0) return
  this._calls.splice(at, 1)
  clearTimeout(call.timer)
  if (error) call.reject(error)
  else call.resolve(data)
}

Client.prototype._problem = function (message) {
  if (this._state === 'signed_out') return failure('signed_out', '请先登录', { code: 401 })
  var bytes = utf8Length(JSON.stringify(message))
  var most = (this._link && this._link.maxBytes) || MAX_MESSAGE_BYTES
  return bytes > most ? failure('too_large', '消息太大', { code: 413 }) : null
}

Client.prototype._newId = function () {
  return Date.now().toString(36) + Math.random().toString(36).slice(2, 10) + Math.random().toString(36).slice(2, 6)
}

// ---- chats ----

/**
 * Ask. The promise is of the whole answer: `{id, requestId, conversationId, messageId, text, finishReason, usage,
 * recommendations, watchlist, aigc}`; its `id` names the question for `cancel` and `follow`.
 *
 * `query`, and as wanted `conversationId`, `useAutoRag`, `kbPrefix`, `debug`, `incognito`, `watchlistAutoCapture`,
 * `onBusy`; and what to call: `onAccepted({requestId, conversationId})`, `onChunk(delta, textSoFar)`,
 * `onRecommendations({tmdb_ids, title, mode})`, `onWatchlist({capture_id, items})`, `onStatus(content)`,
 * `onRestart()` and `onRetract(reason)`: the text so far is void.
 *
 * The question is in storage before this returns. It is asked when there is a network, after those that were asked
 * before it in the same conversation; with `onBusy` at once.
 */
Client.prototype.chat = function (options) {
  var message = {
    type: 'chat',
    id: options.id || this._newId(),
    query: options.query,
    stream: true,
    conversation_id: options.conversationId,
    use_auto_rag: options.useAutoRag,
    kb_prefix: options.kbPrefix,
    debug: options.debug,
    incognito: options.incognito,
    watchlist_auto_capture: options.watchlistAutoCapture,
    on_busy: options.onBusy
  }
  message = merged({}, message)
  var problem = this._problem(message)
  if (problem) return named(message.id, Promise.reject(problem))
  var run = runOf({ id: message.id, message: message, askedAt: Date.now(), conversationId: options.conversationId })
  this._runs.push(run)
  this._save()
  var promise = this._watch(run, options)
  this._wanted()
  this._flush()
  return promise
}

/**
 * The answers that are not whole yet, the oldest question first, those of before the app was closed among them.
 * `askedIn` is the conversation that the question named, null for the standing one.
 */
Client.prototype.unfinished = function () {
  return this._runs.map(function (run) {
    return {
      id: run.id,
      query: run.message.query,
      askedIn: run.message.conversation_id || null,
      conversationId: run.conversationId,
      requestId: run.requestId,
      text: run.text,
      recommendations: run.recommendations,
      watchlist: run.watchlist,
      askedAt: run.askedAt,
      sent: run.requestId !== null
    }
  })
}

/** Follow an unfinished answer from where it stands: as `chat`, for a question that was asked before. */
Client.prototype.follow = function (id, handlers) {
  var run = this._runOf('id', id)
  if (!run) return Promise.reject(failure('not_found', '没有这个未完成的回答', { code: 404 }))
  return this._watch(run, handlers || {})
}

/** End an answer; what there is of it is kept. A question that was not sent yet is taken back. */
Client.prototype.cancel = function (id) {
  var client = this
  var run = this._runOf('id', id)
  if (!run) return Promise.resolve()
  function takeBack() {
    if (client._runs.indexOf(run) >= 0) client._endRun(run, null, { finish_reason: 'cancelled' })
  }
  if (!run.requestId && run.on === null && run.attempts === 0) return Promise.resolve(takeBack())
  var name = run.requestId ? { request_id: run.requestId } : { chat_id: run.id }
  return this.request('cancel', name).then(
    function () {},
    function (error) {
      if (error.reason !== 'run_not_found') throw error
      takeBack()
    }
  )
}

Client.prototype._watch = function (run, handlers) {
  var promise = new Promise(function (resolve, reject) {
    run.watchers.push({ handlers: handlers, resolve: resolve, reject: reject })
  })
  return named(run.id, promise)
}

function named(id, promise) {
  promise.id = id
  return promise
}

Client.prototype._tell = function (run, handler, a, b) {
  run.watchers.forEach(function (watcher) {
    if (typeof watcher.handlers[handler] === 'function') safely(watcher.handlers[handler], a, b)
  })
}

Client.prototype._runOf = function (field, value) {
  for (var i = 0; i < this._runs.length; i++) if (this._runs[i][field] === value) return this._runs[i]
  return null
}

Client.prototype._endRun = function (run, error, complete) {
  var at = this._runs.indexOf(run)
  if (at < 0) return
  this._runs.splice(at, 1)
  clearTimeout(run.timer)
  this._save()
  var whole = complete && {
    id: run.id,
    requestId: run.requestId,
    conversationId: run.conversationId,
    messageId: complete.message_id || null,
    text: run.text,
    finishReason: complete.finish_reason || null,
    usage: complete.usage || null,
    recommendations: run.recommendations,
    watchlist: run.watchlist,
    aigc: true
  }
  run.watchers.forEach(function (watcher) {
    if (error) watcher.reject(error)
    else watcher.resolve(whole)
  })
  this._flush()
}

// ---- what goes out, and what comes in ----

/** Send all that waits and may go. */
Client.prototype._flush = function () {
  var link = this._link
  if (!link || !link.ready) return
  var answering = {}
  this._runs.slice().forEach(function (run) {
    var conversation = run.message.conversation_id || ''
    var free = run.requestId || run.message.on_busy || !answering[conversation]
    answering[conversation] = true
    if (run.on !== null || run.timer !== null || !free || link.dead) return
    run.on = link
    run.acked = false
    run.attempts += 1
    link.follow(run)
  }, this)
  this._calls.slice().forEach(function (call) {
    if (call.on !== null || link.dead) return
    call.on = link
    link.call(call)
  })
}

/** Something sent over this link was refused, and nobody said what: all that is unanswered is sent again. */
Client.prototype._sendAgain = function (link) {
  this._runs.forEach(function (run) {
    if (run.on === link && !run.acked) run.on = null
  })
  this._calls.forEach(function (call) {
    if (call.on === link && !ONCE[call.message.type]) call.on = null
  })
  this._flush()
}

Client.prototype._frame = function (frame) {
  var run = frame.request_id ? this._runOf('requestId', frame.request_id) : null
  if (frame.seq !== undefined) {
    run = run || this._runOf('id', frame.id)
    if (run) this._advance(run, frame)
    return
  }
  if (frame.type === 'conversation_updated') return this._emit('conversation_updated', frame.data)
  if (!frame.id) return
  run = this._runOf('id', frame.id)
  if (run) return frame.type === 'error' ? this._runRefused(run, frame) : this._accepted(run, frame.data || {})
  run = this._runOf('resumeId', frame.id)
  if (run) return frame.type === 'error' ? this._runRefused(run, frame) : this._resumed(run, frame.data || {})
  for (var i = 0; i < this._calls.length; i++) {
    if (this._calls[i].id !== frame.id) continue
    return this._endCall(this._calls[i], frame.code === 0 ? null : failureOf(frame), frame.data)
  }
}

Client.prototype._accepted = function (run, accepted) {
  run.acked = true
  run.requestId = accepted.request_id
  run.conversationId = accepted.conversation_id || null
  this._save()
  this._tell(run, 'onAccepted', { requestId: run.requestId, conversationId: run.conversationId })
}

Client.prototype._resumed = function (run, resumed) {
  run.acked = true
  if (resumed.recovered) return
  // Its frames are gone; what was stored is all there is.
  if (!resumed.message) {
    var error = failure('run_lost', '回答已失效，请重新提问', { code: 503, retryable: true })
    return this._endRun(run, error, null)
  }
  run.text = resumed.message.content
  this._endRun(run, null, {
    message_id: resumed.message.id,
    finish_reason: resumed.message.finish_reason,
    usage: resumed.message.usage
  })
}

/** A question or a resume was refused: for good, or until a little later. */
Client.prototype._runRefused = function (run, error) {
  var wanted = run.message.on_busy === 'reject' && error.reason === 'conversation_busy'
  if (!error.retryable || wanted) {
    if (error.code === 401) return this._link && this._link.lose(4003)
    return this._endRun(run, failureOf(error), null)
  }
  this._tryLater(run, error.retry_after_ms, error.reason === 'conversation_busy' ? BUSY_MS : null)
}

Client.prototype._tryLater = function (run, waitMs, longestMs) {
  var client = this
  run.on = null
  var backoff = Math.min(longestMs || MAX_BACKOFF_MS, this._times.backoffMs * Math.pow(2, Math.min(run.attempts, 10)))
  clearTimeout(run.timer)
  run.timer = setTimeout(function () {
    run.timer = null
    client._flush()
  }, waitMs || backoff * (0.5 + 0.5 * Math.random()))
}

/** Events ended before the answer did. */
Client.prototype._streamBroke = function (run, link) {
  if (this._runs.indexOf(run) >= 0 && run.on === link) this._tryLater(run, run.acked ? 50 : null)
}

/** Take the next frame of an answer. One that was had already is dropped; before a gap the missing ones are fetched. */
Client.prototype._advance = function (run, frame) {
  run.acked = true
  if (frame.seq <= run.seq) return
  if (frame.seq > run.seq + 1 && frame.type !== 'restart') return this._fetchMissing(run)
  run.seq = frame.seq
  run.attempts = 1
  if (frame.type === 'complete') {
    run.text = frame.answer
    return this._endRun(run, null, frame)
  }
  if (frame.type === 'error') return this._endRun(run, failureOf(frame), null)
  if (frame.type === 'chunk') run.text += frame.content
  else if (frame.type === 'recommendations') run.recommendations = frame.content
  else if (frame.type === 'watchlist') run.watchlist = frame.content
  else if (frame.type === 'restart' || frame.type === 'retract') {
    run.text = ''
    run.recommendations = null
  }
  this._saveSoon()
  if (frame.type === 'chunk') this._tell(run, 'onChunk', frame.content, run.text)
  else if (frame.type === 'restart' || frame.type === 'retract') {
    this._tell(run, frame.type === 'restart' ? 'onRestart' : 'onRetract', frame.content && frame.content.reason)
  } else if (HANDLERS[frame.type]) this._tell(run, HANDLERS[frame.type], frame.content)
}

var HANDLERS = { recommendations: 'onRecommendations', watchlist: 'onWatchlist', status: 'onStatus' }

Client.prototype._fetchMissing = function (run) {
  if (!run.requestId || run.fetching === run.seq) return
  run.fetching = run.seq // one resume for one gap: the frames behind it keep coming meanwhile
  run.on = null
  this._flush()
}

function merged(into, fields) {
  for (var name in fields) if (fields[name] !== undefined && fields[name] !== null) into[name] = fields[name]
  return into
}

module.exports = { create: create, Utf8: Utf8, Events: Events }
