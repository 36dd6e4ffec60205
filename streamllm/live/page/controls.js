// The policy of the next sentence: of those that the service offers, with numbers in their ranges.

const $ = (id) => document.getElementById(id);

/** A policy in words, such as "waitk, k = 3". */
export function labelOf({ name, ...numbers }) {
  return [name, ...Object.entries(numbers).map(([key, value]) => `${key} = ${value}`)].join(", ");
}

export class Controls {
  /** @param wanted is told what was chosen, to ask the service for it */
  constructor(wanted) {
    Object.assign(this, { wanted, policies: {}, policy: null, documents: false });
    $("policy").addEventListener("submit", (event) => event.preventDefault());
    $("policy-name").addEventListener("change", () => wanted({ name: $("policy-name").value }));
    $("numbers").addEventListener("change", () => {
      const inputs = [...$("numbers").querySelectorAll("input")];
      if (!inputs.every((input) => input.reportValidity())) return;
      const numbers = Object.fromEntries(inputs.map((input) => [input.name, input.valueAsNumber]));
      wanted({ name: $("policy-name").value, ...numbers });
    });
  }

  /** What the service offers, and what it begins with. What was chosen before stays, if it still may be. */
  offer(policies, first) {
    this.policies = policies;
    $("policies").hidden = false;
    $("numbers").replaceChildren();
    $("policy-name").replaceChildren(...Object.keys(policies).map((name) => new Option(name)));
    const before = this.policy;
    this.choose(first);
    if (before && before.name in policies && JSON.stringify(before) !== JSON.stringify(first)) this.wanted(before);
  }

  /** The service has taken it. */
  choose(policy) {
    const changed = this.policy !== null && labelOf(this.policy) !== labelOf(policy);
    this.policy = policy;
    $("policy-name").value = policy.name;
    const { name, ...numbers } = policy;
    const offered = Object.entries(this.policies[name] ?? {});
    const [now, wanted] = [[...$("numbers").querySelectorAll("input")], offered.map(([key]) => `${name} ${key}`)];
    if (now.map((input) => input.dataset.number).join() !== wanted.join()) // else the one with the focus stays
      $("numbers").replaceChildren(...offered.map(([key, range]) => field(name, key, range)));
    for (const input of $("numbers").querySelectorAll("input")) input.value = numbers[input.name];
    this.say(changed ? `${labelOf(policy)} from the next ${this.documents ? "document" : "sentence"} on` : "");
  }

  refuse(message) {
    this.choose(this.policy);
    this.say(message);
  }

  say(text) {
    $("policy-hint").textContent = text || `of the next ${this.documents ? "document" : "sentence"}`;
  }
}

/** The input of a number: its name, and its range beside it. */
function field(policy, key, [least, most]) {
  const whole = Number.isInteger(least) && Number.isInteger(most) && most - least > 1;
  const input = document.createElement("input");
  Object.assign(input, { type: "number", name: key, required: true, min: least, max: most, step: whole ? 1 : "any" });
  input.dataset.number = `${policy} ${key}`;
  const range = document.createElement("small");
  range.textContent = `${least} to ${most}`;
  const label = document.createElement("label");
  label.append(key, input, range);
  return label;
}
