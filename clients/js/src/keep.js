// Keeps the positions over a reload of the page, in the tab's sessionStorage.

export class Keep {
  constructor(base, channels) {
    this._name = `fanfare ${base}`;
    this._channels = channels;
    try {
      this._positions = JSON.parse(sessionStorage.getItem(this._name)) ?? {};
    } catch {
      this._positions = {}; // there is no storage, or it is not ours
    }
    this._save = () => {
      for (const { name, _kept } of this._channels()) if (_kept) this._positions[name] = _kept;
      try {
        sessionStorage.setItem(this._name, JSON.stringify(this._positions));
      } catch {
        // A full or forbidden storage: the next page begins without positions.
      }
    };
    globalThis.addEventListener?.("pagehide", this._save);
  }

  /** The position of a channel, once: a later room of the channel begins anew. */
  _take(name) {
    const at = this._positions[name];
    delete this._positions[name];
    return at;
  }

  _stop() {
    this._save();
    globalThis.removeEventListener?.("pagehide", this._save);
  }
}
