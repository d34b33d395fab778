/** The account: who is logged in, taking everything along, logging out, and having everything deleted. */
var STATES = {
  online: '在线',
  connecting: '正在连接',
  offline: '离线',
  replaced: '已在其他设备上打开',
  refused: '微信登录未通过',
  stopped: '请更新小程序',
  signed_out: '未登录'
}
var FILE = 'cinewire.json'

Page({
  data: {
    state: '',
    transport: '',
    openid: '',
    signedIn: false,
    busy: false
  },

  onLoad: function () {
    var page = this
    this.client = getApp().client
    this.stopState = this.client.on('state', function () {
      page.show()
    })
  },

  onUnload: function () {
    this.stopState()
  },

  onShow: function () {
    this.show()
  },

  show: function () {
    var now = this.client.state()
    var user = this.client.user()
    this.setData({
      state: STATES[now.state],
      transport: now.transport === 'http' ? '（此网络不支持 WebSocket，已改用 HTTPS）' : '',
      openid: (user && user.openid) || '',
      signedIn: now.state !== 'signed_out' && now.state !== 'refused'
    })
  },

  login: function () {
    this.client.login()
    this.show()
  },

  logout: function () {
    this.leave('logout', '已退出登录')
  },

  deleteAccount: function () {
    var page = this
    wx.showModal({
      title: '注销账号',
      content: '所有会话、片单和评价都会被永久删除，无法恢复',
      success: function (answer) {
        if (answer.confirm) page.leave('deleteAccount', '账号数据已删除')
      }
    })
  },

  leave: function (how, told) {
    var page = this
    this.setData({ busy: true })
    return this.client[how]().then(
      function () {
        getApp().globalData.conversationId = null
        page.setData({ busy: false })
        wx.showToast({ title: told, icon: 'none' })
      },
      function (error) {
        page.setData({ busy: false })
        wx.showToast({ title: error.message, icon: 'none' })
      }
    )
  },

  exportAccount: function () {
    var page = this
    this.setData({ busy: true })
    return this.client.exportAccount().then(
      function (all) {
        page.setData({ busy: false })
        page.share(JSON.stringify(all, null, 2))
      },
      function (error) {
        page.setData({ busy: false })
        wx.showToast({ title: error.message, icon: 'none' })
      }
    )
  },

  share: function (text) {
    var path = wx.env.USER_DATA_PATH + '/' + FILE
    wx.getFileSystemManager().writeFile({
      filePath: path,
      data: text,
      encoding: 'utf8',
      success: function () {
        wx.shareFileMessage({
          filePath: path,
          fileName: FILE,
          fail: function (error) {
            if (!/cancel/.test(error.errMsg)) wx.showToast({ title: '无法转发文件', icon: 'none' })
          }
        })
      },
      fail: function (error) {
        wx.showToast({ title: error.errMsg, icon: 'none' })
      }
    })
  },

  openLegacy: function () {
    wx.navigateTo({ url: '/pages/legacy/legacy' })
  }
})
