// A wire where WebSockets are blocked: lines of JSON from `/sse`, and `POST /publish`. Speaks as a WebSocket would.
//
// All channels are one stream. A change of the channels begins a new stream, which resumes the old one's positions.

// Longer than a node takes to answer. A kept connection may be dead: then the publish is repeated on another one.
const POST_TIME = 8e3;
const OVER = { code: 1006, text: "ended" };

export const openStream = (base, token, retry, { _open, _frame, _close }) => {
  const channels = new Map(); // by name: the position, `last`, and the id of a subscribe that is not answered
  const ended = new AbortController();
  let current, planned;

  const ask = (path, signal, options = {}) => {
    const headers = { Accept: "application/x-ndjson", ...(token !== undefined && { Authorization: `Bearer ${token}` }) };
    return fetch(base + path, { headers, cache: "no-store", signal, ...options });
  };
  const close = (end) => {
    if (ended.signal.aborted) return;
    stop();
    _close(end);
  };
  const stop = () => {
    ended.abort();
    current?.abort();
    clearTimeout(planned);
  };
  const deny = (name, code, text) => {
    const { id } = channels.get(name);
    channels.delete(name);
    if (id) _frame({ id, error: { code, message: text, retry: false } });
    else _frame({ unsubscribed: { channel: name, reason: code } });
  };
  // In a moment, so that subscriptions made together are one stream.
  const plan = () => {
    clearTimeout(planned);
    planned = setTimeout(run, 5);
  };

  const refused = async (response) => {
    const text = await response.text();
    const { status } = response;
    const names = [...channels.keys()];
    const named = status === 403 && names.find((name) => text.startsWith(`${name}: `));
    const wait = response.headers.get("retry-after") * 1000 * (1 + Math.random()) || undefined;
    if (status === 401) return close({ code: 4401, text });
    if (named) deny(named, "forbidden", text);
    else if (status === 400) for (const name of names) channels.get(name).id && deny(name, "bad_request", text);
    else return close({ code: 1013, text, wait });
    plan();
  };

  const line = (frame) => {
    const about = (frame.ok ?? frame).channel;
    const channel = channels.get(about);
    if (frame.close) return close({ code: frame.close.code, text: frame.close.reason });
    if (frame.ok && channel) {
      const { id, at: after } = channel;
      channel.id = 0;
      channel.at = frame.ok.at;
      // The request has one number for all channels: this one may have asked for fewer.
      channel.skip = frame.ok.last - (channel.last ?? 0);
      if (id) _frame({ id, ok: frame.ok });
      else {
        const { recovered, presence } = frame.ok;
        if (recovered === false) _frame({ channel: about, lost: { after, reason: "not_held" } });
        if (presence) _frame({ channel: about, presence });
      }
      return;
    }
    if (channel && frame.at) {
      channel.at = frame.at;
      if (channel.skip-- > 0) return;
    }
    for (const name in frame.ping?.at) if (channels.has(name)) channels.get(name).at = frame.ping.at[name];
    if (frame.unsubscribed) channels.delete(frame.unsubscribed.channel);
    _frame(frame);
  };

  const run = async () => {
    current?.abort();
    const mine = (current = new AbortController());
    if (!channels.size || ended.signal.aborted) return;
    const wanted = [...channels.entries()];
    const query = new URLSearchParams(wanted.map(([name]) => ["channel", name]));
    if (wanted.some(([, { at }]) => at)) query.set("since", wanted.map(([, { at = "" }]) => at).join());
    const last = Math.max(...wanted.map(([, { at, last = 0 }]) => (at ? 0 : last)));
    if (last) query.set("last", last);
    if (wanted.some(([, { presence }]) => presence)) query.set("presence", 1);
    try {
      const response = await ask(`sse?${query}`, mine.signal);
      if (mine !== current) return;
      if (!response.ok) return await refused(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ; ) {
        const { value, done } = await reader.read();
        if (mine !== current) return;
        if (done) return close(OVER);
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const text of lines) {
          if (mine !== current || ended.signal.aborted) return;
          if (text) line(JSON.parse(text));
        }
      }
    } catch {
      if (mine === current) close(OVER);
    }
  };

  const publish = async (id, body) => {
    let answer;
    try {
      const response = await ask("publish", AbortSignal.timeout(POST_TIME), { method: "POST", body: JSON.stringify(body) });
      const { status, headers, ok } = response;
      const json = await response.json().catch(() => ({}));
      if (ok) answer = { ok: json };
      else if (json.code) answer = { error: { ...json, message: json.detail, retry_after_ms: headers.get("retry-after") * 1000 || undefined } };
      else if (status === 404) answer = refusal("http.publish is off");
      else if (status === 401) return close({ code: 4401 });
      else throw new Error(`HTTP ${status}`);
    } catch ({ message }) {
      answer = { error: { code: "unknown", message, retry: true } };
    }
    if (!ended.signal.aborted) _frame({ id, ...answer });
  };
  // Where a socket has worked before, one will soon again.
  const refusal = (message) => ({ error: { code: "unsupported", message, retry } });

  // Without a channel a node answers 400: then there is one.
  ask("sse", ended.signal).then(
    (response) => (response.status === 400 ? _open() : close({ code: 1006, text: `HTTP ${response.status}` })),
    () => close({ code: 1006, text: "unreachable" }),
  );
  return {
    _kind: "stream",
    _send({ id, subscribe, unsubscribe, publish: body, ping }) {
      if (subscribe) {
        const { channel, since, last, presence } = subscribe;
        channels.set(channel, { at: since, last, id, presence });
        plan();
      } else if (unsubscribe) {
        if (channels.delete(unsubscribe.channel)) plan();
      } else if (body) {
        publish(id, body);
      } else if (!ping) {
        queueMicrotask(() => _frame({ id, ...refusal("this needs a WebSocket") }));
      } else if (!channels.size) {
        queueMicrotask(() => _frame({ ok: {} })); // nothing is open that could have died
      }
      return 0;
    },
    _close: stop,
  };
};
