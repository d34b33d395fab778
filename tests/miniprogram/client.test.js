'use strict'
/** The library alone against a real server: coming and going, answers that survive it, and everything about sessions. */

const assert = require('node:assert/strict')
const { describe, test } = require('node:test')
const { ENDLESS, Program, answerTo, ask, control, newPhone, question, same, until, within } = require('./world')

const QUICK = { suspendMs: 10, backoffMs: 20 }

/** One phone that is put away and taken up while answers stream: WeChat cuts in most ways that it has. */
async function comesAndGoes(number, wanted) {
  const phone = newPhone({ cutMs: 15 })
  const program = new Program(phone, QUICK).show()
  const answers = []
  let cycles = 0
  while (cycles < wanted) {
    const seen = program.ask(question(60, 150, `手机${number}第`))
    answers.push(seen)
    while (!seen.isOver && cycles < wanted) {
      await seen.progress()
      if (seen.isOver) break
      phone.cutsSilently = cycles % 2 === 0
      phone.lateFirst = cycles % 3 === 0
      const cut = program.hide()
      // Now and then somebody is back before the socket is cut.
      if (cycles % 10 !== 9) await cut
      program.show()
      cycles += 1
    }
    await seen.end()
  }
  for (const seen of answers) await seen.check(program)
  const calls = await control('calls')
  for (const seen of answers) assert.equal(calls[seen.query], 1)
  same(program.thread.errors, [])
  assert.equal(program.client.state().transport, 'socket')
  phone.kill()
  return { cycles, answers: answers.length }
}

test('the server restarts: it says goodbye, and the answer goes on', async () => {
  const phone = newPhone()
  const program = new Program(phone, QUICK).show()
  const seen = program.ask(question(100, 60))
  await seen.progress()
  await control('restart')
  const whole = await seen.end()
  assert.equal(whole.text, answerTo(seen.query))
  assert.equal(seen.text, whole.text)
  await program.state('online')
  assert.ok(phone.opened > 1)
  await seen.check(program)
  phone.kill()
})

describe('on a server that stays', { concurrency: 4 }, () => {
  test('an answer grows as it streams, and is the stored one in the end', async () => {
    const program = new Program(newPhone(), QUICK).show()
    const seen = program.ask(question(12, 100))
    const whole = await seen.check(program)
    assert.ok(seen.chunks > 1)
    assert.equal(whole.finishReason, 'stop')
    assert.equal(whole.aigc, true)
    same(program.client.unfinished(), [])
    program.phone.kill()
  })

  test('200 times to the background in mid-answer lose, double and mix up nothing', async (t) => {
    const cycles = await Promise.all([0, 1, 2, 3].map((number) => comesAndGoes(number, 50)))
    const all = cycles.reduce((sum, each) => ({ cycles: sum.cycles + each.cycles, answers: sum.answers + each.answers }))
    t.diagnostic(`${all.cycles} cycles in ${all.answers} answers`)
    assert.equal(all.cycles, 200)
  })

  test('a program that is killed in mid-answer shows at its next start what it had, and then the rest', async () => {
    const phone = newPhone()
    let program = new Program(phone, QUICK).show()
    const first = program.ask(question(ENDLESS, 60))
    await until(() => first.chunks >= 3, 'three chunks')
    program.hide()
    phone.kill()
    program = new Program(phone, QUICK)
    const [again] = program.takeUp()
    assert.ok(again.text.length > 0)
    assert.ok(answerTo(again.query).startsWith(again.text))
    program.show()
    await again.progress()
    await again.cutShort(program)
    assert.equal((await control('calls'))[again.query], 1)
    phone.kill()
  })

  test('a program that is killed without a word loses nothing either', async () => {
    const phone = newPhone()
    let program = new Program(phone, QUICK).show()
    const first = program.ask(question(60, 40))
    await first.progress()
    phone.kill()
    program = new Program(phone, QUICK).show()
    const [again] = program.takeUp()
    await again.check(program)
    assert.equal((await control('calls'))[again.query], 1)
    phone.kill()
  })

  test('what was typed offline is asked in order when the network is back, though the program was killed meanwhile', async () => {
    const phone = newPhone()
    phone.goOffline()
    let program = new Program(phone, QUICK).show()
    const typed = [question(3, 200), question(3, 200), question(3, 200)]
    typed.forEach((query) => program.ask(query))
    phone.kill()
    program = new Program(phone, QUICK).show()
    const waiting = program.takeUp()
    same(waiting.map((seen) => seen.query), typed)
    phone.goOnline()
    for (const seen of waiting) await seen.check(program)
    assert.equal(program.client.state().transport, 'socket')
    const { items } = await ask(program.token, { type: 'history' })
    same(items.filter((message) => message.role === 'user').map((message) => message.content), typed)
    phone.kill()
  })

  test('a question whose socket died before it was acknowledged is asked once', async () => {
    const phone = newPhone()
    const program = new Program(phone, QUICK).show()
    await program.state('online')
    const seen = program.ask(question(20, 200))
    phone.goOffline() // in the same moment: nobody knows whether it arrived
    phone.goOnline()
    await seen.check(program)
    assert.equal((await control('calls'))[seen.query], 1)
    phone.kill()
  })

  test('a question that was not sent yet can be taken back, and a running one can be cut short', async () => {
    const phone = newPhone()
    phone.goOffline()
    const program = new Program(phone, QUICK).show()
    const unsent = program.ask(question(3, 100))
    await program.client.cancel(unsent.id)
    assert.equal((await unsent.end()).finishReason, 'cancelled')
    phone.goOnline()
    const running = program.ask(question(ENDLESS, 50))
    await running.progress()
    await running.cutShort(program)
    assert.equal((await control('calls'))[unsent.query], undefined)
    phone.kill()
  })

  test('every request has its own promise, and errors carry their reason', async () => {
    const program = new Program(newPhone(), QUICK).show()
    const titles = await Promise.all([27205, 603, 157336].map((id) => program.client.request('movie_detail', { tmdb_id: id })))
    same(titles.map((data) => data.movie.tmdb_id), [27205, 603, 157336])
    await assert.rejects(program.client.request('movie_detail', { tmdb_id: 2147483000 }), { reason: 'movie_not_found_in_db', code: 404 })
    await assert.rejects(program.client.request('movies_search', { query: 'x'.repeat(70000) }), { reason: 'too_large' })
    await assert.rejects(program.client.chat({ query: 'x'.repeat(9000) }), { reason: 'invalid_field', field: 'query' })
    program.phone.kill()
  })

  test('requests that the network lost are sent again', async () => {
    const phone = newPhone()
    const program = new Program(phone, { ...QUICK, backoffMs: 60000 }).show() // the news of the network come sooner
    await program.state('online')
    const asked = program.client.request('movie_detail', { tmdb_id: 603 })
    phone.goOffline()
    phone.goOnline()
    assert.equal((await within(asked, 'the film')).movie.tmdb_id, 603)
    phone.kill()
  })

  test('more at once than the server takes in a second is all answered', async () => {
    const program = new Program(newPhone(), QUICK).show()
    const asked = Array.from({ length: 60 }, (_, at) => program.client.request('movies_feed', { feed: 'popular', limit: 1, offset: at }))
    const pages = await within(Promise.all(asked), '60 pages')
    assert.equal(pages.length, 60)
    program.phone.kill()
  })

  test('a socket that was replaced by a newer one does not come back by itself', async () => {
    const openid = newPhone().openid
    const first = new Program(newPhone({ openid }), QUICK).show()
    await first.state('online')
    const others = []
    for (let at = 0; at < 5; at += 1) {
      const other = new Program(newPhone({ openid }), QUICK).show()
      await other.state('online')
      others.push(other)
    }
    await first.state('replaced')
    first.thread.elapse()
    first.phone.goOnline() // news of the network bring it back neither
    first.thread.elapse()
    assert.equal(first.phone.opened, 1)
    // Who types is here.
    const seen = first.ask(question(3, 100))
    await seen.check(first)
    for (const program of [first, ...others]) program.phone.kill()
  })

  test('a revoked session logs in again by itself, and the answer goes on', async () => {
    const phone = newPhone()
    const program = new Program(phone, QUICK).show()
    const seen = program.ask(question(ENDLESS, 60))
    await seen.progress()
    const before = program.client.user().sessionId
    await control('revoke', { session_id: before })
    await until(() => program.client.user() && program.client.user().sessionId !== before, 'another session')
    await seen.progress()
    await seen.cutShort(program)
    phone.kill()
  })

  test('where sockets are blocked everything goes over requests, in whatever pieces they come', async () => {
    const phone = newPhone()
    phone.socketsBlocked = true
    phone.pieces = [1, 2, 3, 1, 5]
    const program = new Program(phone, QUICK).show()
    const seen = program.ask(question(20, 100))
    await seen.check(program)
    assert.ok(seen.chunks > 1)
    assert.equal(program.client.state().transport, 'http')
    assert.equal((await program.client.request('movie_detail', { tmdb_id: 603 })).movie.tmdb_id, 603)
    await assert.rejects(program.client.chat({ query: 'x'.repeat(9000) }), { reason: 'invalid_field' })
    phone.kill()
  })

  test('over requests too an answer survives the background, a cut and a kill', async () => {
    const phone = newPhone({ cutMs: 15 })
    phone.socketsBlocked = true
    phone.pieces = [7, 1, 2]
    let program = new Program(phone, QUICK).show()
    const seen = program.ask(question(ENDLESS, 60))
    for (let cycle = 0; cycle < 8; cycle += 1) {
      await seen.progress()
      await program.hide()
      program.show()
    }
    await seen.progress()
    phone.goOffline()
    phone.goOnline()
    await seen.progress()
    const [asked, ...resumed] = phone.streams
    assert.equal(asked, '/api/v1/messages')
    assert.ok(resumed.length >= 9)
    for (const path of resumed) assert.match(path, /^\/api\/v1\/streams\/\w+\?after_seq=[1-9]/)
    phone.kill()
    program = new Program(phone, QUICK).show()
    const [again] = program.takeUp()
    await again.progress()
    await again.cutShort(program)
    assert.equal((await control('calls'))[seen.query], 1)
    phone.kill()
  })

  test('where responses do not come in chunks an answer comes whole', async () => {
    const phone = newPhone()
    phone.socketsBlocked = true
    phone.noChunks = true
    const program = new Program(phone, QUICK).show()
    const seen = program.ask(question(10, 200))
    await seen.check(program)
    phone.kill()
  })

  test('sockets are tried again beside requests, and taken when they work', async () => {
    const phone = newPhone()
    phone.socketsBlocked = true
    const program = new Program(phone, { ...QUICK, socketAgainMs: 30 }).show()
    const seen = program.ask(question(ENDLESS, 60))
    await seen.progress()
    assert.equal(program.client.state().transport, 'http')
    phone.socketsBlocked = false
    await until(() => program.client.state().transport === 'socket', 'a socket')
    await seen.progress()
    await seen.cutShort(program)
    phone.kill()
  })

  test('a session that ends while requests are used logs in again too', async () => {
    const phone = newPhone()
    phone.socketsBlocked = true
    const program = new Program(phone, QUICK).show()
    const seen = program.ask(question(ENDLESS, 60))
    await seen.progress()
    const before = program.client.user().sessionId
    await control('revoke', { session_id: before })
    await until(() => program.client.user() && program.client.user().sessionId !== before, 'another session')
    await seen.progress()
    await seen.cutShort(program)
    assert.equal((await program.client.request('history')).items.length, 2)
    assert.notEqual(program.client.user().sessionId, before)
    phone.kill()
  })

  test('a conversation that gets a title is told', async () => {
    const program = new Program(newPhone(), QUICK).show()
    const told = []
    program.client.on('conversation_updated', (data) => told.push(data))
    const { id } = await program.client.request('conversation_create')
    await program.ask(question(2, 200), { conversationId: id }).end()
    await until(() => told.length > 0, 'a title')
    assert.equal(told[0].conversation_id, id)
    assert.ok(told[0].title)
    program.phone.kill()
  })

  test('who logs out is forgotten, and is not logged in by coming back', async () => {
    const phone = newPhone()
    let program = new Program(phone, QUICK).show()
    await program.ask(question(2, 200)).end()
    const token = program.token
    const unfinished = program.ask(question(200, 50))
    await unfinished.progress()
    await program.client.logout()
    await within(unfinished.ended, 'the end')
    assert.equal(unfinished.error.reason, 'signed_out')
    await assert.rejects(ask(token, { type: 'history' }))
    phone.kill()
    program = new Program(phone, QUICK).show()
    program.thread.elapse()
    assert.equal(program.client.state().state, 'signed_out')
    same(program.client.unfinished(), [])
    await assert.rejects(program.client.request('history'), { reason: 'signed_out' })
    program.client.login()
    await program.state('online')
    assert.equal((await program.client.request('history')).items.length, 3)
    phone.kill()
  })

  test('an account is taken along whole, and deleted', async () => {
    const program = new Program(newPhone(), QUICK).show()
    await program.ask(question(2, 200)).end()
    await program.client.request('watchlist_add', { tmdb_id: 603 })
    const all = await program.client.exportAccount()
    assert.equal(all.messages.length, 2)
    same(all.watchlist.map((film) => film.tmdb_id), [603])
    await program.client.deleteAccount()
    assert.equal(program.client.state().state, 'signed_out')
    program.client.login()
    await program.state('online')
    same((await program.client.request('history')).items, [])
    program.phone.kill()
  })

  test('an incognito question leaves nothing in storage', async () => {
    const phone = newPhone()
    phone.goOffline()
    let program = new Program(phone, QUICK).show()
    program.ask(question(2, 200), { incognito: true })
    assert.equal(program.client.unfinished().length, 1)
    program.hide()
    phone.kill()
    program = new Program(phone, QUICK)
    same(program.client.unfinished(), [])
    phone.kill()
  })
})
