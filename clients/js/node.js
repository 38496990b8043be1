// The client in Node: as in a browser, and with a WebSocket of its own where Node has none (before 22).

import { connect as connectWith } from "./fanfare.js";
import { Socket } from "./node-socket.js";

export { FanfareError } from "./fanfare.js";

export const connect = (url, options) => connectWith(url, globalThis.WebSocket ? options : { WebSocket: Socket, ...options });
