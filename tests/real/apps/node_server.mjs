// Answers with what Node made of the request: node node_server.mjs PORT.
import http from "node:http";

const server = http.createServer(async (request, response) => {
  let length = 0;
  for await (const part of request) length += part.length;
  const { method, url, headers, rawHeaders } = request;
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify({ method, url, host: headers.host, rawHeaders, body_bytes: length }));
});
server.listen(Number(process.argv[2]), "127.0.0.1");
