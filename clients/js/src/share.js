// One connection for all tabs of an origin. The tab that holds a lock leads: it has the line, and the others speak to it.
//
// The leader keeps nothing that another tab needs: each has its own positions and requests, and begins anew with the next leader.

/** A line that may be in another tab. */
export const share = (name, newLine, out) => {
  const me = crypto.randomUUID(); // where there are locks, it exists
  const bus = new BroadcastChannel(name);
  const gone = new AbortController();
  let hub, free;
  const held = new Promise((resolve) => (free = resolve));
  const lock = (lock, work) => navigator.locks.request(lock, { signal: gone.signal }, work).catch(() => {});
  const send = (frame) => {
    if (hub) hub._take(me, frame);
    else bus.postMessage({ from: me, frame });
  };
  bus.onmessage = ({ data: { from, to, frame } }) => {
    if (from) hub?._take(from, frame);
    else if (!to || to === me) out(frame);
  };
  const post = (to, frame) => {
    if (to !== me) bus.postMessage({ to, frame });
    if (!to || to === me) out(frame);
  };
  // Others see by this lock that this tab lives.
  lock(`${name} ${me}`, () => (send({ hello: true }), held));
  lock(name, () => {
    hub = new Hub(post, (tab) => tab !== me && lock(`${name} ${tab}`, () => hub?._leave(tab)));
    hub._line = newLine((frame) => hub?._receive(frame));
    return held;
  });
  return {
    send,
    wake: () => send({ wake: true }),
    close() {
      hub?._line.close();
      hub = null;
      gone.abort();
      free();
      bus.close();
    },
  };
};

/** What the leading tab does for all. */
class Hub {
  _channels = new Map(); // by name: its tabs, how far it was given, and whether the node has answered
  _routes = new Map(); // who gets the answer to a command, by its id on the line
  _id = 9;
  _state = { state: { state: "connecting" } };
  _tabs = new Set();

  constructor(post, watch) {
    this._post = post;
    this._watch = watch;
  }

  /** A frame from a tab. */
  _take(tab, frame) {
    if (!this._tabs.has(tab)) {
      this._tabs.add(tab);
      this._watch(tab);
    }
    const { id, subscribe, unsubscribe } = frame;
    if (frame.hello) this._post(tab, this._state);
    else if (frame.wake) this._line.wake();
    else if (this._state.state.state !== "open") return; // it sends it again when the line is open
    else if (subscribe) this._subscribe(tab, id, subscribe);
    else if (unsubscribe) this._unsubscribe(tab, unsubscribe.channel);
    else this._line.send({ ...frame, id: this._route((answer) => this._post(tab, { ...answer, id })) });
  }

  _route(answer) {
    this._routes.set(++this._id, answer);
    return this._id;
  }

  /** A frame from the line. */
  _receive(frame) {
    const route = this._routes.get(frame.id);
    if (frame.state) {
      this._state = frame;
      this._channels.clear();
      this._routes.clear();
    } else if (frame.id) {
      this._routes.delete(frame.id);
      return route?.(frame);
    }
    const { channel: named } = frame.ok ?? {};
    // The token subscribed us: all begin anew, each from its own position.
    if (named && this._channels.delete(named)) this._line.send({ unsubscribe: { channel: named } });
    const channel = this._channels.get(frame.channel);
    if (frame.channel && !channel?.live) return; // of a subscription that is being replaced: it comes again
    if (channel && frame.at) channel.at = frame.at > channel.at || channel.lost ? frame.at : channel.at;
    if (channel) channel.lost = !!frame.lost;
    for (const name in frame.ping?.at) {
      const pinged = this._channels.get(name);
      if (pinged?.live && frame.ping.at[name] > pinged.at) pinged.at = frame.ping.at[name];
    }
    if (frame.presence?.ended && channel) channel.presence = false;
    if (frame.unsubscribed) this._channels.delete(frame.unsubscribed.channel);
    this._post(undefined, frame);
  }

  _subscribe(tab, id, { channel: name, since, last, presence }) {
    let channel = this._channels.get(name);
    if (!channel) this._channels.set(name, (channel = { name, tabs: new Set(), waiting: [] }));
    channel.tabs.add(tab);
    const again = () => this._subscribe(tab, id, { channel: name, since, last, presence });
    if (channel.asked && !channel.live) channel.waiting.push(again);
    else if (channel.live && !last && !(since < channel.at) && (!presence || channel.presence)) {
      this._post(tab, { id, ok: { channel: name, at: since ?? channel.at, recovered: since ? true : undefined } });
    } else {
      presence ||= channel.presence;
      this._ask(channel, { channel: name, since, last, presence }, (answer) => this._post(tab, { ...answer, id }), tab);
    }
  }

  /** Subscribes on the line. If others had the channel already, it goes back for one: they leave out what they have. */
  _ask(channel, subscribe, answer, tab) {
    const before = channel.at;
    if (channel.asked) this._line.send({ unsubscribe: { channel: channel.name } });
    channel.asked = true;
    channel.live = false;
    const id = this._route((frame) => {
      const { ok, error } = frame;
      channel.live = true;
      answer(frame);
      if (this._channels.get(channel.name) !== channel) return; // all tabs have left it meanwhile
      if (error) channel.tabs.delete(tab);
      else channel.presence = subscribe.presence;
      // The changes of the time between were lost to the other tabs.
      if (ok?.presence) this._post(undefined, { channel: channel.name, presence: ok.presence });
      if (before && channel.tabs.size && (error || ok.recovered === false || ok.at > before)) {
        // What the others have not got begins earlier.
        channel.at = before;
        const { name, presence } = channel;
        this._ask(channel, { channel: name, since: before, presence }, (other) => this._restored(channel, other, before));
      } else if (error) {
        channel.asked = channel.live = false;
        if (!channel.tabs.size) this._channels.delete(channel.name);
      } else channel.at = ok.at;
      for (const again of channel.waiting.splice(0)) again();
    });
    this._line.send({ id, subscribe });
  }

  _restored({ name }, { ok, error }, after) {
    if (error) {
      // Each tab asks for itself, and learns what is wrong.
      this._channels.delete(name);
      this._post(undefined, { ok: { channel: name } });
    } else if (ok.recovered === false) this._post(undefined, { channel: name, lost: { after, reason: "not_recovered" } });
  }

  _unsubscribe(tab, name) {
    const channel = this._channels.get(name);
    if (!channel?.tabs.delete(tab) || channel.tabs.size) return;
    this._channels.delete(name);
    this._line.send({ unsubscribe: { channel: name } });
  }

  /** A tab is gone, without a word if it crashed. */
  _leave(tab) {
    this._tabs.delete(tab);
    for (const name of [...this._channels.keys()]) this._unsubscribe(tab, name);
  }
}
