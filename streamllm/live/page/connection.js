// The socket: it opens, says who we are, and opens again by itself where that may help.

import { FAULTS, PASSING, backoff, faultOfClose } from "./faults.js";

export const VERSION = 1;
const PATIENCE = 15000; // milliseconds until the service has to have said something

export class Connection {
  /**
   * @param address of the service's socket
   * @param token says what to show as token, "" for none
   * @param heard is told each message once the stream is open, session.created first
   * @param changed is told when `state` has changed: its name, "connecting", "open", "waiting" (until `at`, in
   *   milliseconds of Date.now), "asleep" (until something is typed) or "stopped"; with the fault that led there
   */
  constructor(address, token, heard, changed) {
    Object.assign(this, { address, token, heard, changed, failed: 0, socket: null, timer: null });
    this.state = { name: "stopped" };
    addEventListener("online", () => this.state.name === "waiting" && this.open());
  }

  get isOpen() {
    return this.state.name === "open";
  }

  open() {
    clearTimeout(this.timer);
    if (this.socket) return;
    const socket = new WebSocket(this.address);
    this.socket = socket;
    this.fault = null;
    this.set({ name: "connecting", again: this.state.fault !== undefined, fault: this.state.fault });
    this.timer = setTimeout(() => socket.close(), PATIENCE);
    // Without a token, too: a service that wants one then says so at once.
    socket.onopen = () => this.say({ type: "session.update", token: this.token() });
    socket.onmessage = ({ data }) => this.socket === socket && this.take(JSON.parse(data));
    socket.onclose = ({ code }) => this.socket === socket && this.closed(this.fault ?? { code: faultOfClose(code) });
  }

  say(message) {
    this.socket.send(JSON.stringify(message));
  }

  take(message) {
    if (message.type === "error" && !(message.code in PASSING)) {
      this.fault = { code: message.code, message: message.message };
      return;
    }
    if (message.type === "session.created") {
      clearTimeout(this.timer);
      if (message.protocol !== VERSION) {
        this.socket.close();
        this.closed({ code: "version" });
        return;
      }
      this.failed = 0;
      this.set({ name: "open", stream: message.stream });
    }
    this.heard(message);
  }

  closed(fault) {
    clearTimeout(this.timer);
    this.socket = null;
    const { again, least } = FAULTS[fault.code] ?? { again: false };
    if (again === true) {
      const wait = backoff(this.failed, least);
      this.failed += 1;
      this.timer = setTimeout(() => this.open(), wait);
      this.set({ name: "waiting", fault, at: Date.now() + wait });
    } else {
      this.set({ name: again === "typed" ? "asleep" : "stopped", fault });
    }
  }

  set(state) {
    this.state = state;
    this.changed(state);
  }
}
