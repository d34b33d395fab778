'use strict'
/**
 * What a server does rarely: its frames are written here, one by one, and the library is given them over a real socket.
 *
 * The frames are those of the contract; that the server keeps to it is tested elsewhere.
 */

const assert = require('node:assert/strict')
const http = require('node:http')
const { after, describe, test } = require('node:test')
const { WebSocketServer } = require('ws')
const { Program, newPhone, same, until } = require('./world')

const QUICK = { suspendMs: 15, backoffMs: 5, pongMs: 300 }
const RUN = { request_id: 'r1', conversation_id: 'c1' }

/** A server that does what `script` says: handlers by message type, given the message and what answers it. */
async function scripted(script) {
  const seen = []
  const server = http.createServer()
  const sockets = new WebSocketServer({ server })
  sockets.on('connection', (socket) => {
    const say = (...frames) => frames.forEach((frame) => socket.send(JSON.stringify(frame)))
    if (script.greet !== false) say({ type: 'connected', code: 0, server: { ping_interval_s: 25, max_message_bytes: script.max || 65536 } })
    if (script.greeted) script.greeted(socket)
    socket.on('message', (data) => {
      const message = JSON.parse(data.toString('utf8'))
      seen.push(message)
      const reply = (fields) => say({ code: 0, id: message.id, data: null, ...fields })
      const handler = script[message.type] || standard[message.type]
      if (handler) handler({ message, say, reply, socket, times: seen.filter((one) => one.type === message.type).length })
    })
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  after(() => {
    for (const socket of sockets.clients) socket.terminate()
    server.close()
  })
  const phone = newPhone({ server: `http://127.0.0.1:${server.address().port}`, login: async () => `code${Math.random()}` })
  return { program: new Program(phone, QUICK), phone, seen, of: (type) => seen.filter((message) => message.type === type) }
}

const session = (token) => ({ token, openid: 'o1', session_id: 's1', expires_in: 1000 })
const standard = {
  login: ({ reply }) => reply({ type: 'login_response', data: session('t1') }),
  auth: ({ reply }) => reply({ type: 'auth_response', data: session('t2') }),
  ping: ({ say }) => say({ type: 'pong', code: 0 })
}
const accept = ({ reply }) => reply({ type: 'chat_processing', data: RUN })
const frame = (seq, type, more) => ({ type, request_id: 'r1', seq, ...more })
const chunk = (seq, content) => frame(seq, 'chunk', { content })
const complete = (seq, answer) => frame(seq, 'complete', { content: null, answer, message_id: 'm1', finish_reason: 'stop', aigc: true })
const refuse = (reason, more) => ({ type: 'error', code: 400, reason, message: reason, retryable: false, retry_after_ms: null, ...more })

async function ask(world, options) {
  world.program.show()
  const seen = world.program.ask('问', options)
  seen.after = await seen.end().catch((error) => error)
  return seen
}

describe('frames', { concurrency: 8 }, () => {
  test('an answer that begins anew drops its text, and the seq may jump', async () => {
    const world = await scripted({
      chat: (now) => {
        accept(now)
        now.say(chunk(1, '旧'), chunk(2, '的'), frame(900, 'restart', { content: { reason: 'node_lost' } }))
        now.say(chunk(901, '新'), chunk(902, '的'), complete(903, '新的'))
      }
    })
    const seen = await ask(world)
    assert.equal(seen.restarts, 1)
    assert.equal(seen.text, '新的')
    assert.equal(seen.after.text, '新的')
    same(world.of('resume'), [])
  })

  test('an answer that is retracted shows no text, and fails with the reason', async () => {
    const reasons = []
    const world = await scripted({
      chat: (now) => {
        accept(now)
        now.say(chunk(1, '坏话'), frame(2, 'retract', { content: { reason: 'content_refused' } }))
      },
      history: (now) => {
        now.say({ ...refuse('content_refused'), request_id: 'r1', seq: 3 })
        now.reply({ type: 'history_response', data: { items: [] } })
      }
    })
    world.program.show()
    const texts = []
    const promise = world.program.client.chat({
      query: '问',
      onChunk: (delta, text) => texts.push(text),
      onRetract: (reason) => reasons.push(reason)
    })
    await until(() => reasons.length === 1, 'the retraction')
    assert.equal(world.program.client.unfinished()[0].text, '')
    world.program.client.request('history')
    await assert.rejects(promise, { reason: 'content_refused' })
    same(texts, ['坏话'])
    same(reasons, ['content_refused'])
  })

  test('frames that came before are dropped, and before a gap the missing ones are fetched once', async () => {
    const world = await scripted({
      chat: (now) => {
        accept(now)
        now.say(chunk(1, '一'), chunk(1, '一'), chunk(2, '二'), chunk(1, '一'), chunk(4, '四'), chunk(5, '五'))
      },
      resume: ({ message, reply, say }) => {
        reply({ type: 'resume_response', data: { recovered: true, last_seq: 5, running: true } })
        for (let seq = message.after_seq + 1; seq <= 5; seq += 1) say(chunk(seq, '一二三四五'[seq - 1]))
        say(complete(6, '一二三四五'))
      }
    })
    const seen = await ask(world)
    assert.equal(seen.text, '一二三四五')
    same(world.of('resume').map((message) => [message.request_id, message.after_seq]), [['r1', 2]])
  })

  test('frames and types that nobody knows are ignored', async () => {
    const world = await scripted({
      chat: (now) => {
        now.say({ type: 'news_of_tomorrow', code: 0 })
        accept(now)
        now.say(frame(1, 'hologram', { content: {} }), chunk(2, '好'), complete(3, '好'))
      }
    })
    assert.equal((await ask(world)).text, '好')
  })

  test('after the window the stored message is the answer', async () => {
    const stored = { id: 'm9', content: '存下的全文', finish_reason: 'stop', role: 'assistant' }
    const world = await scripted({
      chat: (now) => {
        accept(now)
        now.say(chunk(1, '存下'))
        now.socket.terminate()
      },
      resume: ({ reply }) => reply({ type: 'resume_response', data: { recovered: false, last_seq: 0, running: false, message: stored } })
    })
    const seen = await ask(world)
    assert.equal(seen.after.text, '存下的全文')
    assert.equal(seen.after.messageId, 'm9')
  })

  test('an answer that is gone says so', async () => {
    const world = await scripted({
      chat: (now) => {
        accept(now)
        now.socket.terminate()
      },
      resume: ({ reply }) => reply(refuse('run_not_found', { code: 404 }))
    })
    assert.equal((await ask(world)).after.reason, 'run_not_found')
  })

  test('a question that is refused for now is asked again, with its id', async () => {
    const world = await scripted({
      chat: (now) => {
        if (now.times === 1) return now.reply(refuse('conversation_busy', { code: 409, retryable: true }))
        if (now.times === 2) return now.reply(refuse('rate_limited', { code: 429, retryable: true, retry_after_ms: 20 }))
        accept(now)
        now.say(chunk(1, '好'), complete(2, '好'))
      }
    })
    assert.equal((await ask(world)).text, '好')
    assert.equal(new Set(world.of('chat').map((message) => message.id)).size, 1)
    assert.equal(world.of('chat').length, 3)
  })

  test('who wants to be refused in a busy conversation is', async () => {
    const world = await scripted({ chat: (now) => now.reply(refuse('conversation_busy', { code: 409, retryable: true })) })
    assert.equal((await ask(world, { onBusy: 'reject' })).after.reason, 'conversation_busy')
  })

  test('an error that names nothing has all that is unanswered sent again', async () => {
    const world = await scripted({
      chat: (now) => {
        if (now.times === 1) return now.say(refuse('rate_limited', { code: 429, retryable: true, retry_after_ms: 10 }))
        accept(now)
        now.say(chunk(1, '好'), complete(2, '好'))
      }
    })
    assert.equal((await ask(world)).text, '好')
    assert.equal(world.of('chat').length, 2)
  })

  test('questions of one conversation go out one after the other, of others at once', async () => {
    const world = await scripted({
      chat: (now) => now.reply({ type: 'chat_processing', data: { request_id: `r-${now.message.query}`, conversation_id: 'c' } }),
      history: ({ reply }) => reply({ type: 'history_response', data: { items: [] } })
    })
    world.program.show()
    for (const [query, conversationId] of [['甲', undefined], ['乙', undefined], ['丙', 'c3'], ['丁', 'c3']]) {
      world.program.ask(query, { conversationId })
    }
    world.program.ask('戊', { onBusy: 'enqueue' })
    await world.program.client.request('history') // behind all that was sent before it
    same(world.of('chat').map((message) => message.query), ['甲', '丙', '戊'])
  })

  test('a server that falls silent is left, and the next one found', async () => {
    const world = await scripted({ ping: () => {} })
    world.program.show()
    await world.program.state('online')
    world.program.thread.elapse() // the next ping goes out
    await until(() => world.of('ping').length === 1, 'a ping')
    world.program.thread.elapse() // its answer is overdue
    await until(() => world.phone.opened === 2, 'another socket')
    await world.program.state('online')
    same(world.of('auth').length, 1)
  })

  for (const [code, state] of [[4002, 'stopped'], [4008, 'replaced']]) {
    test(`after ${code} nothing is tried by itself`, async () => {
      const world = await scripted({ chat: ({ socket }) => socket.close(code) })
      world.program.show()
      world.program.ask('问')
      await world.program.state(state)
      world.program.thread.elapse()
      world.program.thread.elapse()
      assert.equal(world.phone.opened, 1)
    })
  }

  for (const [code, state] of [[4002, 'stopped'], [4008, 'replaced']]) {
    test(`${code} is heeded also when it comes while something is being sent, which fails`, async () => {
      const world = await scripted({ greeted: (socket) => socket.close(code) })
      world.program.show()
      await world.program.state(state)
      assert.equal(world.phone.opened, 1)
    })
  }

  test('after 1012 it comes back when the goodbye said, and after 4003 with a fresh login', async () => {
    const world = await scripted({
      chat: (now) => {
        if (now.times === 1) {
          now.say({ type: 'goodbye', code: 1012, retry_after_ms: 30 })
          return now.socket.close(1012)
        }
        if (now.times === 2) return now.socket.close(4003)
        accept(now)
        now.say(chunk(1, '好'), complete(2, '好'))
      }
    })
    assert.equal((await ask(world)).text, '好')
    same(world.seen.filter((message) => /login|auth/.test(message.type)).map((message) => message.type), ['login', 'auth', 'login'])
  })

  test('a message that the server finds too big is not sent again, and the others are', async () => {
    const world = await scripted({
      movies_search: (now) => (now.message.query.length > 100 ? now.socket.close(1009) : now.times > 1 && now.reply({ type: 'movies_search_response', data: { items: [] } }))
    })
    world.program.show()
    const small = world.program.client.request('movies_search', { query: 'x' })
    await assert.rejects(world.program.client.request('movies_search', { query: 'x'.repeat(200) }), { reason: 'too_large' })
    same(await small, { items: [] })
  })

  test('a token that is good no more is replaced by a login, and a refused login is not tried again', async () => {
    const world = await scripted({ auth: ({ reply }) => reply(refuse('session_revoked', { type: 'auth_response', code: 401 })) })
    world.program.show()
    await world.program.state('online')
    world.phone.goOffline()
    world.phone.goOnline()
    await until(() => world.of('login').length === 2, 'another login')
    const other = await scripted({ login: ({ reply }) => reply(refuse('login_refused', { type: 'login_response', code: 403 })) })
    other.program.show()
    await other.program.state('refused')
    other.program.thread.elapse()
    assert.equal(other.of('login').length, 1)
  })

  test('a code that WeChat refuses is replaced by a fresh one', async () => {
    const world = await scripted({
      login: (now) => (now.times === 1 ? now.reply(refuse('login_code_invalid', { type: 'login_response', code: 401 })) : standard.login(now))
    })
    world.program.show()
    await world.program.state('online')
    const codes = world.of('login').map((message) => message.code)
    assert.equal(new Set(codes).size, 2)
    assert.equal(world.phone.opened, 1)
  })

  test('logging out is not said twice', async () => {
    const world = await scripted({ logout: ({ socket }) => socket.terminate() })
    world.program.show()
    await assert.rejects(world.program.client.logout(), { reason: 'connection_lost' })
    await world.program.state('online')
    assert.equal(world.of('logout').length, 1)
  })
})
