// Recordings of a manifest, one after the other, the least certain first: right, corrected or skipped.

import { Recording } from "./recording.js";
import * as server from "./server.js";

const ASK_MS = 1000; // between two questions how far the training is
const at = (id) => document.getElementById(id);

class Review {
  constructor(box, items) {
    this.box = box;
    this.items = items;
    this.recording = null;
    this.seen = []; // items with a verdict, in order
    at("learn").addEventListener("click", () => this.learn());
  }

  get left() {
    return this.items.filter((item) => !item.status);
  }

  showProgress() {
    const done = this.items.length - this.left.length;
    at("progress").textContent = `${done} of ${this.items.length} reviewed`;
    at("share").max = this.items.length;
    at("share").value = done;
    at("learning").hidden = !this.items.some((item) => item.status === "accepted" || item.status === "corrected");
  }

  // Show an item, by itself the next without a verdict.
  async show(item = this.left[0]) {
    this.showProgress();
    if (!item) {
      this.recording = null;
      const end = document.createElement("p");
      end.className = "end";
      end.textContent = "All are reviewed and saved.";
      this.box.replaceChildren(end);
      at("learn").focus();
      return;
    }
    const recording = new Recording(item.name);
    this.recording = recording;
    recording.find(".close").hidden = true;
    recording.find(".review").hidden = false;
    recording.find(".accept").addEventListener("click", () => this.settle(item, true));
    recording.find(".skip").addEventListener("click", () => this.settle(item, false));
    recording.find(".back").hidden = this.seen.length === 0;
    recording.find(".back").addEventListener("click", () => this.show(this.seen.pop()));
    recording.words.addEventListener("accept", () => this.settle(item, true));
    recording.words.addEventListener("change", () => {
      recording.find(".accept").textContent = recording.words.isCorrected ? "Keep, next" : "Right, next";
    });
    this.box.replaceChildren(recording.article);
    try {
      recording.hold(await server.reviewAudio(item.id), item.duration);
    } catch (error) {
      recording.tell(error.message, true);
    }
    recording.finish(item.segments, item.duration);
    const { words } = recording;
    (words.unsure[0] ?? words.spans[0] ?? recording.find(".accept")).focus({ preventScroll: true });
  }

  async settle(item, isRight) {
    const { recording } = this;
    const isCorrected = recording.words.isCorrected || item.status === "corrected";
    const status = !isRight ? "skipped" : isCorrected ? "corrected" : "accepted";
    try {
      await server.reviewed(item.id, { status, text: recording.words.text.replaceAll("\n", " ") });
    } catch (error) {
      recording.tell(error.message, true);
      return;
    }
    item.status = status;
    item.segments = recording.words.segments;
    recording.isKept = true;
    recording.audio.pause();
    this.seen.push(item);
    await this.show();
  }

  async learn() {
    at("learn").disabled = true;
    at("log").hidden = false;
    try {
      let state = await server.learn();
      while (state.is_running) {
        this.showTraining(state);
        await new Promise((resolve) => setTimeout(resolve, ASK_MS));
        state = await server.learning();
      }
      this.showTraining(state);
    } catch (error) {
      at("learned").textContent = error.message;
    }
    at("learn").disabled = false;
  }

  showTraining({ is_running, told, lines }) {
    at("learned").textContent = is_running ? "learning …" : told;
    const log = at("log");
    log.textContent = lines.join("\n");
    log.scrollTop = log.scrollHeight;
  }
}

export async function openReview(box) {
  at("stage").hidden = true;
  at("review").hidden = false;
  document.body.classList.add("reviewing");
  const review = new Review(box, await server.reviewItems());
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") review.recording?.find(".accept").click();
  });
  await review.show();
}
