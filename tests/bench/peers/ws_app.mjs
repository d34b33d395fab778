// npm `ws` on Node's own HTTP server; `ws` has no deflate unless it is asked for.
import { WebSocketServer } from "ws";
import { reply, stream } from "./answers.mjs";

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), path: "/ws" });
server.on("connection", (socket) => {
  let stop = () => {};
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    if (message.type === "chat") stop = stream(Number(message.query), (frame) => socket.send(JSON.stringify(frame)));
    else socket.send(JSON.stringify(reply(message)));
  });
  socket.on("close", () => stop());
  socket.on("error", () => {});
});
