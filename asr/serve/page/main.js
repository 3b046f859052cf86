// The page: speak, or drop files; recordings come below, the newest first.

import { Microphone } from "./microphone.js";
import { Recording } from "./recording.js";
import { openReview } from "./review.js";
import * as server from "./server.js";

const at = (id) => document.getElementById(id);
const LOCAL = new Set(["localhost", "127.0.0.1", "[::1]"]);
let isStarting = false; // or ending
let speaking = null; // the microphone, the stream and the recording while somebody speaks
let queue = Promise.resolve(); // files go one after the other

function trouble(error) {
  at("trouble").textContent = error?.message ?? "";
  at("trouble").hidden = !error;
}

function add(recording) {
  at("recordings").prepend(recording.article);
}

function hear(files) {
  trouble(null);
  for (const file of files) {
    const recording = new Recording(file.name);
    recording.tell("waits");
    add(recording);
    queue = queue.then(() => recording.article.isConnected && recording.transcribe(file));
  }
}

function showSpeaking(is) {
  at("speak").setAttribute("aria-pressed", String(is));
  at("speak-name").textContent = is ? "Stop" : "Speak";
  document.body.classList.toggle("speaking", is);
}

async function begin() {
  trouble(null);
  const now = new Date();
  const two = (number) => String(number).padStart(2, "0");
  const day = `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}`;
  const name = `spoken ${day} ${two(now.getHours())}-${two(now.getMinutes())}-${two(now.getSeconds())}.wav`;
  const recording = new Recording(name);
  let stream = null;
  const early = [];
  const microphone = await Microphone.open((block) => {
    recording.waveform.push(block);
    if (stream) stream.send(block);
    else early.push(block);
  });
  stream = new server.Stream(microphone.sampleRate, (message) => {
    if (message.type === "partial") recording.words.show(message);
    else if (message.type === "final") recording.words.add(message);
  });
  stream.done.catch((error) => speaking?.stream === stream && stop(error)); // the server ends it
  for (const block of early) stream.send(block);
  recording.tell("listening …");
  recording.find(".player").hidden = false;
  recording.find(".player").classList.add("live");
  recording.find(".close").hidden = true;
  recording.find(".words").ariaLive = "polite";
  add(recording);
  speaking = { microphone, stream, recording };
  showSpeaking(true);
}

async function stop(error = null) {
  const { microphone, stream, recording } = speaking;
  speaking = null;
  showSpeaking(false);
  await microphone.close();
  recording.find(".player").classList.remove("live");
  recording.find(".close").hidden = false;
  recording.find(".words").ariaLive = "off";
  recording.find(".audio").hidden = false;
  recording.hold(microphone.wav(), microphone.duration);
  recording.isKept = false; // until it is downloaded
  try {
    if (error) throw error;
    await stream.finish();
    recording.finish(recording.words.segments, microphone.duration);
  } catch (failure) {
    recording.finish(recording.words.segments, microphone.duration);
    recording.tell(failure.message, true);
  }
}

async function toggle() {
  if (isStarting) return;
  isStarting = true;
  try {
    await (speaking ? stop() : begin());
  } catch (error) {
    trouble(error);
  } finally {
    isStarting = false;
  }
}

function connectDrop() {
  let depth = 0; // of what the pointer is in, with a file
  const show = (is) => (at("drop").hidden = !is);
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => hasFiles(event) && show(++depth > 0));
  addEventListener("dragleave", (event) => hasFiles(event) && show(--depth > 0));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show((depth = 0) > 0);
    hear(event.dataTransfer.files);
  });
}

function connectTheme() {
  const root = document.documentElement;
  const isDark = () =>
    (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const show = () => (at("theme").textContent = isDark() ? "Light" : "Dark");
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  at("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    show();
    document.dispatchEvent(new Event("theme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}

at("speak").addEventListener("click", toggle);
at("files").addEventListener("change", ({ target }) => {
  hear(target.files);
  target.value = "";
});
addEventListener("keydown", (event) => {
  const isWriting = event.target.matches?.("input:not([type=range]), textarea");
  if (event.key === "r" && !isWriting && !event.ctrlKey && !event.metaKey && !at("stage").hidden) toggle();
});
addEventListener("beforeunload", (event) => {
  const articles = [...document.querySelectorAll("article")];
  if (speaking || articles.some((article) => !article.recording.isKept)) event.preventDefault();
});
connectDrop();
connectTheme();
at("where").textContent = LOCAL.has(location.hostname)
  ? "Nothing that you say leaves this computer."
  : `What you say goes to ${location.hostname}, and nowhere else.`;
try {
  const about = await server.about();
  at("model").textContent = about.model;
  if (about.is_review) await openReview(at("recordings"));
} catch (error) {
  trouble(error);
}
