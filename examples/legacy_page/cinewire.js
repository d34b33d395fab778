/* Talks to the server for a page: asks, reads the answer while it is made, and gets the rest of it when the connection
 * breaks. Nothing of the page is known here. ES5, for old browsers: fetch with streams where there is one, else
 * XMLHttpRequest, whose text so far can be read while it grows. */
(function (global) {
  'use strict';

  var FIRST_WAIT_MS = 500;
  var LONGEST_WAIT_MS = 15000;

  /* Frames that are resumed have the names of the newer API. */
  var OLD_NAMES = { generate_start: 'start', chunk: 'token', complete: 'done', status: 'progress' };

  function randomId() {
    var bytes = [], random = global.crypto || global.msCrypto, text = '', i;
    if (random && random.getRandomValues) {
      bytes = random.getRandomValues(new Uint8Array(16));
    }
    for (i = 0; i < 16; i += 1) {
      text += ('0' + (bytes.length ? bytes[i] : Math.floor(Math.random() * 256)).toString(16)).slice(-2);
    }
    return text;
  }

  /* Gives the way to feed it text, in pieces cut anywhere; `onEvent` gets the JSON of each whole event. */
  function eventReader(onEvent) {
    var rest = '';
    return function (text) {
      var lines, i;
      rest += text;
      lines = rest.split('\n');
      rest = lines.pop();
      for (i = 0; i < lines.length; i += 1) {
        /* Every event of this server is one line of data. */
        if (lines[i].slice(0, 6) === 'data: ') {
          onEvent(JSON.parse(lines[i].slice(6)));
        }
      }
    };
  }

  /* Sends a request. `on.text` gets pieces of the body as they come, `on.end` the status and the whole body when it
   * is over; status 0 means that the connection broke. Gives the way to stop it, after which nothing is said. */
  function open(method, url, body, on) {
    var streams = global.fetch && global.Response && 'body' in global.Response.prototype;
    return streams ? openFetch(method, url, body, on) : openXhr(method, url, body, on);
  }

  function openFetch(method, url, body, on) {
    var stopped = false, whole = '', status = 0;
    var aborter = global.AbortController ? new global.AbortController() : null;
    var options = { method: method };
    if (body) {
      options.body = JSON.stringify(body);
      options.headers = { 'Content-Type': 'application/json' };
    }
    if (aborter) {
      options.signal = aborter.signal;
    }
    function pump(reader) {
      return reader.read().then(function (piece) {
        var text = '', i;
        if (stopped || piece.done) {
          return;
        }
        /* All that this server sends as events is ASCII: a piece may end anywhere. */
        for (i = 0; i < piece.value.length; i += 1) {
          text += String.fromCharCode(piece.value[i]);
        }
        whole += text;
        on.text(text);
        return pump(reader);
      });
    }
    global.fetch(url, options).then(function (response) {
      status = response.status;
      if (!on.text || status !== 200) {
        return response.text().then(function (text) { whole = text; });
      }
      return pump(response.body.getReader());
    }).then(function () {
      return status;
    }, function () {
      return 0;
    }).then(function (ended) {
      if (!stopped) {
        on.end(ended, whole);
      }
    });
    return function () {
      stopped = true;
      if (aborter) {
        aborter.abort();
      }
    };
  }

  function openXhr(method, url, body, on) {
    var request = new global.XMLHttpRequest(), had = 0, stopped = false;
    function look() {
      var text = request.responseText.slice(had);
      had += text.length;
      if (text && on.text && !stopped) {
        on.text(text);
      }
    }
    function end(status) {
      if (!stopped) {
        stopped = true;
        on.end(status, request.responseText);
      }
    }
    request.open(method, url, true);
    if (body) {
      request.setRequestHeader('Content-Type', 'application/json');
    }
    request.onprogress = look;
    request.onload = function () {
      look();
      end(request.status);
    };
    request.onerror = function () { end(0); };
    request.onabort = function () { end(0); };
    request.send(body ? JSON.stringify(body) : null);
    return function () {
      stopped = true;
      request.abort();
    };
  }

  /* What a body that is no answer says: `{reason, message, retryable, retry_after_ms}`. */
  function errorOf(status, text) {
    var said = null;
    try {
      said = JSON.parse(text).error;
    } catch (ignored) {
      /* A proxy's page, or nothing. */
    }
    return said || { reason: 'http_' + status, message: '服务器没有回答（' + status + '）', retryable: status >= 502 };
  }

  function CineWire(server, userId) {
    this.server = server.replace(/\/+$/, '');
    this.userId = userId;
  }

  /* The server sends a comment every 15 s when it has nothing to say. */
  CineWire.SILENCE_MS = 45000;
  /* With the waits above, about five minutes: then the user is asked to look after the network. */
  CineWire.ATTEMPTS = 24;

  /* GET without a body, POST with one; `done(error, data)`. */
  CineWire.prototype.call = function (path, body, done) {
    open(body ? 'POST' : 'GET', this.server + path, body, {
      end: function (status, text) {
        if (status === 200) {
          done(null, JSON.parse(text));
        } else {
          done(errorOf(status, text), null);
        }
      }
    });
  };

  CineWire.prototype.films = function (ids, done) {
    this.call('/api/v1/mp/movies/bulk', { ids: ids }, done);
  };

  CineWire.prototype.conversations = function (done) {
    this.call('/api/v1/conversations?user_id=' + encodeURIComponent(this.userId), null, done);
  };

  CineWire.prototype.conversation = function (id, done) {
    this.call('/api/v1/conversations/' + id + '?user_id=' + encodeURIComponent(this.userId), null, done);
  };

  /* Asks `question`: `{id, message, session_id}`, and `request_id` when its answer is known to have begun. The same id is
   * the same answer, however often it is sent. `on` may have: start(content), text(all of it so far), films(content),
   * again(reason), retracted(reason), waiting(ms), done(frame), failed(error); the last is one of these two. */
  CineWire.prototype.ask = function (question, on) {
    var self = this, requestId = question.request_id || null;
    var seq = 0, text = '', failures = 0, over = false, stop = null, watch = null;

    function say(name, value) {
      if (on[name]) {
        on[name](value);
      }
    }

    function finish(name, value) {
      over = true;
      clearTimeout(watch);
      stop();
      say(name, value);
    }

    function show(all) {
      text = all;
      say('text', text);
    }

    function take(frame) {
      var name = frame.status || OLD_NAMES[frame.type] || frame.type;
      if (over || (frame.seq && frame.seq <= seq)) {
        return;
      }
      seq = frame.seq || seq;
      failures = 0;
      if (name === 'start') {
        requestId = frame.content.request_id;
        say('start', frame.content);
      } else if (name === 'resume_response' && !frame.data.recovered) {
        /* Its frames are gone: what was stored is the answer. */
        if (frame.data.message) {
          show(frame.data.message.content);
          finish('done', { answer: text, message_id: frame.data.message.id });
        } else {
          finish('failed', { reason: 'run_lost', message: '回答没有保存下来，请重新提问', retryable: true });
        }
      } else if (name === 'token') {
        show(text + frame.content);
      } else if (name === 'recommendations') {
        say('films', frame.content);
      } else if (name === 'restart') {
        show('');
        say('again', frame.content.reason);
      } else if (name === 'retract') {
        show('');
        say('retracted', frame.content.reason);
      } else if (name === 'done') {
        show(frame.answer);
        finish('done', frame);
      } else if (name === 'error') {
        finish('failed', frame);
      }
    }

    function later(ms) {
      failures += 1;
      if (failures > CineWire.ATTEMPTS) {
        finish('failed', { reason: 'unreachable', message: '连不上服务器，请检查网络后重试', retryable: true });
        return;
      }
      say('waiting', ms);
      setTimeout(go, ms);
    }

    function backOff() {
      return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * Math.pow(2, failures)) * (0.5 + Math.random() / 2);
    }

    function ended(status, body) {
      var error;
      clearTimeout(watch);
      if (over) {
        return;
      }
      if (status === 0 || status === 200) {
        /* It broke off before the last frame. */
        later(backOff());
        return;
      }
      error = errorOf(status, body);
      if (error.retryable && status >= 500) {
        later(error.retry_after_ms || backOff());
      } else {
        finish('failed', error);
      }
    }

    function go() {
      var read = eventReader(take);
      var reader = {
        text: function (piece) {
          listen();
          read(piece);
        },
        end: ended
      };
      function listen() {
        clearTimeout(watch);
        watch = setTimeout(function () {
          stop();
          ended(0, '');
        }, CineWire.SILENCE_MS);
      }
      listen();
      if (requestId) {
        stop = open('GET', self.server + '/api/v1/streams/' + encodeURIComponent(requestId) + '?after_seq=' + seq +
          '&user_id=' + encodeURIComponent(self.userId), null, reader);
      } else {
        stop = open('POST', self.server + '/api/v1/chat/stream', {
          id: question.id, message: question.message, session_id: question.session_id, user_id: self.userId
        }, reader);
      }
    }

    go();
  };

  CineWire.randomId = randomId;
  global.CineWire = CineWire;
}(window));
