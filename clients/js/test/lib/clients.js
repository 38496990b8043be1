// Clients that are closed when the test is over, and a record of what they got.

import { connect } from "../../node.js";
import { until } from "./cluster.js";

/** A client of this URL, closed at the end of test `t`. */
export const client = (t, url, options) => {
  const fan = connect(url, options);
  t.after(() => fan.close());
  return fan;
};

export const opened = (fan) => until(() => fan.state === "open", "the client is open");

/** All that a room gets, in order: numbers of messages, and `lost`. */
export const record = (room) => {
  const seen = [];
  room.on("message", ({ data }) => seen.push(data));
  room.on("lost", () => seen.push("lost"));
  return seen;
};

/** A room that is subscribed, and what it gets. */
export const listening = async (fan, name, options) => {
  const room = fan.channel(name, options);
  let subscribed = false;
  room.on("subscribed", () => (subscribed = true));
  const seen = record(room);
  await until(() => subscribed, `${name} is subscribed; the client is ${fan.state}`);
  return { room, seen };
};

/** Waits until the node of this room has read this message: a node reads what is stored a moment after the publish. */
export const read = (room, data) =>
  until(async () => (await room.history({ limit: 1 })).messages[0]?.data === data, "the node has read it");

export const rejection = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
};
