// Node's own WebSocket: node websockets_pair.mjs BASE TOKEN prints what it saw as one JSON object.
const [base, token] = process.argv.slice(2);
const url = base.replace("https:", "wss:") + "/live";

function open(headers) {
  const socket = new WebSocket(url, { headers });
  socket.binaryType = "arraybuffer";
  return socket;
}

function next(socket, event) {
  return new Promise((resolve) => socket.addEventListener(event, resolve, { once: true }));
}

const refused = open({});
const outcome = await Promise.race([next(refused, "open").then(() => false), next(refused, "error").then(() => true)]);

const socket = open({ authorization: `Bearer ${token}` });
await next(socket, "open");
socket.send("hello");
const text = (await next(socket, "message")).data;
socket.send(new Uint8Array(100000));
const bytes = (await next(socket, "message")).data.byteLength;
socket.send("close 4321");
const { code, reason } = await next(socket, "close");
console.log(JSON.stringify({ text, bytes, code, reason, refused: outcome }));
