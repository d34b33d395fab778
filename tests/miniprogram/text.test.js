'use strict'
/** What needs no server: the program as WeChat's tools read it, and text that comes in pieces. */

const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const test = require('node:test')
const acorn = require('acorn')
const { ROOT } = require('./process')

const { Utf8, Events } = require(path.join(ROOT, 'cinewire.js'))
const LEGACY = path.join('pages', 'legacy', 'legacy.js') // as its authors wrote it: WeChat's tools translate it

const files = (end) => fs.readdirSync(ROOT, { recursive: true }).filter((file) => file.endsWith(end))
const read = (file) => fs.readFileSync(path.join(ROOT, file), 'utf8')
const config = JSON.parse(read('app.json'))

test('all scripts are ES5, which every phone runs as it is', () => {
  const scripts = files('.js').filter((file) => file !== LEGACY)
  assert.ok(scripts.includes('cinewire.js'))
  for (const file of scripts) {
    assert.doesNotThrow(() => acorn.parse(read(file), { ecmaVersion: 5, sourceType: 'script' }), `${file} is not ES5`)
  }
})

test('the library needs no other file and only what every mini program has', () => {
  const source = read('cinewire.js')
  assert.doesNotMatch(source, /require\(/)
  assert.doesNotMatch(source, /\b(window|document|process|Buffer|TextDecoder|localStorage|fetch|XMLHttpRequest)\b[.(]/)
})

test('every page that is named is there, and every handler that its markup names is in its script', () => {
  for (const page of config.pages) {
    for (const end of ['.js', '.json', '.wxml', '.wxss']) assert.ok(fs.existsSync(path.join(ROOT, page + end)), page + end)
    JSON.parse(read(`${page}.json`))
    const script = read(`${page}.js`)
    for (const [, handler] of read(`${page}.wxml`).matchAll(/\b(?:bind|catch):?\w+="(\w+)"/g)) {
      assert.match(script, new RegExp(`\\b${handler}(: function)? ?\\(`), `${page}: ${handler}`)
    }
  }
  for (const tab of config.tabBar.list) assert.ok(config.pages.includes(tab.pagePath))
})

test('markup is closed, and what it shows is named', () => {
  for (const file of files('.wxml')) {
    const open = []
    for (const [, end, name, self] of read(file).replace(/<!--.*?-->/gs, '').matchAll(/<(\/?)([\w-]+)(?:"[^"]*"|[^">])*?(\/?)>/g)) {
      if (end) assert.equal(open.pop(), name, file)
      else if (!self) open.push(name)
    }
    assert.deepEqual(open, [], file)
    for (const [, expression] of read(file).matchAll(/\{\{(.*?)\}\}/gs)) {
      assert.doesNotThrow(() => acorn.parseExpressionAt(`(${expression})`, 0, { ecmaVersion: 5 }), `${file}: ${expression}`)
    }
  }
})

test('answers are labelled as made by AI wherever they are shown', () => {
  for (const page of ['chat', 'history']) assert.match(read(`pages/${page}/${page}.wxml`), /内容由 AI 生成/)
})

test('a text is the same however its bytes are cut', () => {
  const text = '影a\u00e9电影🎬👩‍🚀\u0800\uffff！\r\n'
  const bytes = Buffer.from(text)
  for (let first = 0; first <= bytes.length; first += 1) {
    for (let second = first; second <= bytes.length; second += 1) {
      const utf8 = new Utf8()
      const pieces = [bytes.subarray(0, first), bytes.subarray(first, second), bytes.subarray(second)]
      assert.equal(pieces.map((piece) => utf8.push(piece)).join(''), text)
    }
  }
  const long = '电影🎬'.repeat(5000)
  assert.equal(new Utf8().push(Buffer.from(long)), long)
})

test('bytes that are no text become marks, and the text behind them is read', () => {
  for (const bytes of [[0xff], [0xc0, 0xaf], [0xe5, 0xbd], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xe0, 0x80, 0x80]]) {
    const read = new Utf8().push(Buffer.from([...bytes, 0x41]))
    assert.match(read, /^\ufffd+A$/, bytes.join())
  }
})

test('events are the same however their text is cut and their lines end', () => {
  for (const end of ['\n', '\r\n', '\r']) {
    const text = [': ping', '', 'id: 1', 'data: {"a":1}', '', 'data:x', 'data: y', '', 'event: z', ''].join(end) + end
    for (let first = 0; first <= text.length; first += 1) {
      for (let second = first; second <= text.length; second += 1) {
        const seen = []
        const events = new Events((data) => seen.push(data))
        for (const piece of [text.slice(0, first), text.slice(first, second), text.slice(second)]) events.push(piece)
        assert.deepEqual(seen, ['{"a":1}', 'x\ny'])
      }
    }
  }
})

test('the files of locked packages name no registry', () => {
  assert.doesNotMatch(fs.readFileSync(path.join(__dirname, 'package-lock.json'), 'utf8'), /https?:\/\//)
})
