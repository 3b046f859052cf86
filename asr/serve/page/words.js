// The words of a recording, as they are shown, walked, corrected and undone.

const SURE = 0.8; // confidence from which a word is not marked
const DOUBT = 0.5; // below which it is marked strongly

export const clock = (seconds) => {
  const whole = Math.floor(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
};

const percent = (share) => `${Math.round(100 * share)} % sure`;

export class Words extends EventTarget {
  segments = []; // as the server tells them: start, end, speaker, words
  chosen = null; // the span of the word that the keys act on
  undone = []; // copies of the segments before each change

  // `box` is where they are written. Events: "choose", "play" (detail: seconds), "change".
  constructor(box) {
    super();
    this.box = box;
    box.addEventListener("click", ({ target }) => this.clicked(target));
    box.addEventListener("dblclick", ({ target }) => target.matches(".word") && this.edit(target));
    box.addEventListener("keydown", (event) => this.pressed(event));
    box.addEventListener("focusin", ({ target }) => target.matches(".word") && this.choose(target));
  }

  get isCorrected() {
    return this.undone.length > 0;
  }

  get text() {
    return this.segments.map((segment) => joined(segment.words)).join("\n");
  }

  get spans() {
    return [...this.box.querySelectorAll(".segment:not(.coming) .word")];
  }

  get unsure() {
    return this.spans.filter((span) => span.classList.contains("unsure"));
  }

  set(segments) {
    this.segments = segments;
    this.undone = [];
    this.write();
  }

  // A segment that has ended.
  add(segment) {
    this.segments.push(segment);
    this.box.querySelector(".coming")?.remove();
    this.box.append(this.paragraph(segment, this.segments.length - 1));
  }

  // What is known so far of the segment that is being spoken.
  show(segment) {
    this.box.querySelector(".coming")?.remove();
    if (!segment?.words.length) return;
    const paragraph = this.paragraph(segment, -1);
    paragraph.classList.add("coming");
    this.box.append(paragraph);
  }

  // Write all of them anew; keeps the place in them.
  write(chosen = null) {
    this.chosen = null;
    this.box.replaceChildren(...this.segments.map((segment, k) => this.paragraph(segment, k)));
    const first = this.spans[0];
    if (first) first.tabIndex = 0;
    if (chosen) this.nearest(...chosen)?.focus();
    this.dispatchEvent(new Event("choose"));
  }

  paragraph(segment, number) {
    const paragraph = document.createElement("p");
    paragraph.className = "segment";
    paragraph.dir = "auto";
    const margin = document.createElement("span");
    margin.className = "margin";
    margin.textContent = clock(segment.start) + (segment.speaker ? ` ${segment.speaker}` : "");
    paragraph.append(margin);
    segment.words.forEach((word, k) => {
      if (k > 0 && !word.is_joined) paragraph.append(" ");
      paragraph.append(this.span(word, number, k));
    });
    return paragraph;
  }

  span(word, segment, k) {
    const span = document.createElement("span");
    span.className = "word";
    span.role = "button";
    span.tabIndex = -1;
    span.textContent = word.word;
    Object.assign(span.dataset, { segment, k, start: word.start, end: word.end });
    if (word.is_corrected) span.classList.add("corrected");
    else if (word.confidence < SURE) {
      span.classList.add("unsure");
      if (word.confidence < DOUBT) span.classList.add("doubt");
    }
    span.ariaLabel = `${word.word}, ${this.sureness(word)}`;
    return span;
  }

  sureness(word) {
    return word.is_corrected ? "by hand" : percent(word.confidence);
  }

  // The word at a place, or else the last one before it, or the first.
  nearest(segment, k) {
    const isBefore = ({ dataset }) =>
      Number(dataset.segment) < segment || (Number(dataset.segment) === segment && Number(dataset.k) <= k);
    return this.spans.findLast(isBefore) ?? this.spans[0];
  }

  wordOf(span) {
    return this.segments[span.dataset.segment]?.words[span.dataset.k];
  }

  // What is told of the chosen word.
  get about() {
    const word = this.chosen && this.wordOf(this.chosen);
    if (!word) return null;
    return `${word.word} · ${this.sureness(word)} · ${word.start.toFixed(2)} to ${word.end.toFixed(2)} s`;
  }

  choose(span) {
    for (const other of this.box.querySelectorAll('.word[tabindex="0"]')) other.tabIndex = -1;
    this.chosen?.classList.remove("chosen");
    span.tabIndex = 0;
    span.classList.add("chosen");
    this.chosen = span;
    this.dispatchEvent(new Event("choose"));
  }

  clicked(target) {
    if (!target.matches(".segment:not(.coming) .word")) return;
    target.focus();
    this.play(target);
  }

  play(span = this.chosen) {
    if (span) this.dispatchEvent(new CustomEvent("play", { detail: Number(span.dataset.start) }));
  }

  // Go on from the chosen word by so many words.
  step(by, spans = this.spans) {
    if (!spans.length) return;
    const all = this.spans;
    const here = this.chosen ? all.indexOf(this.chosen) : -1;
    const places = spans.map((span) => all.indexOf(span));
    let next = by > 0 ? places.findIndex((place) => place > here) : places.findLastIndex((place) => place < here);
    if (next < 0) next = by > 0 ? spans.length - 1 : 0;
    spans[next].focus();
  }

  pressed(event) {
    if (event.target.matches("input")) return; // a word that is being corrected
    if ((event.ctrlKey || event.metaKey) && event.key === "z") this.undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const isForward = (event.key === "ArrowRight") !== this.box.matches(":has(:dir(rtl))");
      this.step(isForward ? 1 : -1);
    } else if (event.key === "Home") this.spans.at(0)?.focus();
    else if (event.key === "End") this.spans.at(-1)?.focus();
    else if (event.key === "n") this.step(1, this.unsure);
    else if (event.key === "p") this.step(-1, this.unsure);
    else if (event.key === " ") this.dispatchEvent(new Event("toggle"));
    else if (event.key === "Enter" || event.key === "F2") this.edit();
    else if (event.key === "Delete" || event.key === "Backspace") this.remove();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Let the user write another word, or several, in its place.
  edit(span = this.chosen) {
    if (!span || !this.wordOf(span)) return;
    const input = document.createElement("input");
    input.value = span.textContent;
    input.size = Math.max(3, input.value.length + 1);
    input.ariaLabel = `Correct ${input.value}`;
    input.autocapitalize = "off";
    input.spellcheck = true;
    const segment = Number(span.dataset.segment);
    const k = Number(span.dataset.k);
    let isOver = false;
    const end = (isKept, by) => {
      if (isOver) return;
      isOver = true;
      const count = isKept ? this.replace(segment, k, input.value) : null;
      if (count === null) this.write([segment, k]);
      if (by) this.step(by);
    };
    input.addEventListener("input", () => (input.size = Math.max(3, input.value.length + 1)));
    input.addEventListener("blur", () => end(true, 0));
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") end(false, 0);
      else if (event.key === "Enter" || event.key === "Tab") {
        if (event.ctrlKey || event.metaKey) {
          end(true, 0);
          return this.dispatchEvent(new Event("accept"));
        }
        end(true, event.shiftKey ? -1 : 1);
      } else return;
      event.preventDefault();
    });
    span.replaceWith(input);
    input.focus();
    input.select();
  }

  remove() {
    if (!this.chosen) return;
    this.replace(Number(this.chosen.dataset.segment), Number(this.chosen.dataset.k), "");
  }

  // Put a text where a word was; several words share its time by their length. Returns how many, or
  // null where nothing changed.
  replace(segment, k, text) {
    const words = this.segments[segment].words;
    const old = words[k];
    const parts = text.trim().split(/\s+/u).filter(Boolean);
    if (parts.length === 1 && parts[0] === old.word) return null;
    this.undone.push(structuredClone(this.segments));
    const letters = parts.reduce((sum, part) => sum + part.length, 0);
    let at = old.start;
    const made = parts.map((word, n) => {
      const start = at;
      at += ((old.end - old.start) * word.length) / letters;
      const is_joined = n === 0 && old.is_joined;
      return { word, start, end: at, confidence: 1, is_corrected: true, ...(is_joined && { is_joined }) };
    });
    words.splice(k, 1, ...made);
    if (!words.length) this.segments.splice(segment, 1);
    this.write([segment, k + made.length - 1]);
    this.dispatchEvent(new Event("change"));
    return made.length;
  }

  undo() {
    const before = this.undone.pop();
    if (!before) return;
    const { segment, k } = this.chosen?.dataset ?? { segment: 0, k: 0 };
    this.segments = before;
    this.write([Number(segment), Number(k)]);
    this.dispatchEvent(new Event("change"));
  }

  // Mark the word that is heard at a time.
  heard(seconds) {
    for (const span of this.box.querySelectorAll(".heard")) span.classList.remove("heard");
    if (seconds === null) return;
    const span = this.spans.findLast((each) => Number(each.dataset.start) <= seconds);
    if (span && seconds <= Number(span.dataset.end) + 0.15) span.classList.add("heard");
  }
}

function joined(words) {
  return words.map((word, k) => (k > 0 && !word.is_joined ? " " : "") + word.word).join("");
}
