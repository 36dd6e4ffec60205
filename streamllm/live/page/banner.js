// The state of the connection: a word in the head, and below it what is wrong and what to do.

import { FAULTS } from "./faults.js";

const $ = (id) => document.getElementById(id);

/** The token, which is kept until the tab is closed. */
export const token = () => sessionStorage.getItem("token") ?? "";

export class Banner {
  /** @param connect is called when it is told to connect at once */
  constructor(connect) {
    this.countdown = null;
    $("again").addEventListener("click", connect);
    $("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", $("token").value);
      $("token").value = "";
      connect();
      $("box").focus();
    });
  }

  /** @param state of a `Connection` */
  show(state) {
    const { name, fault } = state;
    clearInterval(this.countdown);
    const texts = { connecting: "Connecting …", open: `Connected: ${state.stream}`, asleep: "Asleep" };
    $("state").dataset.state = name;
    $("state-text").textContent = texts[name] ?? "Not connected";
    const asks = fault?.code === "token" && name === "stopped";
    const wrong = asks && token() !== "";
    if (wrong) sessionStorage.removeItem("token");
    const told = fault && (FAULTS[fault.code] ?? { title: `The stream was closed: ${fault.code}`, todo: "" });
    $("fault").hidden = !told;
    if (told) {
      say("fault-title", `${wrong ? "This is not the service's token" : told.title}.`);
      say("fault-todo", told.todo);
      say("fault-message", fault.message && fault.code !== "token" ? `(${fault.message})` : "");
    }
    $("again").hidden = name !== "waiting" && (name !== "stopped" || asks);
    $("token-form").hidden = !asks;
    if (asks) $("token").focus();
    const left = () => Math.max(1, Math.ceil((state.at - Date.now()) / 1000));
    const count = () => { $("fault-wait").textContent = name === "waiting" ? `Next attempt in ${left()} s` : ""; };
    count();
    if (name === "waiting") this.countdown = setInterval(count, 500);
  }
}

/** Only what has changed is read out. */
function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}
