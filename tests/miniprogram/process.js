'use strict'
/**
 * The JavaScript thread of a mini program: its timers, its modules, and what WeChat does to it.
 *
 * In the background it is suspended: what comes meanwhile waits, and runs when it is back. When it is killed, nothing of
 * it ever runs again.
 */

const fs = require('node:fs')
const path = require('node:path')
const vm = require('node:vm')

const ROOT = path.resolve(__dirname, '../../examples/miniprogram')

class Thread {
  constructor(globals) {
    this.alive = true
    this.suspended = false
    this.errors = []
    this.log = [] // not on our own output, where Node's test runner speaks
    const record = (...words) => void this.log.push(words)
    this._late = []
    this._timers = new Map()
    this._next = 1
    this._modules = new Map()
    const setTimer = (then, ms) => this._setTimer(then, ms)
    const clearTimer = (id) => this._clearTimer(id)
    this.context = vm.createContext({
      console: { log: record, warn: record, error: record },
      setTimeout: setTimer,
      clearTimeout: clearTimer,
      ...globals
    })
  }

  /** Run this in the thread: now, when it is no longer suspended, or never. */
  deliver(work) {
    if (!this.alive) return
    if (this.suspended) this._late.push(work)
    else this._run(work)
  }

  _run(work) {
    try {
      work()
    } catch (error) {
      this.errors.push(error) // a test looks at them: an error in a page is a failure
    }
  }

  suspend() {
    this.suspended = true
  }

  resume() {
    this.suspended = false
    for (const work of this._late.splice(0)) this.deliver(work)
  }

  kill() {
    this.alive = false
    for (const timer of this._timers.values()) clearTimeout(timer.handle)
    this._timers.clear()
    this._late = []
  }

  _setTimer(then, ms) {
    const id = this._next++
    const fire = () => {
      this._timers.delete(id)
      this.deliver(then)
    }
    this._timers.set(id, { fire, handle: setTimeout(fire, ms) })
    return id
  }

  _clearTimer(id) {
    const timer = this._timers.get(id)
    if (timer) clearTimeout(timer.handle)
    this._timers.delete(id)
  }

  /** Let all the time pass that any timer waits for. */
  elapse() {
    for (const [id, timer] of [...this._timers]) {
      if (!this._timers.has(id)) continue
      clearTimeout(timer.handle)
      timer.fire()
    }
  }

  /** A module of the mini program, by its path in it, as its `require` finds it. */
  require(name) {
    const file = path.resolve(ROOT, name.endsWith('.js') ? name : `${name}.js`)
    if (!file.startsWith(ROOT + path.sep)) throw new Error(`outside of the mini program: ${name}`)
    const known = this._modules.get(file)
    if (known) return known.exports
    const module = { exports: {} }
    this._modules.set(file, module)
    const source = `(function (require, module, exports) {${fs.readFileSync(file, 'utf8')}\n})`
    const run = vm.runInContext(source, this.context, { filename: file })
    // A mini program's paths begin with a dot, or at its root.
    const from = path.dirname(file)
    run((wanted) => this.require(wanted.startsWith('/') ? wanted.slice(1) : path.relative(ROOT, path.resolve(from, wanted))), module, module.exports)
    return module.exports
  }
}

module.exports = { Thread, ROOT }
