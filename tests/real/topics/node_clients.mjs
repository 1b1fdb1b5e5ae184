// The cases of node_clients.py: node node_clients.mjs CASE BASE TOKEN prints what it saw as one JSON object.
import https from "node:https";
import http2 from "node:http2";
import fs from "node:fs";

const [name, base, token] = process.argv.slice(2);
const ca = fs.readFileSync(process.env.NODE_EXTRA_CA_CERTS);
const authorization = `Bearer ${token}`;
const megabyte = Buffer.alloc(1 << 20, "0123456789abcdef");

async function gather(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts);
}

function viaHttps(path, options, body) {
  return new Promise((resolve, reject) => {
    const request = https.request(base + path, { ca, headers: { authorization }, ...options }, async (response) => {
      const port = response.socket.localPort; // the agent takes the socket away at the end
      resolve({ status: response.statusCode, port, body: await gather(response) });
    });
    request.on("error", reject);
    for (const part of body ?? []) request.write(part);
    request.end();
  });
}

function open() {
  const session = http2.connect(base, { ca });
  session.on("error", (error) => { throw error; });
  return session;
}

function viaHttp2(session, headers, body) {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers, { endStream: body === undefined });
    let status;
    stream.on("response", (fields) => { status = fields[":status"]; });
    stream.on("error", reject);
    gather(stream).then((received) => resolve({ status, body: received }), reject);
    if (body !== undefined) stream.end(body);
  });
}

const cases = {
  async agent() {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 });
    const answers = [];
    for (let number = 0; number < 10; number++) answers.push(await viaHttps(`/${number}`, { agent }));
    agent.destroy();
    return { statuses: answers.map((a) => a.status), ports: new Set(answers.map((a) => a.port)).size };
  },

  async upload() {
    const answer = await viaHttps("/echo", { method: "POST" }, [megabyte, megabyte]);
    return { status: answer.status, same: answer.body.equals(Buffer.concat([megabyte, megabyte])) };
  },

  async session() {
    const session = open();
    const echo = { ":method": "POST", ":path": "/echo", authorization };
    const bodies = Array.from({ length: 50 }, (_, number) => megabyte.subarray(0, 10000 + number));
    const answers = await Promise.all(bodies.map((body) => viaHttp2(session, echo, body)));
    const seen = JSON.parse((await viaHttp2(session, { ":path": "/who", authorization })).body);
    session.close();
    return {
      statuses: answers.map((a) => a.status),
      same: answers.every((answer, number) => answer.body.equals(bodies[number])),
      users: seen.headers.filter(([field]) => field === "x-forwarded-user").map(([, value]) => value),
    };
  },

  async refused() {
    const session = open();
    const refused = await viaHttp2(session, { ":method": "POST", ":path": "/x" }, megabyte);
    const allowed = await viaHttp2(session, { ":path": "/y", authorization });
    session.close();
    return { statuses: [refused.status, allowed.status], code: JSON.parse(refused.body).code };
  },

  async abandoned() {
    const session = open();
    const stream = session.request({ ":path": "/drip?50", authorization });
    stream.on("error", () => {});
    await new Promise((resolve) => stream.once("data", resolve));
    stream.close(http2.constants.NGHTTP2_CANCEL);
    const answer = await viaHttp2(session, { ":path": "/after", authorization });
    session.close();
    return { status: answer.status };
  },

  async fetch() {
    const body = new ReadableStream({
      start(controller) {
        for (const word of ["one ", "two ", "three"]) controller.enqueue(new TextEncoder().encode(word));
        controller.close();
      },
    });
    const answer = await fetch(`${base}/echo`, { method: "POST", headers: { authorization }, body, duplex: "half" });
    return { status: answer.status, text: await answer.text() };
  },

  async answers() {
    const moved = await fetch(`${base}/redirect`, { headers: { authorization }, redirect: "manual" });
    const refused = await fetch(`${base}/x`);
    return { redirect: moved.status, location: moved.headers.get("location"), problem: (await refused.json()).code };
  },
};

console.log(JSON.stringify(await cases[name]()));
