// A WebSocket as a wire: whole frames, both ways.

export const openSocket = (base, _token, WebSocket, { _open, _frame, _close }) => {
  const socket = new WebSocket(`${base.replace(/^http/, "ws")}ws`, ["fanfare.v1"]);
  socket.onopen = _open;
  socket.onmessage = ({ data }) => _frame(JSON.parse(data));
  socket.onclose = ({ code, reason }) => _close({ code, text: reason });
  return {
    _kind: "websocket",
    _send(frame) {
      if (socket.readyState !== 1) return 0;
      const text = JSON.stringify(frame);
      socket.send(text);
      return text.length;
    },
    _close: () => socket.close(),
  };
};
