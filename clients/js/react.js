// A channel's messages as React state.

import { useEffect, useRef, useState } from "react";

const NOTHING = { messages: [], lost: 0 };

/** The last `keep` messages of a channel, and how often some were lost. The newest `onLost` is called each time. */
export const useChannel = (fan, name, { last, keep = 100, onLost } = {}) => {
  const [seen, setSeen] = useState(NOTHING);
  const room = useRef(null);
  const newest = useRef(onLost);
  newest.current = onLost;
  useEffect(() => {
    const mine = (room.current = fan.channel(name, { last }));
    setSeen(NOTHING);
    mine.on("message", (message) => setSeen((old) => ({ ...old, messages: [...old.messages, message].slice(-keep) })));
    mine.on("lost", (lost) => {
      setSeen((old) => ({ ...old, lost: old.lost + 1 }));
      newest.current?.(lost);
    });
    return () => mine.leave();
  }, [fan, name, last, keep]);
  const [publish] = useState(() => (data, options) => room.current.publish(data, options));
  return { ...seen, publish };
};

/** The state of the connection, for a line such as "reconnecting". */
export const useConnection = (fan) => {
  const [state, setState] = useState(fan.state);
  useEffect(() => {
    setState(fan.state);
    return fan.on("state", (event) => setState(event.state));
  }, [fan]);
  return state;
};
