import { render } from "preact";
import { App } from "./app";
import { Client } from "./client";
import { Conversation } from "./conversation";
import { show } from "./preferences";
import "./style/base.css";
import "./style/layout.css";
import "./style/chat.css";
import "./style/films.css";
import "./style/inspector.css";

/** `/wechat/ws` beside this page, wherever a proxy has put both. */
function address(): string {
  const url = new URL("wechat/ws", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

show();
const client = new Client(address());
const conversation = new Conversation(client);
const page = document.getElementById("page");
if (page !== null) render(<App client={client} conversation={conversation} />, page);
