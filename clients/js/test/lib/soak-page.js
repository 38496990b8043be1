// The page of the soak: it reads some channels and publishes, as lib/pages.js in Node wants. Served beside /fanfare.js.

import { connect } from "/fanfare.js";

const { url, user, lanes, timeout } = JSON.parse(decodeURIComponent(location.hash.slice(1)));

window.fan = connect(url, {
  keep: true,
  timeout: 120e3,
  token: async () => {
    const response = await fetch(`/token?user=${user}`);
    if (!response.ok) throw new Error(`no token: ${response.status}`);
    return response.text();
  },
});

// What the callbacks got and Node has not taken, as [lane, name]; over a reload it goes where the client keeps its positions.
window.met = JSON.parse(sessionStorage.getItem("met") ?? "[]");
addEventListener("pagehide", () => sessionStorage.setItem("met", JSON.stringify(met)));

const rooms = lanes.map((lane) => fan.channel(lane));
window.subscribed = 0;
for (const room of rooms) {
  room.on("message", ({ channel, data }) => met.push([channel, data]));
  room.on("lost", ({ channel }) => met.push([channel, null]));
  room.on("subscribed", () => subscribed++);
}

window.writing = false;
/** Publishes until `on` is false. */
window.write = async (pause) => {
  window.on = writing = true;
  // A name of its own for each load of the page.
  for (let number = 0, load = Math.random().toString(36).slice(2, 8); on; number++) {
    const room = rooms[number % rooms.length];
    const name = `${user}:${load}:${number}`;
    await began(room.name, name); // Node has recorded it before it begins
    const outcome = await room.publish(name, { timeout }).then(() => "acknowledged", ({ code }) => code);
    await ended(name, outcome);
    await new Promise((resolve) => setTimeout(resolve, Math.random() * pause));
  }
  writing = false;
};
