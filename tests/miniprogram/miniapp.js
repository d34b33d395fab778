'use strict'
/**
 * The mini program as it is, on a phone: `App`, `Page`, `getApp`, tabs and pages above them, and what the view is told.
 *
 * There is no view: a test reads a page's `data` and calls its handlers with the events that markup would send.
 */

const fs = require('node:fs')
const path = require('node:path')
const { ROOT } = require('./process')

class MiniApp {
  constructor(phone) {
    this.phone = phone
    this.config = JSON.parse(fs.readFileSync(path.join(ROOT, 'app.json'), 'utf8'))
    this.tabs = this.config.tabBar.list.map((tab) => tab.pagePath)
  }

  /** Start it, as a tap on its icon does; the first page opens. */
  launch() {
    this._definitions = new Map()
    this._open = new Map()
    this._stack = []
    this._loading = null
    const thread = this.phone.start({
      App: (definition) => {
        this.app = definition
      },
      Page: (definition) => this._definitions.set(this._loading, definition),
      getApp: () => this.app,
      getCurrentPages: () => [...this._stack]
    })
    this.thread = thread
    const wx = thread.context.wx
    wx.navigateTo = ({ url }) => thread.deliver(() => this._navigate(url))
    wx.switchTab = ({ url }) => thread.deliver(() => this._switch(url))
    wx.navigateBack = () => thread.deliver(() => this._back())
    thread.require('app')
    thread.deliver(() => {
      this.app.onLaunch({ path: this.config.pages[0] })
      this.app.onShow({})
      this._switch(`/${this.config.pages[0]}`)
    })
    return this
  }

  get page() {
    return this._stack[this._stack.length - 1]
  }

  hide() {
    return this.phone.hide(() => {
      this.page.onHide?.()
      this.app.onHide()
    })
  }

  show() {
    this.phone.show(() => {
      this.app.onShow({})
      this.page.onShow?.()
    })
  }

  /** A tab of the bar, the way back, and an event of the page's markup. */
  tab(name) {
    this.thread.deliver(() => this._switch(`/pages/${name}/${name}`))
    return this.page
  }

  back() {
    this.thread.deliver(() => this._back())
    return this.page
  }

  tap(handler, dataset = {}) {
    this.thread.deliver(() => this.page[handler]({ type: 'tap', currentTarget: { dataset }, target: { dataset } }))
    return this.page
  }

  type(text, handler = 'onInput') {
    this.thread.deliver(() => this.page[handler]({ type: 'input', detail: { value: text } }))
  }

  _named(url, isTab) {
    const [name, query] = url.replace(/^\//, '').split('?')
    if (!this.config.pages.includes(name)) throw new Error(`no such page: ${url}`)
    if (this.tabs.includes(name) !== isTab) throw new Error(`${url} ${isTab ? 'is no tab' : 'is a tab'}`)
    return { name, options: Object.fromEntries(new URLSearchParams(query)) }
  }

  _switch(url) {
    const { name } = this._named(url, true)
    for (const page of this._stack.splice(0)) {
      page.onHide?.()
      if (!this.tabs.includes(page.route)) page.onUnload?.()
    }
    const known = this._open.get(name)
    const page = known || this._make(name)
    this._open.set(name, page)
    this._stack.push(page)
    if (!known) page.onLoad?.({})
    page.onShow?.()
  }

  _navigate(url) {
    const { name, options } = this._named(url, false)
    this.page.onHide?.()
    const page = this._make(name)
    this._stack.push(page)
    page.onLoad?.(options)
    page.onShow?.()
  }

  _back() {
    this._stack.pop().onUnload?.()
    this.page.onShow?.()
  }

  _make(name) {
    if (!this._definitions.has(name)) {
      this._loading = name
      this.thread.require(name)
    }
    const definition = this._definitions.get(name)
    const page = Object.assign({}, definition, { route: name, data: copy(definition.data || {}), changes: [] })
    page.setData = (changes, then) => {
      for (const [key, value] of Object.entries(changes)) put(page.data, key, copy(value))
      page.changes.push(changes)
      if (then) then()
    }
    return page
  }
}

/** What the view gets is a copy; things that are no plain values, such as a SocketTask, are kept as they are. */
function copy(value) {
  if (value === undefined) throw new Error('setData of undefined, which WeChat refuses')
  if (Array.isArray(value)) return value.map(copy)
  if (value === null || typeof value !== 'object' || Object.values(value).some((one) => typeof one === 'function')) return value
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined).map(([key, one]) => [key, copy(one)]))
}

/** `messages[3].text` and the like. */
function put(data, key, value) {
  const steps = key.match(/[^.[\]]+/g)
  const last = steps.pop()
  let at = data
  for (const step of steps) at = at[step]
  if (at === undefined || at === null) throw new Error(`setData of ${key}, which is not there`)
  at[last] = value
}

module.exports = { MiniApp }
