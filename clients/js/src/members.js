// Who is in a channel: the node's list, and the changes that follow it. Loaded when a room has `presence`.
//
// A change can be applied twice: who has joined is there now, and who has left is not. A list that may be wrong is read again.

// From so many members on, a node sends their number only.
const MOST = 20_000;
const PAGE = 1000;
// The shortest time before a list is read again. A node that lacks members has them within about 15 s.
const AGAIN = 5e3;

// A client's id has no colon, so no user passes for a client.
const key = ({ user, client }) => (user ? `:${user}` : client);

/**
 * Follows one channel. `read` asks the node for a page, `tell` gets the events of the rooms with what is known then, `failure` makes
 * errors. Returns what takes the news: a list, a change, `ended`, `lost`, `error` for a refusal, `over` for the end of the
 * subscription, and `undefined` for a subscription without a list.
 */
export const follow = (read, tell, failure) => {
  let all = new Map();
  let count = 0;
  let partial = true;
  let error;
  let known = false; // whether a whole list was shown: later ones are compared with it
  let nameless = false; // whether the node tells the number only
  let found, timer; // the list that is being read; until it is read again

  const show = (next) => {
    const before = all;
    const many = !nameless && count >= MOST;
    all = many ? new Map() : next;
    partial ||= many;
    known &&= !many; // nobody has left
    const shown = { members: [...all.values()], count, partial, error };
    const say = (event, some, others) => {
      for (const [name, member] of some) if (known && !others.has(name)) tell(shown, event, member);
    };
    say("join", all, before);
    say("leave", before, all);
    known ||= !partial;
    tell(shown, "presence", shown);
    // A refusal would come again.
    if (isWrong() && error?.retry !== false) timer ??= setTimeout(again, AGAIN * (1 + Math.random()));
  };

  const isWrong = () => (nameless ? partial : count < MOST && (partial || all.size !== count));

  const again = () => {
    timer = undefined;
    if (!found && isWrong()) load();
  };

  /** Reads a list. Its first page may be there already. */
  const load = async (page) => {
    const mine = (found = new Map());
    let whole = true;
    let failed, after;
    try {
      do {
        page ??= await read({ after, limit: PAGE });
        if (mine !== found) return;
        for (const member of page.members) mine.set(key(member), member);
        whole &&= !page.partial;
        after = page.next;
        count = page.count;
        page = undefined;
      } while (after && count < MOST);
      // From the limit on, a channel with names has none either.
      if (count < MOST) nameless = count > 0 && !mine.size;
    } catch (why) {
      if (mine !== found) return;
      failed = why;
      whole = false;
    }
    found = undefined;
    error = failed;
    partial = !whole;
    // Those who are missing from a partial list may still be there.
    show(whole ? mine : new Map([...all, ...mine]));
  };

  const change = ({ joined = [], left = [], count: now = count }) => {
    const next = new Map(all);
    for (const list of [next, found ?? next]) {
      for (const member of joined) list.set(key(member), member);
      for (const member of left) list.delete(key(member));
    }
    count = now;
    show(next);
  };

  /** Gives up what is under way: from now on the list gets old. */
  const stop = () => {
    clearTimeout(timer);
    timer = found = undefined;
    partial = true;
  };

  return (news) => {
    if (!news || news.members) return load(news);
    const { over, lost, ended } = news;
    if (over) return stop();
    if (lost) {
      partial = true;
      return show(all);
    }
    const refused = ended ? { code: ended } : news.error;
    if (!refused) return change(news);
    stop();
    known = false;
    count = 0;
    error = failure(refused);
    show(new Map());
  };
};
