// The list of all utterances of one evaluation.

const rows = data.utterances.map(([id, path, speaker, duration, snr, fields, steps], place) => {
  const counts = { hit: 0, sub: 0, del: 0, ins: 0 };
  const reference = [];
  const hypothesis = [];
  const pairs = new Set();
  for (const step of steps) {
    if (step[0]) reference.push(step[0]);
    if (step[step.length - 1]) hypothesis.push(step[step.length - 1]);
    if (step.length === 1) counts.hit += unitsOf(step[0]).length;
    else {
      counts[kindOf(step)]++;
      pairs.add(step.join("\n"));
    }
  }
  const words = counts.hit + counts.sub + counts.del;
  const errors = counts.sub + counts.del + counts.ins;
  const text = reference.join(data.gap);
  return {
    place,
    id,
    path,
    speaker: data.speakers[speaker],
    speakerPlace: speaker,
    duration,
    snr,
    fields,
    steps,
    counts,
    pairs,
    words,
    errors,
    rate: words ? errors / words : errors ? Infinity : 0,
    text,
    clip: data.clips[place],
    // Both sentences as they read, so that a phrase is found across its errors.
    searched: [id, path, text, hypothesis.join(data.gap)].join("\n").toLowerCase(),
  };
});

const HAS = {
  "": () => true,
  wrong: (row) => row.errors > 0,
  right: (row) => row.errors === 0,
  sub: (row) => row.counts.sub > 0,
  del: (row) => row.counts.del > 0,
  ins: (row) => row.counts.ins > 0,
};
let confusion = null; // "reference\nhypothesis", one of a row's pairs

function bound(id, otherwise) {
  const value = part(id).valueAsNumber;
  return Number.isNaN(value) ? otherwise : value / 100;
}

// What the filters say, read once for all rows.
function accepts() {
  const wanted = part("search").value.trim().toLowerCase();
  const speaker = part("speaker").value;
  const hasKind = HAS[part("kind").value];
  const [low, high] = [bound("low", 0), bound("high", Infinity)];
  const onlyAudible = part("audible") && part("audible").checked;
  part("pair").hidden = !confusion;
  if (confusion) {
    const [reference, hypothesis] = confusion.split("\n");
    part("pair").textContent = `${reference || "—"} → ${hypothesis || "—"} ✕`;
  }
  return (row) =>
    (!wanted || row.searched.includes(wanted)) &&
    (speaker === "" || row.speakerPlace === Number(speaker)) &&
    hasKind(row) &&
    row.rate >= low &&
    row.rate <= high &&
    (!onlyAudible || row.clip !== undefined) &&
    (!confusion || row.pairs.has(confusion));
}

function clearFilters() {
  for (const id of ["search", "speaker", "kind", "low", "high"]) part(id).value = "";
  if (part("audible")) part("audible").checked = false;
  confusion = null;
}

function cells(row) {
  return [
    cell(row.speaker, "speaker"),
    cell(row.duration.toFixed(1), "duration"),
    cell(String(row.words), "words"),
    cell(String(row.errors), "errors"),
    cell(percent(row.rate), "rate"),
    transcript(row.steps),
  ];
}

function facts(row) {
  const made = node("p", undefined, "meta");
  const known = data.fields.map((field, at) => [field.name, field.values[row.fields[at]]]);
  if (row.snr !== null) known.push(["SNR", `${row.snr} dB`]);
  for (const [name, value] of known) {
    if (value !== undefined) made.append(node("bdi", name), " ", node("bdi", value), " · ");
  }
  made.append(node("bdi", row.path, "path"));
  return made;
}

function detail(row) {
  const made = [facts(row), alignment(row.steps)];
  if (row.clip) made.push(makePlayer(row.clip, row.id, row.steps));
  return made;
}

data.speakers.forEach((name, place) => {
  const option = node("option", name);
  option.value = String(place);
  part("speaker").append(option);
});
const list = new PagedList({ rows, key: "errors", descending: true, accepts, cells, detail, clear: clearFilters });

part("pair").addEventListener("click", () => {
  confusion = null;
  list.select();
  part("search").focus();
});
// Links of the page that are a filter: a speaker, a confusion. They lead to the list anyway.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-speaker], a[data-reference]");
  if (!link) return;
  clearFilters();
  if (link.dataset.speaker === undefined) {
    confusion = `${link.dataset.reference}\n${link.dataset.hypothesis}`;
  } else {
    const place = data.speakers.indexOf(link.dataset.speaker || data.noSpeaker);
    part("speaker").value = String(place);
  }
  list.select();
});
for (const place of document.querySelectorAll("[data-clip]")) {
  const row = rows[Number(place.dataset.clip)];
  place.append(makePlayer(row.clip, row.id, row.steps));
}
