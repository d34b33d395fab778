/** The watchlist: what one wants to see, has seen or does not want, page by page. */
Page({
  data: {
    states: [
      { name: 'to_watch', title: '想看' },
      { name: 'watched', title: '看过' },
      { name: 'dismissed', title: '不想看' }
    ],
    state: 'to_watch',
    items: [],
    loaded: false,
    error: ''
  },

  onLoad: function () {
    this.client = getApp().client
  },

  onShow: function () {
    this.reload()
  },

  choose: function (event) {
    this.setData({ state: event.currentTarget.dataset.state, items: [], loaded: false })
    this.reload()
  },

  reload: function () {
    this.nextBefore = null
    return this.load([])
  },

  onReachBottom: function () {
    if (this.nextBefore) this.load(this.data.items)
  },

  load: function (before) {
    var page = this
    var state = this.data.state
    return this.client.request('watchlist_list', { state: state, before: this.nextBefore }).then(
      function (list) {
        if (page.data.state !== state) return
        page.nextBefore = list.next_before
        page.setData({ items: before.concat(list.items.map(shownItem)), loaded: true, error: '' })
      },
      function (error) {
        page.setData({ loaded: true, error: error.message })
      }
    )
  },

  openMovie: function (event) {
    wx.navigateTo({ url: '/pages/movie-detail/movie-detail?tmdb_id=' + event.currentTarget.dataset.id })
  },

  move: function (event) {
    var wanted = event.currentTarget.dataset
    this.change('watchlist_add', { tmdb_id: wanted.id, state: wanted.state })
  },

  remove: function (event) {
    this.change('watchlist_remove', { tmdb_id: event.currentTarget.dataset.id })
  },

  change: function (type, fields) {
    var page = this
    return this.client.request(type, fields).then(
      function () {
        return page.reload()
      },
      function (error) {
        wx.showToast({ title: error.message, icon: 'none' })
      }
    )
  }
})

function shownItem(item) {
  // The catalogue may have lost a film that is in the list.
  return {
    tmdb_id: item.tmdb_id,
    title: item.movie ? item.movie.title : '影片 ' + item.tmdb_id,
    year: (item.movie && item.movie.year) || '',
    poster: (item.movie && item.movie.poster_url) || '',
    noted: item.source === 'chat' ? '聊天时记下' : ''
  }
}
