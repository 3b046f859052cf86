// A list of any length: filtered, sorted, one page of its rows in the document at a time.

const PAGE_SIZE = 50;
const collator = new Intl.Collator(undefined, { numeric: true });

function cell(content, className) {
  const made = node("td", content, className);
  made.setAttribute("role", "cell");
  return made;
}

class PagedList {
  // rows: with their place among all, and an id; key, descending: of the first order; accepts:
  // gives a function that says whether a row is shown; cells: of a row, after its name; detail:
  // what opens below it; clear: takes every filter off.
  constructor({ rows, key, descending, accepts, cells, detail, clear }) {
    Object.assign(this, { rows, key, descending, accepts, cells, detail, clear });
    this.page = 0;
    this.shown = rows;
    this.open = new Set();
    this.orders = new Map();
    this.body = document.querySelector("table.list tbody");
    this.heads = [...document.querySelectorAll("table.list thead button")];
    for (const head of this.heads) head.addEventListener("click", () => this.sortBy(head.dataset.key));
    for (const control of document.querySelectorAll(".filters :is(input, select)")) {
      control.addEventListener("input", () => this.select());
    }
    part("previous").addEventListener("click", () => this.turn(-1));
    part("next").addEventListener("click", () => this.turn(1));
    part("clear").addEventListener("click", () => {
      this.clear();
      this.select();
    });
    this.body.addEventListener("click", (event) => {
      const button = event.target.closest("button.open");
      if (button) this.toggle(button);
    });
    this.body.addEventListener("keydown", (event) => this.walk(event));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.target.closest("input, select")) return;
      part("search").focus();
      event.preventDefault();
    });
    window.addEventListener("hashchange", () => this.openNamed());
    part("browser").hidden = false;
    this.select();
    this.openNamed();
  }

  // All rows in the order of a column, sorted once: ten thousand ids take a while to compare.
  ordered() {
    const key = this.key;
    if (!this.orders.has(key)) {
      const numeric = typeof this.rows[0][key] === "number";
      const order = (a, b) => {
        if (!numeric) return collator.compare(a[key], b[key]);
        return a[key] < b[key] ? -1 : a[key] > b[key] ? 1 : 0;
      };
      this.orders.set(key, [...this.rows].sort((a, b) => order(a, b) || a.place - b.place));
    }
    if (!this.descending) return this.orders.get(key);
    // From the largest down, and equal ones in the order of the manifest still.
    const groups = [];
    for (const row of this.orders.get(key)) {
      const last = groups[groups.length - 1];
      if (last && last[0][key] === row[key]) last.push(row);
      else groups.push([row]);
    }
    return groups.reverse().flat();
  }

  select() {
    this.shown = this.ordered().filter(this.accepts());
    this.page = 0;
    this.draw();
  }

  draw() {
    const count = this.shown.length;
    const start = this.page * PAGE_SIZE;
    const end = Math.min(start + PAGE_SIZE, count);
    const made = [];
    for (const row of this.shown.slice(start, end)) {
      made.push(this.line(row));
      if (this.open.has(row.place)) made.push(this.opened(row));
    }
    this.body.replaceChildren(...made);
    dropDetachedPlayers();
    const of = count.toLocaleString("en") + (count === 1 ? " utterance" : " utterances");
    part("range").textContent = count ? `${start + 1} to ${end} of ${of}` : "No utterance matches";
    part("previous").disabled = this.page === 0;
    part("next").disabled = end >= count;
    for (const head of this.heads) {
      const header = head.closest("th");
      if (head.dataset.key !== this.key) header.removeAttribute("aria-sort");
      else header.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
    }
  }

  line(row) {
    const made = node("tr", undefined, "utterance");
    made.setAttribute("role", "row");
    const name = node("th", undefined, "id");
    name.scope = "row";
    name.setAttribute("role", "rowheader");
    const button = node("button", undefined, "open");
    button.type = "button";
    button.dataset.place = row.place;
    button.setAttribute("aria-expanded", String(this.open.has(row.place)));
    button.setAttribute("aria-controls", `detail-${row.place}`);
    button.append(node("bdi", row.id));
    if (row.clip) button.append(node("span", " ♪"), node("span", " with sound", "aside"));
    name.append(button);
    made.append(name, ...this.cells(row));
    return made;
  }

  opened(row) {
    const made = node("tr", undefined, "detail");
    made.setAttribute("role", "row");
    made.id = `detail-${row.place}`;
    const inside = cell();
    inside.colSpan = this.heads.length;
    inside.append(...this.detail(row));
    made.append(inside);
    return made;
  }

  toggle(button) {
    const row = this.rows[Number(button.dataset.place)];
    const isOpen = this.open.has(row.place);
    button.setAttribute("aria-expanded", String(!isOpen));
    if (isOpen) {
      this.open.delete(row.place);
      part(`detail-${row.place}`).remove();
      dropDetachedPlayers();
    } else {
      this.open.add(row.place);
      button.closest("tr").after(this.opened(row));
    }
  }

  sortBy(key) {
    const numeric = typeof this.rows[0][key] === "number";
    this.descending = this.key === key ? !this.descending : numeric;
    this.key = key;
    this.select();
  }

  turn(pages) {
    this.page += pages;
    this.draw();
    part("utterances").scrollIntoView();
  }

  // Up and down go from name to name.
  walk(event) {
    const button = event.target.closest("button.open");
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!button || !step) return;
    const all = [...this.body.querySelectorAll("button.open")];
    const next = all[all.indexOf(button) + step];
    if (next) next.focus();
    event.preventDefault();
  }

  // #utt=<id> opens that utterance: how pages name one to each other.
  openNamed() {
    if (!location.hash.startsWith("#utt=")) return;
    const id = decodeURIComponent(location.hash.slice(5));
    const row = this.rows.find((each) => each.id === id);
    if (!row) return;
    this.clear();
    this.open.add(row.place);
    this.select();
    this.page = Math.floor(this.shown.indexOf(row) / PAGE_SIZE);
    this.draw();
    const button = this.body.querySelector(`[data-place="${row.place}"]`);
    button.focus({ preventScroll: true });
    button.scrollIntoView({ block: "center" });
  }
}
