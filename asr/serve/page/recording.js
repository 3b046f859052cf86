// A recording on the page: its sound, its words, and what can be taken along.

import * as server from "./server.js";
import { Waveform } from "./waveform.js";
import { Words, clock } from "./words.js";

export class Recording {
  isKept = true; // nothing that was spoken or corrected is lost with the page

  constructor(name) {
    this.name = name;
    const made = document.getElementById("recording").content.cloneNode(true);
    this.article = made.querySelector("article");
    this.article.recording = this;
    this.find = (what) => this.article.querySelector(what);
    this.find("h2").textContent = name;
    this.find("h2").title = name;
    this.words = new Words(this.find(".words"));
    this.waveform = new Waveform(this.find("canvas"));
    this.audio = new Audio();
    this.connectPlayer();
    this.connectWords();
    this.connectDownloads();
    this.find(".close").addEventListener("click", () => this.remove());
  }

  tell(text, isTrouble = false) {
    const state = this.find(".state");
    state.textContent = text;
    state.classList.toggle("trouble", isTrouble);
  }

  connectPlayer() {
    const [play, position] = [this.find(".play"), this.find(".track input")];
    play.addEventListener("click", () => this.toggle());
    position.addEventListener("input", () => {
      this.audio.currentTime = Number(position.value);
      this.follow();
    });
    this.audio.addEventListener("loadedmetadata", () => {
      position.max = this.duration ?? this.audio.duration;
      this.follow();
    });
    for (const what of ["play", "pause", "ended", "seeked"]) {
      this.audio.addEventListener(what, () => this.follow());
    }
    this.audio.addEventListener("error", () => {
      if (this.audio.src) this.find(".player").hidden = true; // a format that browsers do not play
    });
  }

  // Show where the player is, for as long as it plays.
  follow() {
    const { audio } = this;
    const isPlaying = !audio.paused && !audio.ended;
    const length = this.duration ?? audio.duration ?? 0;
    const play = this.find(".play");
    play.classList.toggle("playing", isPlaying);
    play.ariaLabel = isPlaying ? "Pause" : "Play";
    const position = this.find(".track input");
    position.value = audio.currentTime;
    position.ariaValueText = `${clock(audio.currentTime)} of ${clock(length)}`;
    this.find(".time").textContent = `${clock(audio.currentTime)} / ${clock(length)}`;
    this.waveform.share = length ? audio.currentTime / length : 0;
    this.waveform.draw();
    this.words.heard(isPlaying ? audio.currentTime : null);
    if (isPlaying) requestAnimationFrame(() => this.follow());
  }

  toggle() {
    if (this.audio.paused) this.play(this.audio.ended ? 0 : this.audio.currentTime);
    else this.audio.pause();
  }

  play(seconds) {
    if (!this.audio.src) return;
    for (const article of document.querySelectorAll("article")) article.recording.audio.pause();
    this.audio.currentTime = seconds;
    this.audio.play().catch(() => {}); // told by its event
  }

  connectWords() {
    const { words } = this;
    words.addEventListener("play", ({ detail }) => this.play(detail));
    words.addEventListener("toggle", () => {
      if (this.audio.paused) words.play();
      else this.audio.pause();
    });
    words.addEventListener("choose", () => this.showChosen());
    words.addEventListener("change", () => (this.isKept = !words.isCorrected));
    this.find(".from").addEventListener("click", () => words.play());
    this.find(".correct").addEventListener("click", () => words.edit());
    this.find(".out").addEventListener("click", () => words.remove());
    this.find(".doubts").addEventListener("click", () => words.step(1, words.unsure));
  }

  showChosen() {
    const { about, unsure } = this.words;
    this.find(".tools").hidden = about === null;
    this.find(".about").textContent = about ?? "";
    const button = this.find(".doubts");
    button.hidden = unsure.length === 0;
    button.textContent = `${unsure.length} not sure: next`;
  }

  // What the words are, as the server writes it to files.
  get transcript() {
    const segments = this.words.segments.map(({ start, end, speaker, words }) => ({
      start,
      end,
      ...(speaker && { speaker }),
      words: words.map(({ is_corrected, ...word }) => word),
    }));
    return { name: this.name, duration: this.duration ?? 0, segments };
  }

  connectDownloads() {
    const copy = this.find(".copy");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(this.words.text);
        this.isKept = true;
        this.tell("copied");
      } catch {
        this.tell("The browser does not let the page copy.", true);
      }
    });
    const stem = this.name.replace(/\.[^.]*$/u, "");
    for (const button of this.article.querySelectorAll("[data-to]")) {
      const { to } = button.dataset;
      button.addEventListener("click", async () => {
        try {
          const text = await server.written(this.transcript, to);
          save(new Blob([text]), `${stem}.${to === "manifest" ? "jsonl" : to}`);
          this.isKept = true;
        } catch (error) {
          this.tell(error.message, true);
        }
      });
    }
    this.find(".audio").addEventListener("click", () => {
      save(this.sound, this.name);
      this.isKept ||= !this.words.isCorrected;
    });
  }

  // The sound is there: it can be played.
  hold(sound, duration = null) {
    this.sound = sound;
    this.duration = duration;
    this.audio.src = URL.createObjectURL(sound);
    this.find(".player").hidden = false;
    this.waveform.read(sound);
  }

  // The words are there: they can be corrected and taken along.
  finish(segments, duration) {
    this.duration = duration;
    this.words.set(segments);
    this.tell(segments.length ? "" : "no words were heard");
    this.find(".downloads").hidden = false;
    this.follow();
  }

  // Send a file, and show its words.
  async transcribe(file) {
    this.hold(file);
    this.article.ariaBusy = "true";
    this.tell("listening …");
    try {
      const { segments, duration } = await server.transcribe(file);
      this.finish(segments, duration);
    } catch (error) {
      this.tell(error.message, true);
    }
    this.article.ariaBusy = "false";
  }

  remove() {
    if (!this.isKept && !confirm(`Nothing of ${this.name} is downloaded. Remove it?`)) return;
    this.audio.pause();
    if (this.audio.src) URL.revokeObjectURL(this.audio.src);
    this.article.remove();
  }
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
