// What goes wrong, in words, and what to do. Codes are those of docs/serve.md.

/**
 * `again`: the page connects anew by itself; "typed": once something is typed; false: only when it is told to.
 * `least`: milliseconds until then, at the least.
 */
export const FAULTS = {
  token: { title: "The service wants a token", todo: "Ask whoever runs it, and type it here.", again: false },
  origin: { title: "This page may not connect",
    todo: "Whoever runs the service has to name its address in origins: streamllm serve origins=[…].", again: false },
  full: { title: "All places are taken", todo: "Your text waits here until one is free.", again: true, least: 5000 },
  idle: { title: "The stream was closed, since nothing came for a while", todo: "It opens again with the next word.",
    again: "typed" },
  too_fast: { title: "Words came faster than the service takes them",
    todo: "They now go out more slowly; none is lost.", again: true, least: 2000 },
  too_slow: { title: "This page took its answers too slowly", todo: "A tab in the foreground is faster.", again: true },
  too_much: { title: "Too much text came at once", todo: "End words with a space.", again: true },
  too_long: { title: "A message was too long for the service", todo: "Send shorter words.", again: false },
  bad_message: { title: "The service did not understand this page", todo: "Reload it: the service may be newer.",
    again: false },
  binary: { title: "The service did not understand this page", todo: "Reload it: the service may be newer.",
    again: false },
  version: { title: "The service speaks another version of the protocol", todo: "Reload this page.", again: false },
  shutdown: { title: "The service has ended", todo: "Your text is kept, and goes on when it is back.", again: true },
  lost: { title: "No connection to the service", todo: "Your text is kept, and goes on when it is back.", again: true },
};

/** Faults that leave the stream open. */
export const PASSING = {
  wrong_choice: "The service does not offer this policy.",
  sentence_failed: "This sentence could not be translated. Go on with the next one.",
};

/** What a close means that no error came before. */
export function faultOfClose(code) {
  return { 1001: "shutdown", 1012: "shutdown", 1009: "too_long", 1013: "full" }[code] ?? "lost";
}

/** Milliseconds until the next attempt, of which `failed` have failed: 0.5, 1, 2, 4, 8, then 15 seconds. */
export function backoff(failed, least = 0) {
  return Math.max(least, Math.min(15000, 500 * 2 ** failed));
}
