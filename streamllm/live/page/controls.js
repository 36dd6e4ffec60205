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
      wanted({ name: $("policy-name").value, ...Object.fromEntries(inputs.map((input) => [input.name, input.valueAsNumber])) });
    });
  }

  /** What the service offers, and what it begins with. What was chosen before stays, if it still may be. */
  offer(policies, first) {
    this.policies = policies;
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
    const kept = new Map([...$("numbers").querySelectorAll("input")].map((input) => [`${input.dataset.of} ${input.name}`, input]));
    const fields = Object.entries(this.policies[name] ?? {}).map(([key, [least, most]]) => {
      const input = kept.get(`${name} ${key}`) ?? Object.assign(document.createElement("input"), { type: "number", name: key, required: true });
      const whole = Number.isInteger(least) && Number.isInteger(most) && most - least > 1;
      Object.assign(input, { min: least, max: most, step: whole ? 1 : "any" });
      input.dataset.of = name;
      input.value = numbers[key];
      const label = document.createElement("label");
      const range = document.createElement("small");
      range.textContent = `${least} to ${most}`;
      label.append(key, input, range);
      return kept.has(`${name} ${key}`) ? input.parentElement : label;
    });
    if (fields.some((field) => !field.isConnected) || $("numbers").children.length !== fields.length) $("numbers").replaceChildren(...fields);
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
