// A WebSocket client (RFC 6455) for Node before 22, as small as the Fanfare client needs: text frames, no extensions.

import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const OPEN = 1;
const CLOSED = 3;
// How long the other side may take to answer a close frame.
const CLOSE_TIME = 2000;

export class Socket {
  readyState = 0;
  #socket;
  #request;
  #read = Buffer.alloc(0);
  #parts = [];

  constructor(url, protocols) {
    const key = randomBytes(16).toString("base64");
    const headers = {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": key,
      "Sec-WebSocket-Protocol": protocols.join(),
    };
    const { request } = url.startsWith("wss:") ? https : http;
    this.#request = request(url.replace(/^ws/, "http"), { headers, agent: false });
    this.#request.on("upgrade", (response, socket, head) => {
      const accepts = createHash("sha1").update(key + GUID).digest("base64");
      if (response.headers["sec-websocket-accept"] !== accepts) return socket.destroy(), this.#end(1006);
      this.#open(socket, head);
    });
    this.#request.on("response", (response) => {
      response.resume();
      this.#end(1006, `HTTP ${response.statusCode}`);
    });
    this.#request.on("error", ({ message }) => this.#end(1006, message));
    this.#request.end();
  }

  send(text) {
    this.#write(TEXT, Buffer.from(text));
  }

  close(code = 1000) {
    if (this.readyState !== OPEN) return this.#request.destroy(), this.#end(1006);
    const body = Buffer.alloc(2);
    body.writeUInt16BE(code);
    this.#write(CLOSE, body);
    this.readyState = 2;
    setTimeout(() => this.#socket.destroy(), CLOSE_TIME).unref();
  }

  #open(socket, head) {
    this.#socket = socket;
    this.readyState = OPEN;
    socket.setNoDelay(true);
    socket.on("data", (bytes) => this.#take(bytes));
    socket.on("error", () => {});
    socket.on("close", () => this.#end(1006));
    this.onopen?.({});
    if (head.length) this.#take(head);
  }

  /** A masked frame, as a client must send. */
  #write(opcode, body) {
    if (this.readyState !== OPEN) return;
    const { length } = body;
    const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
    head[0] = 0x80 | opcode;
    head[1] = 0x80 | (length < 126 ? length : length < 65536 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(length, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
    const mask = randomBytes(4);
    const masked = Buffer.from(body);
    for (let i = 0; i < length; i++) masked[i] ^= mask[i & 3];
    this.#socket.write(Buffer.concat([head, mask, masked]));
  }

  /** Reads whole frames; a node sends them without a mask. */
  #take(bytes) {
    this.#read = this.#read.length ? Buffer.concat([this.#read, bytes]) : bytes;
    for (let rest; (rest = this.#read).length >= 2; ) {
      let length = rest[1] & 0x7f;
      const start = length < 126 ? 2 : length === 126 ? 4 : 10;
      if (rest.length < start) return;
      if (start === 4) length = rest.readUInt16BE(2);
      if (start === 10) length = Number(rest.readBigUInt64BE(2));
      if (rest.length < start + length) return;
      this.#read = rest.subarray(start + length);
      this.#frame(rest[0], rest.subarray(start, start + length));
    }
  }

  #frame(first, body) {
    const opcode = first & 0x0f;
    if (opcode === PING) return this.#write(PONG, body);
    if (opcode === CLOSE) {
      const code = body.length >= 2 ? body.readUInt16BE(0) : 1005;
      this.#write(CLOSE, body);
      this.#socket.end();
      return this.#end(code, body.subarray(2).toString());
    }
    if (opcode > TEXT) return; // a pong
    this.#parts.push(body);
    if (!(first & 0x80)) return;
    const data = Buffer.concat(this.#parts).toString();
    this.#parts = [];
    this.onmessage?.({ data });
  }

  #end(code, reason = "") {
    if (this.readyState === CLOSED) return;
    this.readyState = CLOSED;
    this.onclose?.({ code, reason });
  }
}
