Page({
  data: {
    messages: [],
    inputValue: '',
    openid: '',
    loading: false,
    socketTask: null,
    connected: false
  },

  onLoad() {
    this.connectWebSocket()
  },

  onUnload() {
    // 页面卸载时关闭WebSocket连接
    if (this.data.socketTask) {
      this.data.socketTask.close()
    }
  },

  // 连接WebSocket
  connectWebSocket() {
    const wsUrl = 'ws://127.0.0.1:8000/wechat/ws' // 替换为你的服务器地址
    const socketTask = wx.connectSocket({
      url: wsUrl,
      success: () => {
        console.log('WebSocket连接成功')
      },
      fail: (err) => {
        console.error('WebSocket连接失败', err)
        wx.showToast({
          title: '连接失败，请重试',
          icon: 'none'
        })
      }
    })

    // 监听连接打开
    socketTask.onOpen(() => {
      console.log('WebSocket已连接')
      this.setData({ connected: true, socketTask })

      // 连接成功后自动登录
      this.login()
    })

    // 监听消息
    socketTask.onMessage((res) => {
      try {
        const message = JSON.parse(res.data)
        this.handleMessage(message)
      } catch (e) {
        console.error('解析消息失败', e)
      }
    })

    // 监听连接关闭
    socketTask.onClose(() => {
      console.log('WebSocket连接已关闭')
      this.setData({ connected: false })
    })

    // 监听错误
    socketTask.onError((err) => {
      console.error('WebSocket错误', err)
      wx.showToast({
        title: '连接错误',
        icon: 'none'
      })
    })

    this.setData({ socketTask })
  },

  // 处理收到的消息
  handleMessage(message) {
    switch (message.type) {
      case 'connected':
        console.log('服务器确认连接')
        break

      case 'login_response':
        if (message.code === 0) {
          this.setData({
            openid: message.data.openid
          })
          wx.setStorageSync('openid', message.data.openid)
          wx.showToast({
            title: '登录成功',
            icon: 'success'
          })
        } else {
          wx.showToast({
            title: message.message || '登录失败',
            icon: 'none'
          })
        }
        break

      case 'chat_processing':
        this.setData({ loading: true })
        break

      case 'chat_response':
        this.setData({ loading: false })
        if (message.code === 0) {
          const aiMessage = {
            type: 'ai',
            content: message.data.msg
          }
          this.setData({
            messages: [...this.data.messages, aiMessage]
          })
        } else {
          wx.showToast({
            title: message.message || '请求失败',
            icon: 'none'
          })
        }
        break

      case 'pong':
        console.log('收到心跳响应')
        break

      case 'error':
        wx.showToast({
          title: message.message || '发生错误',
          icon: 'none'
        })
        break
    }
  },

  // 微信登录
  login() {
    wx.login({
      success: (res) => {
        if (res.code) {
          // 通过WebSocket发送登录消息
          this.sendMessage({
            type: 'login',
            code: res.code
          })
        }
      },
      fail: (err) => {
        console.error('wx.login 失败', err)
      }
    })
  },

  // 发送WebSocket消息
  sendMessage(message) {
    if (!this.data.socketTask || !this.data.connected) {
      wx.showToast({
        title: '未连接，请重试',
        icon: 'none'
      })
      return
    }

    this.data.socketTask.send({
      data: JSON.stringify(message),
      success: () => {
        console.log('消息发送成功', message)
      },
      fail: (err) => {
        console.error('消息发送失败', err)
      }
    })
  },

  // 输入框内容变化
  onInput(e) {
    this.setData({
      inputValue: e.detail.value
    })
  },

  // 发送聊天消息
  sendChatMessage() {
    const query = this.data.inputValue.trim()
    if (!query) {
      wx.showToast({
        title: '请输入消息',
        icon: 'none'
      })
      return
    }

    if (!this.data.openid) {
      wx.showToast({
        title: '请先登录',
        icon: 'none'
      })
      return
    }

    // 添加用户消息到聊天记录
    const userMessage = {
      type: 'user',
      content: query
    }
    this.setData({
      messages: [...this.data.messages, userMessage],
      inputValue: ''
    })

    // 通过WebSocket发送聊天消息
    this.sendMessage({
      type: 'chat',
      query: query,
      use_auto_rag: false
    })
  },

  // 发送心跳（可选，用于保持连接）
  sendPing() {
    this.sendMessage({ type: 'ping' })
  }
})
