// The Fanfare client. `npm run build` makes clients/js/fanfare.js from these files.

import { Client } from "./client.js";
import { openLine } from "./line.js";

export { FanfareError } from "./errors.js";

/** Connects to a gateway: `const fan = connect("https://example.com", { token })`. See docs/javascript.md. */
export const connect = (url = ".", options = {}) => {
  const { href } = new URL(url, globalThis.location?.href);
  // "https://host", ".../ws" and "wss://host/" are one place.
  const base = href.replace(/^ws/, "http").replace(/[?#].*/, "").replace(/(\/ws)?\/?$/, "/");
  const client = new Client(base, options);
  const newLine = (out) => openLine(base, options, out);
  const out = (frame) => client._receive(frame);
  // Web Locks exist only on pages with TLS and on localhost. Elsewhere each tab has its own connection.
  if (options.share && globalThis.navigator?.locks && globalThis.BroadcastChannel) {
    let closed;
    client._line = { send() {}, wake() {}, close: () => (closed = true) };
    import("./fanfare-share.js").then(({ share }) => {
      if (!closed) client._line = share(`fanfare ${base} ${options.share}`, newLine, out);
    }, (error) => closed || out({ state: { state: "closed", error } }));
  } else {
    client._line = newLine(out);
  }
  return client;
};
