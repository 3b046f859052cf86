"use strict";

// Text from data reaches the page through textContent and option labels only, never as markup.
const PAGE_SIZE = 50;
const data = JSON.parse(document.getElementById("data").textContent);
const collator = new Intl.Collator(undefined, { numeric: true });

const rows = data.utterances.map(([id, path, speaker, duration, words, errors, steps]) => {
  const said = steps.map((step) => step[0]).filter(Boolean).join(" ");
  const heard = steps.map((step) => step[step.length - 1]).filter(Boolean).join(" ");
  return {
    id,
    path,
    speaker: data.speakers[speaker],
    speakerPlace: speaker,
    duration,
    words,
    errors,
    rate: words ? errors / words : errors ? Infinity : 0,
    steps,
    text: said,
    // Both sentences as they read, so that a phrase is found across its errors.
    searched: [id, path, said, heard].join("\n").toLowerCase(),
  };
});

const state = { key: "errors", descending: true, page: 0, shown: rows };
const part = (id) => document.getElementById(id);
const body = document.querySelector("table.list tbody");
const buttons = [...document.querySelectorAll("table.list thead button")];

function compare(a, b) {
  const [x, y] = [a[state.key], b[state.key]];
  const order = typeof x === "number" ? (x < y ? -1 : x > y ? 1 : 0) : collator.compare(x, y);
  return state.descending ? -order : order;
}

function select() {
  const wanted = part("search").value.trim().toLowerCase();
  const speaker = part("speaker").value;
  const onlyWrong = part("wrong").checked;
  state.shown = rows
    .filter((row) => !wanted || row.searched.includes(wanted))
    .filter((row) => speaker === "" || row.speakerPlace === Number(speaker))
    .filter((row) => !onlyWrong || row.errors > 0)
    .sort(compare);
  state.page = 0;
  draw();
}

function node(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function cell(content, className) {
  const made = node("td", content, className);
  made.setAttribute("role", "cell");
  return made;
}

function transcript(steps) {
  const made = cell(undefined, "text");
  made.dir = "auto";
  for (const [said, heard] of steps) {
    if (made.firstChild) made.append(" ");
    if (heard === undefined) {
      made.append(said);
      continue;
    }
    const kind = said && heard ? "sub" : said ? "del" : "ins";
    if (said) made.append(node("del", said, kind));
    if (said && heard) made.append(" ");
    if (heard) made.append(node("ins", kind === "ins" ? "+" + heard : heard, kind));
  }
  if (!made.firstChild) made.append(node("span", "(nothing said, nothing heard)", "more"));
  return made;
}

function line(row) {
  const made = node("tr");
  made.setAttribute("role", "row");
  const name = node("th", undefined, "id");
  name.scope = "row";
  name.setAttribute("role", "rowheader");
  name.append(node("bdi", row.id), node("bdi", row.path, "path"));
  const rate = row.rate === Infinity ? "∞" : (100 * row.rate).toFixed(1) + "\u202f%";
  made.append(
    name,
    cell(row.speaker, "speaker"),
    cell(row.duration.toFixed(1), "seconds"),
    cell(String(row.words), "words"),
    cell(String(row.errors), "errors"),
    cell(rate, "rate"),
    transcript(row.steps),
  );
  return made;
}

function draw() {
  const count = state.shown.length;
  const start = state.page * PAGE_SIZE;
  const end = Math.min(start + PAGE_SIZE, count);
  body.replaceChildren(...state.shown.slice(start, end).map(line));
  const of = count.toLocaleString("en") + (count === 1 ? " utterance" : " utterances");
  part("range").textContent = count ? `${start + 1} to ${end} of ${of}` : "No utterance matches";
  part("previous").disabled = state.page === 0;
  part("next").disabled = end >= count;
  for (const button of buttons) {
    const sorted = button.dataset.key === state.key;
    const header = button.closest("th");
    if (sorted) header.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
    else header.removeAttribute("aria-sort");
  }
}

function sortBy(key) {
  const numeric = typeof rows[0][key] === "number";
  state.descending = state.key === key ? !state.descending : numeric;
  state.key = key;
  select();
}

function turn(pages) {
  state.page += pages;
  draw();
  part("utterances").scrollIntoView();
}

data.speakers.forEach((name, place) => {
  const option = node("option", name);
  option.value = String(place);
  part("speaker").append(option);
});
for (const button of buttons) button.addEventListener("click", () => sortBy(button.dataset.key));
for (const id of ["search", "speaker", "wrong"]) part(id).addEventListener("input", select);
part("previous").addEventListener("click", () => turn(-1));
part("next").addEventListener("click", () => turn(1));
part("browser").hidden = false;
select();
