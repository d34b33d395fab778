/* The page: what is typed goes to the server, what comes back is shown. How it gets there is in cinewire.js. */
(function () {
  'use strict';

  var server = document.querySelector('meta[name="cinewire-server"]').getAttribute('content');
  var talk = document.getElementById('talk');
  var query = document.getElementById('query');
  var send = document.getElementById('send');
  var TITLE_MS = 2000;
  /* For browsers that keep nothing: then it lasts as long as the page. */
  var kept = {};

  function load(name) {
    try {
      return JSON.parse(localStorage.getItem('cinewire.' + name)) || kept[name];
    } catch (ignored) {
      return kept[name];
    }
  }

  function save(name, value) {
    kept[name] = value;
    try {
      localStorage.setItem('cinewire.' + name, JSON.stringify(value));
    } catch (ignored) {
      /* No room, or not allowed. */
    }
  }

  function element(tag, className, text, parent) {
    var made = document.createElement(tag);
    made.className = className;
    made.appendChild(document.createTextNode(text));
    parent.appendChild(made);
    return made;
  }

  function clear(node) {
    while (node.firstChild) {
      node.removeChild(node.firstChild);
    }
  }

  /* A guest is whoever knows its name, so it is one that nobody guesses. */
  if (!load('user')) {
    save('user', CineWire.randomId());
  }
  var wire = new CineWire(server, load('user'));
  /* A guest's conversations are told apart by names of its own; of each the server says the id. */
  var session = load('session') || CineWire.randomId();
  var sessions = load('sessions') || {};

  function showFilms(ids, parent) {
    wire.films(ids, function (error, found) {
      var i, card, film, poster;
      if (error) {
        element('div', 'note wrong', error.message, parent);
        return;
      }
      for (i = 0; i < found.items.length; i += 1) {
        film = found.items[i];
        card = element('div', 'film', '', parent);
        card.setAttribute('data-tmdb-id', film.tmdb_id);
        if (film.poster_url) {
          poster = card.appendChild(document.createElement('img'));
          poster.alt = film.title;
          poster.src = film.poster_url;
        }
        element('div', '', film.title + (film.year ? '（' + film.year + '）' : ''), card);
        element('div', 'note', film.directors.join('、'), card);
      }
    });
  }

  function showAnswer(question) {
    var box, answer, note, films;
    element('div', 'question', question.message, talk);
    box = element('div', '', '', talk);
    answer = element('div', 'answer', '', box);
    note = element('div', 'note', '正在回答……', box);
    films = element('div', 'films', '', box);
    send.disabled = true;

    function say(text, wrong) {
      note.className = wrong ? 'note wrong' : 'note';
      note.firstChild.nodeValue = text;
    }

    function over() {
      save('pending', null);
      send.disabled = false;
      showConversations();
      /* A title is made when the first answer is over. */
      setTimeout(showConversations, TITLE_MS);
    }

    save('pending', question);
    wire.ask(question, {
      start: function (content) {
        question.request_id = content.request_id;
        save('pending', question);
        if (content.conversation_id) {
          sessions[content.conversation_id] = question.session_id;
          save('sessions', sessions);
        }
      },
      text: function (all) {
        answer.firstChild.nodeValue = all;
        say('正在回答……');
      },
      films: function (content) {
        clear(films);
        showFilms(content.tmdb_ids, films);
      },
      again: function () {
        clear(films);
        say('正在重新回答……');
      },
      retracted: function () {
        clear(films);
      },
      waiting: function () {
        say('连接断了，正在接上……');
      },
      done: function (frame) {
        say(frame.finish_reason === 'cancelled' ? '已停止 · 由 AI 生成' : '由 AI 生成');
        over();
      },
      failed: function (error) {
        say(error.message, true);
        over();
      }
    });
  }

  function showConversation(id) {
    wire.conversation(id, function (error, page) {
      var i;
      clear(talk);
      if (error) {
        element('div', 'note wrong', error.message, talk);
        return;
      }
      for (i = 0; i < page.items.length; i += 1) {
        element('div', page.items[i].role === 'user' ? 'question' : 'answer', page.items[i].content, talk);
        if (page.items[i].aigc) {
          element('div', 'note', '由 AI 生成', talk);
        }
      }
    });
  }

  function goTo(name, id) {
    session = name;
    save('session', session);
    if (id) {
      showConversation(id);
    } else {
      clear(talk);
    }
    showConversations();
  }

  function showConversations() {
    wire.conversations(function (error, list) {
      var box = document.getElementById('conversations'), i;
      function button(text, name, id) {
        var made = element('button', name === session ? 'current' : '', text, box);
        made.onclick = function () {
          /* What is being answered belongs where it was asked. */
          if (!send.disabled) {
            goTo(name || CineWire.randomId(), id);
          }
        };
      }
      clear(box);
      button('新的对话', null, null);
      for (i = 0; !error && i < list.items.length; i += 1) {
        /* One whose name this browser has forgotten can be read; what is asked then begins another. */
        button(list.items[i].title || '未命名', sessions[list.items[i].id], list.items[i].id);
      }
    });
  }

  document.getElementById('ask').onsubmit = function () {
    var message = query.value.replace(/^\s+|\s+$/g, '');
    if (message && !send.disabled) {
      query.value = '';
      save('session', session);
      showAnswer({ id: CineWire.randomId(), message: message, session_id: session });
    }
    return false;
  };

  showConversations();
  if (load('pending')) {
    showAnswer(load('pending'));
  }
}());
