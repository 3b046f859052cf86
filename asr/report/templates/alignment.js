// Steps of an alignment: [right words], [reference, hypothesis], with an empty text for what is absent.

const MARKS = { sub: ["S", "substituted"], del: ["D", "deleted"], ins: ["I", "inserted"] };

// The units of a text of right ones: words, or characters that stand beside each other.
function unitsOf(text) {
  return data.gap ? text.split(data.gap) : [...text];
}

// The kind of error of a step that is none of right words.
function kindOf([reference, hypothesis]) {
  return reference && hypothesis ? "sub" : reference ? "del" : "ins";
}

// The kind of each word of one text (0 reference, 1 hypothesis), in order.
function kindsOf(steps, place) {
  const kinds = [];
  for (const step of steps) {
    if (step.length === 1) kinds.push(...unitsOf(step[0]).map(() => "hit"));
    else if (step[place]) kinds.push(kindOf(step));
  }
  return kinds;
}

// Reference over hypothesis, word by word, each error with its letter.
function alignment(steps) {
  const made = node("div", undefined, "alignment");
  made.dir = "auto";
  for (const [reference, hypothesis] of steps) {
    if (hypothesis === undefined) {
      for (const word of unitsOf(reference)) made.append(pair(word, word, "hit"));
    } else made.append(pair(reference, hypothesis, kindOf([reference, hypothesis])));
  }
  return made;
}

function pair(reference, hypothesis, kind) {
  const made = node("span", undefined, `pair ${kind}`);
  made.append(node("span", reference || "—", "reference"), node("span", hypothesis || "—", "hypothesis"));
  if (kind in MARKS) {
    const mark = node("b", MARKS[kind][0]);
    mark.append(node("span", MARKS[kind][1].slice(1), "aside"));
    made.append(mark);
  }
  return made;
}

function percent(rate) {
  return rate === Infinity ? "∞" : (100 * rate).toFixed(1) + "\u202f%";
}

// Both texts in one line of a table: the reference in place of each error, and the hypothesis.
function transcript(steps) {
  const made = node("td", undefined, "text");
  made.setAttribute("role", "cell");
  made.dir = "auto";
  made.append(...inline(steps));
  return made;
}

function inline(steps) {
  const made = [];
  for (const [reference, hypothesis] of steps) {
    if (made.length) made.push(data.gap);
    if (hypothesis === undefined) {
      made.push(reference);
      continue;
    }
    const kind = kindOf([reference, hypothesis]);
    if (reference) made.push(node("del", reference, kind));
    if (reference && hypothesis) made.push(data.gap);
    if (hypothesis) made.push(node("ins", kind === "ins" ? "+" + hypothesis : hypothesis, kind));
  }
  return made.length ? made : [node("span", "(no reference, no hypothesis)", "more")];
}
