// Source as units, as streamllm/units.py has them: words, or characters that carry the white space before them.

// White space as Python has it; a unit holds none, so both sides count alike.
const SPACE = /[\s\x1c-\x1f\x85]/u;
const SPACES = /[\s\x1c-\x1f\x85]+/u;

/** The units of a text. */
export function split(text, unit) {
  if (unit === "word") return text.split(SPACES).filter(Boolean);
  return [...text].filter((char) => !SPACE.test(char));
}

/** The text of some units. */
export const join = (units, unit) => units.join(unit === "word" ? " " : "");

/** The units of a text as they are sent; `before`: what of the sentence comes before it. */
export function pieces(text, unit, before = "") {
  if (unit === "word") return split(text, unit);
  const found = [];
  let space = before !== "" && SPACE.test(before.slice(-1));
  for (const char of text) {
    if (SPACE.test(char)) space = true;
    else {
      found.push(space && (found.length > 0 || split(before, unit).length > 0) ? ` ${char}` : char);
      space = false;
    }
  }
  return found;
}

/** What of a text that is being typed is whole, and what is not yet: of words, the one that has no space behind it. */
export function whole(text, unit) {
  if (unit === "character") return [text, ""];
  let end = text.length;
  while (end > 0 && !SPACE.test(text[end - 1])) end -= 1;
  return [text.slice(0, end), text.slice(end)];
}

const ENDING = /[.!?…。！？｡؟।።]["'”’»)\]」』]*$/u;
const ABBREVIATED = new RegExp(
  "^[\"'“‘„«(\\[]*([A-Za-zÄÖÜ]|Mrs?|Ms|Drs?|Prof|St|Sr|Jr|Sra|Mme|vs|No|Nr|Fig|Inc|Ltd|Co|Gen|Lt|Sgt|Capt|Rev|Hon"
  + "|e\\.g|i\\.e|z\\.B|d\\.h|u\\.a|bzw|ca|approx|p\\.ex)\\.$", "u");

/** Whether a sentence ends with this unit: it ends in such punctuation, and is no common abbreviation. */
export function endsSentence(unit) {
  const text = unit.trim();
  return ENDING.test(text) && !ABBREVIATED.test(text);
}
