// Steps of an alignment: [right words], [said, heard], with an empty text for what is absent.

const MARKS = { sub: ["S", "substituted"], del: ["D", "deleted"], ins: ["I", "inserted"] };

// The kind of error of a step that is none of right words.
function kindOf([said, heard]) {
  return said && heard ? "sub" : said ? "del" : "ins";
}

// The kind of each word of one text (0 said, 1 heard), in order.
function kindsOf(steps, place) {
  const kinds = [];
  for (const step of steps) {
    if (step.length === 1) kinds.push(...step[0].split(" ").map(() => "hit"));
    else if (step[place]) kinds.push(kindOf(step));
  }
  return kinds;
}

// Said over heard, word by word, each error with its letter.
function alignment(steps) {
  const made = node("div", undefined, "alignment");
  made.dir = "auto";
  for (const [said, heard] of steps) {
    if (heard === undefined) {
      for (const word of said.split(" ")) made.append(pair(word, word, "hit"));
    } else made.append(pair(said, heard, kindOf([said, heard])));
  }
  return made;
}

function pair(said, heard, kind) {
  const made = node("span", undefined, `pair ${kind}`);
  made.append(node("span", said || "—", "said"), node("span", heard || "—", "heard"));
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

// Both texts in one line of a table: what was said in place of each error, and what was heard.
function transcript(steps) {
  const made = node("td", undefined, "text");
  made.setAttribute("role", "cell");
  made.dir = "auto";
  made.append(...inline(steps));
  return made;
}

function inline(steps) {
  const made = [];
  for (const [said, heard] of steps) {
    if (made.length) made.push(" ");
    if (heard === undefined) {
      made.push(said);
      continue;
    }
    const kind = kindOf([said, heard]);
    if (said) made.push(node("del", said, kind));
    if (said && heard) made.push(" ");
    if (heard) made.push(node("ins", kind === "ins" ? "+" + heard : heard, kind));
  }
  return made.length ? made : [node("span", "(nothing said, nothing heard)", "more")];
}
