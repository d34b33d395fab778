/** One film: a skeleton until it is there, then its facts and its place in the watchlist. */
Page({
  data: {
    movie: null,
    error: '',
    canRetry: false,
    listed: ''
  },

  onLoad: function (options) {
    this.client = getApp().client
    this.tmdbId = Number(options.tmdb_id)
    this.load()
  },

  load: function () {
    var page = this
    this.setData({ movie: null, error: '', canRetry: false })
    return this.client.request('movie_detail', { tmdb_id: this.tmdbId }).then(
      function (data) {
        page.setData({ movie: shownMovie(data.movie) })
        wx.setNavigationBarTitle({ title: data.movie.title })
      },
      function (error) {
        page.setData({ error: error.message, canRetry: error.retryable })
      }
    )
  },

  list: function (event) {
    var page = this
    var state = event.currentTarget.dataset.state
    this.client.request('watchlist_add', { tmdb_id: this.tmdbId, state: state }).then(
      function (data) {
        page.setData({ listed: data.item.state })
      },
      function (error) {
        wx.showToast({ title: error.message, icon: 'none' })
      }
    )
  }
})

function shownMovie(movie) {
  return {
    title: movie.title,
    original: movie.original_title === movie.title ? '' : movie.original_title,
    released: movie.release_date || '上映日期未知',
    runtime: movie.runtime ? movie.runtime + ' 分钟' : '',
    genres: movie.genres.join(' / '),
    vote: movie.vote_average ? movie.vote_average.toFixed(1) + '（' + movie.vote_count + ' 人）' : '暂无评分',
    overview: movie.overview || '暂无简介',
    poster: movie.poster_url || '',
    backdrop: movie.backdrop_url || '',
    directors: movie.directors.join(' / '),
    cast: movie.cast.map(function (member) {
      return { name: member.name, character: member.character }
    })
  }
}
