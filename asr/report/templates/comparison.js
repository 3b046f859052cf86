// The list of a comparison: each utterance as A recognised it and as B did.

let second = 1; // place of the system that is B

const rows = data.utterances.map(([id, speaker, duration, words, errors, steps], place) => {
  const texts = steps.map((each) => each.map((step) => step[step.length - 1]).filter(Boolean).join(data.gap));
  const reference = steps[0].map((step) => step[0]).filter(Boolean).join(data.gap);
  return {
    place,
    id,
    speaker,
    duration,
    words,
    errors,
    steps,
    texts,
    first: errors[0],
    text: reference,
    searched: [id, reference, ...texts].join("\n").toLowerCase(),
  };
});

function chooseSecond() {
  second = Number(part("second").value);
  for (const row of rows) {
    row.second = row.errors[second];
    row.difference = row.second - row.first;
  }
}

const SHOWS = {
  "": () => true,
  better: (row) => row.difference < 0,
  worse: (row) => row.difference > 0,
  differ: (row) => row.texts[0] !== row.texts[second],
  both: (row) => row.first > 0 && row.second > 0,
};

function accepts() {
  const wanted = part("search").value.trim().toLowerCase();
  const shows = SHOWS[part("choice").value];
  return (row) => (!wanted || row.searched.includes(wanted)) && shows(row);
}

function clearFilters() {
  part("search").value = "";
  part("choice").value = "";
}

function signed(difference) {
  return difference > 0 ? `+${difference}` : difference < 0 ? `\u2212${-difference}` : "0";
}

function cells(row) {
  const text = node("td", undefined, "text");
  text.setAttribute("role", "cell");
  for (const [letter, place] of [["A", 0], ["B", second]]) {
    const line = node("div", undefined, "of");
    const content = node("span");
    content.dir = "auto";
    content.append(...inline(row.steps[place]));
    line.append(node("b", letter), " ", content);
    text.append(line);
  }
  const kind = row.difference < 0 ? "better" : row.difference > 0 ? "worse" : "";
  return [
    cell(row.speaker, "speaker"),
    cell(row.duration.toFixed(1), "duration"),
    cell(String(row.words), "words"),
    cell(String(row.first), "first"),
    cell(String(row.second), "second"),
    cell(signed(row.difference), `difference ${kind}`),
    text,
  ];
}

// Every system's alignment under the one before, each with a link to its own report.
function detail(row) {
  return data.systems.map((system, place) => {
    const made = node("div", undefined, "system");
    const title = node("p", undefined, "meta");
    const count = row.errors[place];
    title.append(node("b", system.name), ` · ${count} ${count === 1 ? "error" : "errors"}`);
    if (system.page) {
      const link = node("a", "in its report");
      link.href = `${system.page}#utt=${encodeURIComponent(row.id)}`;
      title.append(" · ", link);
    }
    made.append(title, alignment(row.steps[place]));
    return made;
  });
}

chooseSecond();
// What got better comes first, or else what got worse.
const anyBetter = rows.some((row) => row.difference < 0);
const list = new PagedList({ rows, key: "difference", descending: !anyBetter, accepts, cells, detail, clear: clearFilters });
part("second").addEventListener("input", () => {
  chooseSecond();
  for (const key of ["second", "difference"]) list.orders.delete(key);
  list.select();
});
