// A component with both hooks, in strict mode, which runs every effect twice.

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { connect } from "../../fanfare.js";
import { useChannel, useConnection } from "../../react.js";

const fan = connect(location.search.slice(1));

const App = () => {
  const state = useConnection(fan);
  const { messages, lost, publish } = useChannel(fan, "react", { last: 10 });
  return (
    <>
      <p>state: {state}</p>
      <p>lost: {lost}</p>
      <p>
        {messages.length} {messages.length === 1 ? "message" : "messages"}: {messages.map(({ data }) => data).join(", ")}
      </p>
      <button onClick={() => publish("from react")}>publish</button>
    </>
  );
};

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
