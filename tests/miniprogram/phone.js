'use strict'
/**
 * A phone with WeChat on it, as far as a mini program can see: `wx` with sockets, requests, storage and logins.
 *
 * Sockets are `ws`, requests are `node:http`; names of servers lead to the server under test. What WeChat does to
 * programs is done here: five sockets at most, ten requests, both cut some time after the program went to the background,
 * chunks of a response in any pieces.
 */

const http = require('node:http')
const WebSocket = require('ws')
const { Thread } = require('./process')

const SOCKETS = 5
const REQUESTS = 10
const REQUEST_MS = 60000

/** `openid` is who holds it; `login` gives a fresh code for an openid, as WeChat's servers do. */
class Phone {
  constructor({ server, login, openid, cutMs = 5000 }) {
    this.server = new URL(server)
    this.openid = openid
    this.cutMs = cutMs
    this.online = true
    this.socketsBlocked = false
    this.cutsSilently = false
    this.lateFirst = false
    this.noChunks = false
    this.pieces = null
    this.toasts = []
    this.modals = []
    this.files = new Map()
    this.shared = []
    this.sent = []
    this.opened = 0
    this.streams = []
    this._login = login
    this._storage = new Map()
    this._sockets = new Set()
    this._requests = new Set()
    this._listeners = []
    this.thread = null
  }

  /** Start the program anew; what is in storage is all that it knows. */
  start(globals = {}) {
    this._listeners = []
    this.thread = new Thread({ wx: this._wx(), ...globals })
    return this.thread
  }

  /** The program is ended without a word, as WeChat and people do. */
  kill() {
    this.thread.kill()
    clearTimeout(this._cutTimer)
    this._cutSockets()
    for (const request of [...this._requests]) request.end('interrupted')
  }

  /** To the background. The promise is of the moment when WeChat has cut everything. */
  hide(onHide) {
    this.thread.deliver(onHide)
    return new Promise((resolve) => {
      this._cutTimer = setTimeout(() => {
        this.thread.suspend()
        this._cutSockets()
        for (const request of [...this._requests]) request.end('interrupted')
        resolve()
      }, this.cutMs)
    })
  }

  /** To the foreground. What waited in the program runs before its `onShow` or after. */
  show(onShow) {
    clearTimeout(this._cutTimer)
    if (this.lateFirst) {
      this.thread.resume()
      this.thread.deliver(onShow)
    } else {
      this.thread.suspended = false
      this.thread.deliver(onShow)
      this.thread.resume()
    }
  }

  goOffline() {
    this.online = false
    this._cutSockets()
    for (const request of [...this._requests]) request.end('fail')
    this._tellNetwork()
  }

  goOnline() {
    this.online = true
    this._tellNetwork()
  }

  _tellNetwork() {
    const network = { isConnected: this.online, networkType: this.online ? 'wifi' : 'none' }
    for (const listener of this._listeners) this.thread.deliver(() => listener(network))
  }

  _cutSockets() {
    for (const socket of [...this._sockets]) socket.cut(this.cutsSilently && this.online)
  }

  get socketsOpen() {
    return this._sockets.size
  }

  /** The address of the server under test, whatever name the program calls it by. */
  resolve(url) {
    const wanted = new URL(url)
    return { host: this.server.hostname, port: this.server.port, path: wanted.pathname + wanted.search }
  }

  _wx() {
    const phone = this
    const call = (callback, result) => {
      if (callback) phone.thread.deliver(() => callback(result))
    }
    return {
      env: { USER_DATA_PATH: 'wxfile://usr' },
      login: (options) => {
        const fail = () => call(options.fail, { errMsg: 'login:fail timeout' })
        if (!phone.online) return void setImmediate(fail)
        phone._login(phone.openid).then((code) => call(options.success, { errMsg: 'login:ok', code }), fail)
      },
      connectSocket: (options) => new Socket(phone, options).task,
      request: (options) => new Request(phone, options).task,
      getStorageSync: (key) => (phone._storage.has(key) ? JSON.parse(phone._storage.get(key)) : ''),
      setStorageSync: (key, value) => void phone._storage.set(key, JSON.stringify(value)),
      removeStorageSync: (key) => void phone._storage.delete(key),
      onNetworkStatusChange: (listener) => void phone._listeners.push(listener),
      showToast: (options) => {
        phone.toasts.push(options.title)
        call(options.success, { errMsg: 'showToast:ok' })
      },
      showModal: (options) => {
        const answer = phone.modals.shift()
        if (!answer) throw new Error(`nobody answers: ${options.title} ${options.content}`)
        call(options.success, { errMsg: 'showModal:ok', ...answer })
      },
      setNavigationBarTitle: () => {},
      getFileSystemManager: () => ({
        writeFile: ({ filePath, data, success }) => {
          phone.files.set(filePath, data)
          call(success, { errMsg: 'writeFile:ok' })
        }
      }),
      shareFileMessage: (options) => {
        phone.shared.push(options.filePath)
        call(options.success, { errMsg: 'shareFileMessage:ok' })
      }
    }
  }
}

/** What `wx.connectSocket` gives. */
class Socket {
  constructor(phone, options) {
    this._phone = phone
    this._thread = phone.thread
    this._on = { open: [], message: [], close: [], error: [] }
    this._over = false
    phone.opened += 1
    this.task = {
      onOpen: (listener) => this._on.open.push(listener),
      onMessage: (listener) => this._on.message.push(listener),
      onClose: (listener) => this._on.close.push(listener),
      onError: (listener) => this._on.error.push(listener),
      send: (sending) => this._send(sending),
      close: (closing = {}) => this._close(closing)
    }
    if (phone._sockets.size >= SOCKETS) {
      this._over = true
      setImmediate(() => this._call(options.fail, { errMsg: 'connectSocket:fail websocket connection limit' }))
      return
    }
    phone._sockets.add(this)
    setImmediate(() => this._call(options.success, { errMsg: 'connectSocket:ok' }))
    if (!phone.online || phone.socketsBlocked) {
      setImmediate(() => this._end({ code: 1006, reason: 'abnormal closure' }, 'fail: network'))
      return
    }
    const { host, port, path } = phone.resolve(options.url)
    const headers = { ...options.header, Referer: 'https://servicewechat.com/wx0/devtools/page-frame.html' }
    this._ws = new WebSocket(`ws://${host}:${port}${path}`, options.protocols || [], { headers, perMessageDeflate: false })
    this._ws.on('open', () => this._emit('open', { header: {} }))
    this._ws.on('message', (data) => this._emit('message', { data: data.toString('utf8') }))
    this._ws.on('close', (code, reason) => this._end({ code, reason: reason.toString('utf8') }))
    this._ws.on('error', (error) => this._emit('error', { errMsg: String(error) }))
  }

  _call(callback, result) {
    if (callback) this._thread.deliver(() => callback(result))
  }

  _emit(event, result) {
    for (const listener of this._on[event]) this._thread.deliver(() => listener(result))
  }

  _send({ data, success, fail }) {
    if (this._over || !this._ws || this._ws.readyState !== WebSocket.OPEN) {
      return setImmediate(() => this._call(fail, { errMsg: 'sendSocketMessage:fail SocketTask.readyState is not OPEN' }))
    }
    this._phone.sent.push(JSON.parse(data))
    this._ws.send(data)
    setImmediate(() => this._call(success, { errMsg: 'sendSocketMessage:ok' }))
  }

  _close({ code = 1000, reason = '' }) {
    if (this._over) return
    if (this._ws && this._ws.readyState === WebSocket.OPEN) this._ws.close(code, reason)
    else if (this._ws) this._ws.terminate()
    this._end({ code, reason })
  }

  _end(closed, error) {
    if (this._over) return
    this._over = true
    this._phone._sockets.delete(this)
    if (error) this._emit('error', { errMsg: error })
    this._emit('close', closed)
  }

  /** The connection is gone under the program; of sockets cut in the background it is not always told. */
  cut(silently) {
    if (this._ws) this._ws.terminate()
    if (silently) {
      this._over = true
      this._phone._sockets.delete(this)
    } else this._end({ code: 1006, reason: 'interrupted' })
  }
}

/** What `wx.request` gives. */
class Request {
  constructor(phone, options) {
    this._phone = phone
    this._thread = phone.thread
    this._options = options
    this._ended = false
    this._over = false
    this._chunk = []
    this._held = ''
    this.task = { abort: () => void setImmediate(() => this.end('abort')) }
    if (!phone.noChunks) this.task.onChunkReceived = (listener) => void this._chunk.push(listener)
    if (phone._requests.size >= REQUESTS) {
      setImmediate(() => this.end('exceed max concurrency'))
      return
    }
    phone._requests.add(this)
    if (!phone.online) {
      setImmediate(() => this.end('fail'))
      return
    }
    const { host, port, path } = phone.resolve(options.url)
    if (options.enableChunked) phone.streams.push(path)
    const { method = 'GET', header = {}, timeout = REQUEST_MS } = options
    const body = method === 'GET' ? '' : JSON.stringify(options.data || {})
    const headers = { 'Content-Type': 'application/json', ...header, 'Content-Length': Buffer.byteLength(body) }
    this._request = http.request({ host, port, path, method, headers, agent: false }, (response) => this._read(response))
    this._request.on('error', () => this.end('fail'))
    this._request.end(body)
    this._timer = setTimeout(() => this.end('timeout'), Math.min(timeout, REQUEST_MS))
  }

  _read(response) {
    const whole = []
    const chunked = this._options.enableChunked && !this._phone.noChunks
    response.on('data', (data) => (chunked ? this._give(data) : whole.push(data)))
    response.on('error', () => this.end('fail'))
    response.on('end', () => {
      if (this._held) this._piece(Buffer.from(this._held))
      let data = chunked ? '' : Buffer.concat(whole).toString('utf8')
      if (!chunked && (this._options.dataType || 'json') === 'json') {
        try {
          data = JSON.parse(data)
        } catch {
          // as WeChat: what is no JSON is given as text
        }
      }
      this._finish('success', { data, statusCode: response.statusCode, header: response.headers, errMsg: 'request:ok' })
    })
  }

  /** As it comes, or in the pieces that a test wants, with what was escaped as plain UTF-8. */
  _give(data) {
    if (!this._phone.pieces) return this._piece(data)
    this._held += data.toString('utf8')
    const end = this._held.lastIndexOf('\n') + 1
    const plain = Buffer.from(this._held.slice(0, end).replace(/^data: (.*)$/gm, (_, json) => `data: ${JSON.stringify(JSON.parse(json))}`))
    this._held = this._held.slice(end)
    for (let at = 0, turn = 0; at < plain.length; turn += 1) {
      const size = this._phone.pieces[turn % this._phone.pieces.length]
      this._piece(plain.subarray(at, at + size))
      at += size
    }
  }

  _piece(bytes) {
    const data = new ArrayBuffer(bytes.length)
    new Uint8Array(data).set(bytes)
    for (const listener of this._chunk) this._thread.deliver(() => this._over || listener({ data }))
  }

  end(why) {
    if (this._request) this._request.destroy()
    this._finish('fail', { errMsg: `request:fail ${why}` })
  }

  _finish(how, result) {
    if (this._ended) return
    this._ended = true
    clearTimeout(this._timer)
    this._phone._requests.delete(this)
    // Chunks that wait in a suspended program come before the end that came after them.
    this._thread.deliver(() => {
      this._over = true
      if (this._options[how]) this._options[how](result)
      if (this._options.complete) this._options.complete(result)
    })
  }
}

module.exports = { Phone }
