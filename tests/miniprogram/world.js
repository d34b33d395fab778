'use strict'
/**
 * What the tests share: the server that was started for them, people with phones, and questions whose answers are known.
 *
 * tests/test_miniprogram.py says in the environment where the server is, and where it can be told to do things to it.
 */

const assert = require('node:assert/strict')
const crypto = require('node:crypto')
const http = require('node:http')
const { after } = require('node:test')
const { Phone } = require('./phone')

const SERVER = process.env.CINEWIRE_URL
const CONTROL = process.env.CINEWIRE_CONTROL
const PATIENCE_MS = 15000

/** Pieces of an answer that is still being made whatever a slow machine does meanwhile; it is to be cut short. */
const ENDLESS = 2000

function post(url, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const text = JSON.stringify(body)
    const sent = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text), ...headers }
    const request = http.request(url, { method: 'POST', headers: sent, agent: false }, (response) => {
      const pieces = []
      response.on('data', (piece) => pieces.push(piece))
      response.on('end', () => resolve(JSON.parse(Buffer.concat(pieces).toString('utf8'))))
    })
    request.on('error', reject)
    request.end(text)
  })
}

/** Have something done to the server: `code`, `restart`, `revoke`, `calls`. */
const control = (what, body = {}) => post(`${CONTROL}/${what}`, body)

/** Ask the server beside the program under test. */
async function ask(token, message) {
  const reply = await post(`${SERVER}/api/v1/messages`, message, { Authorization: `Bearer ${token}` })
  assert.equal(reply.code, 0, JSON.stringify(reply))
  return reply.data
}

const phones = []

function newPhone(options = {}) {
  const phone = new Phone({
    server: SERVER,
    openid: `o${crypto.randomBytes(12).toString('hex')}`,
    login: async (openid) => (await control('code', { openid })).code,
    ...options
  })
  phones.push(phone)
  return phone
}

// Of a test that failed too: what is open keeps Node from ending.
after(() => phones.forEach((phone) => phone.thread && phone.kill()))

/** Somebody's program: the library alone, without pages. Options go to `create`. */
class Program {
  constructor(phone, options = {}) {
    this.phone = phone
    this.thread = phone.start()
    this.cinewire = this.thread.require('cinewire')
    this.client = this.cinewire.create({ url: 'http://127.0.0.1:8000', ...options })
    this.states = []
    this.client.on('state', (state) => this.states.push(state.state))
  }

  show() {
    this.phone.show(() => this.client.show())
    return this
  }

  hide() {
    return this.phone.hide(() => this.client.hide())
  }

  state(wanted) {
    return until(() => this.client.state().state === wanted, `state ${wanted}, not ${this.client.state().state}`)
  }

  /** Ask, and keep what a page would show. */
  ask(query, options = {}) {
    const seen = new Seen(query)
    seen.follow(this.client.chat({ query, ...seen.handlers(), ...options }))
    return seen
  }

  /** Take up what was unfinished before the program was started. */
  takeUp() {
    return this.client.unfinished().map((run) => {
      const seen = new Seen(run.query)
      seen.text = run.text
      seen.follow(this.client.follow(run.id, seen.handlers()))
      return seen
    })
  }

  get token() {
    return this.client._token.token
  }
}

/** What became of one question. */
class Seen {
  constructor(query) {
    this.query = query
    this.text = ''
    this.chunks = 0
    this.restarts = 0
    this.whole = null
    this.error = null
    this._waiting = []
  }

  handlers() {
    return {
      onChunk: (delta, soFar) => {
        this.text += delta
        this.chunks += 1
        assert.equal(soFar, this.text)
        for (const waiting of this._waiting.splice(0)) waiting()
      },
      onRestart: () => {
        this.text = ''
        this.restarts += 1
      },
      onRetract: () => {
        this.text = ''
      }
    }
  }

  follow(promise) {
    this.id = promise.id
    this.ended = promise.then(
      (whole) => (this.whole = whole),
      (error) => (this.error = error)
    )
    this.ended.then(() => this._waiting.splice(0).forEach((waiting) => waiting()))
  }

  get isOver() {
    return this.whole !== null || this.error !== null
  }

  /** The next piece of text, or the end. */
  progress() {
    return this.isOver ? Promise.resolve() : within(new Promise((resolve) => this._waiting.push(resolve)), `a chunk of ${this.query}`)
  }

  async end() {
    await within(this.ended, `the end of ${this.query}`)
    if (this.error) throw this.error
    return this.whole
  }

  /** The answer came whole: what was shown, what was promised, what is stored and what the model said are the same. */
  async check(program) {
    const whole = await this.end()
    const said = answerTo(this.query)
    assert.equal(this.text, said)
    assert.equal(whole.text, said)
    await this._isStored(program, whole)
    return whole
  }

  /** Stop the answer: what was shown of it until then is what is stored, and the beginning of what the model says. */
  async cutShort(program) {
    await program.client.cancel(this.id)
    const whole = await this.end()
    assert.equal(whole.finishReason, 'cancelled')
    assert.equal(whole.text, this.text)
    assert.ok(answerTo(this.query).startsWith(this.text))
    await this._isStored(program, whole)
    return whole
  }

  async _isStored(program, whole) {
    const stored = await storedAnswer(program.token, whole)
    assert.ok(Buffer.from(stored.content).equals(Buffer.from(this.text)))
  }
}

async function storedAnswer(token, whole) {
  const { items } = await ask(token, { type: 'history', conversation_id: whole.conversationId, limit: 200 })
  const found = items.filter((message) => message.request_id === whole.requestId && message.role === 'assistant')
  assert.equal(found.length, 1)
  assert.equal(found[0].id, whole.messageId)
  return found[0]
}

const run = crypto.randomBytes(3).toString('hex')
let questions = 0

/** A question that nobody asked before, answered in so many pieces at this pace. */
const question = (pieces, perSecond, name = '问') => `${name}${run}-${++questions} 共${pieces}段 每秒${perSecond} 长0`

/** What the model of the tests says to it. */
function answerTo(asked) {
  const [, name, pieces] = /^(.*) 共(\d+)段 每秒[\d.]+ 长0$/.exec(asked)
  return Array.from({ length: Number(pieces) }, (_, at) => `${name}的第${at + 1}段🎬；`).join('')
}

/** Equal by what they hold: what a program made has the prototypes of its own thread. */
const same = (actual, expected) => assert.deepEqual(JSON.parse(JSON.stringify(actual)), expected)

async function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

async function until(condition, what) {
  const end = Date.now() + PATIENCE_MS
  while (!condition()) {
    if (Date.now() > end) throw new Error(`waited in vain for ${typeof what === 'function' ? what() : what}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

module.exports = { ENDLESS, Program, Seen, SERVER, answerTo, ask, control, newPhone, question, same, until, within }
