'use strict'
/**
 * The mini program's library on a phone made of Node, for who plays docs/conformance.yaml to it.
 *
 * A line of JSON in is one question, a line out its answer, with the same `n`: `ask`, `shown`, `stopped`, `waits_ms`.
 * It ends when its input does, so that nobody leaves it behind. Time passes `SPEED` times as fast as it says.
 */

const readline = require('node:readline')
const vm = require('node:vm')
const { Phone } = require('../miniprogram/phone')

const SPEED = 60

/** How long the server is waited for, in real time: sped up, the library's own ten seconds are too short on a busy machine. */
const PATIENCE_MS = 1000
const STOPPED = ['stopped', 'replaced', 'refused', 'signed_out']

/** Time as the thread has it; gives what says after which wait whatever is done now is done. */
function hurry(thread) {
  let waited = 0
  const began = Date.now()
  const setTimer = thread.context.setTimeout
  vm.runInContext('Date', thread.context).now = () => began + (Date.now() - began) * SPEED
  thread.context.setTimeout = (then, ms) =>
    setTimer(() => {
      waited = ms
      try {
        then()
      } finally {
        waited = 0
      }
    }, ms / SPEED)
  return () => waited
}

/** The library alone, as a program without pages has it, and what its user sees. */
class Program {
  constructor(server) {
    const patienceMs = PATIENCE_MS * SPEED
    this.waits = []
    this.answers = new Map()
    this.phone = new Phone({ server, openid: 'o', login: async () => 'code' })
    const thread = this.phone.start()
    const waited = hurry(thread)
    const { wx } = thread.context
    const connect = wx.connectSocket
    wx.connectSocket = (options) => {
      this.waits.push(Math.round(waited()))
      return connect(options)
    }
    const times = { connectMs: patienceMs, loginMs: patienceMs, pongMs: patienceMs }
    this.client = thread.require('cinewire').create({ url: server, ...times })
    this.phone.show(() => this.client.show())
  }

  /** Each question in a conversation of its own: in one conversation the library asks one after the other. */
  ask({ question }) {
    const seen = { text: '', end: null }
    const drop = () => (seen.text = '')
    const handlers = { onChunk: (delta) => (seen.text += delta), onRestart: drop, onRetract: drop }
    this.answers.set(question, seen)
    this.client.chat({ query: question, conversationId: question, ...handlers }).then(
      (whole) => Object.assign(seen, { text: whole.text, end: 'complete' }),
      () => (seen.end = 'error')
    )
  }

  shown({ question }) {
    return this.answers.get(question)
  }

  stopped() {
    return STOPPED.includes(this.client.state().state)
  }

  waits_ms() {
    return this.waits.slice(1)
  }
}

const program = new Program(process.argv[2])
const lines = readline.createInterface({ input: process.stdin })
lines.on('line', (line) => {
  const { n, what, ...given } = JSON.parse(line)
  const value = program[what](given) ?? null
  const errors = program.phone.thread.errors.map((error) => error.stack)
  process.stdout.write(`${JSON.stringify({ n, value, errors })}\n`)
})
lines.on('close', () => process.exit(0))
