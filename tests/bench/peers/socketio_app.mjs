// Socket.IO for Node, WebSocket transport only.
import { createServer } from "node:http";
import { Server } from "socket.io";
import { reply, stream } from "./answers.mjs";

const http = createServer();
const server = new Server(http, { transports: ["websocket"] });
server.on("connection", (socket) => {
  let stop = () => {};
  const answer = (message) => {
    const said = reply(message);
    socket.emit(said.type, said);
  };
  socket.on("ping", answer);
  socket.on("login", answer);
  socket.on("chat", (message) => {
    stop = stream(Number(message.query), (frame) => socket.emit(frame.type, frame));
  });
  socket.on("disconnect", () => stop());
});
http.listen(Number(process.argv[2]), "127.0.0.1");
