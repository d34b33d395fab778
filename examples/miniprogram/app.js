/** The app: one client for all pages, which comes and goes with it. */
var cinewire = require('./cinewire.js')

App({
  globalData: {
    // 替换为你的服务器地址：正式环境必须是 https://，并在小程序后台登记
    serverUrl: 'http://127.0.0.1:8000',
    // the conversation that the chat page shall open next; null is the user's standing one
    conversationId: null
  },

  onLaunch: function () {
    this.client = cinewire.create({ url: this.globalData.serverUrl })
    this.client.on('error', function (error) {
      wx.showToast({ title: error.message || '出错了', icon: 'none' })
    })
  },

  onShow: function () {
    this.client.show()
  },

  onHide: function () {
    this.client.hide()
  }
})
