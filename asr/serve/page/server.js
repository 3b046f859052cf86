// What the page asks of its server. Nothing else is ever asked.

const KEY = "asr-key"; // of the session's storage

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function problem(response) {
  const told = await response.json().catch(() => null);
  return new Error(told?.error?.message ?? `The server answered ${response.status} ${response.statusText}`);
}

// Ask for the key until one fits, then do it again.
async function withKey(request) {
  for (;;) {
    const response = await request();
    if (response.status !== 401 && response.status !== 403) return response;
    const dialog = document.getElementById("ask");
    const field = document.getElementById("key");
    field.value = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (!field.value) throw await problem(response);
    sessionStorage.setItem(KEY, field.value);
  }
}

async function ask(path, options = {}) {
  const response = await withKey(() =>
    fetch(path, { ...options, headers: { ...headers(), ...options.headers } }).catch(() => {
      throw new Error("The server does not answer.");
    }),
  );
  if (!response.ok) throw await problem(response);
  return response;
}

function json(method, body) {
  return { method, body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
}

export const about = async () => (await ask("v1/about")).json();
export const reviewItems = async () => (await ask("v1/review")).json();
export const reviewAudio = async (id) => (await ask(`v1/review/${id}/audio`)).blob();
export const reviewed = async (id, verdict) => (await ask(`v1/review/${id}`, json("PUT", verdict))).json();
export const learn = async () => (await ask("v1/review/train", json("POST", {}))).json();
export const learning = async () => (await ask("v1/review/train")).json();

// A transcript as `asr transcribe --format` writes it: text, srt, vtt, json, manifest.
export async function written(transcript, to) {
  return (await ask("v1/format", json("POST", { ...transcript, to }))).text();
}

// The segments and the duration of a file.
export async function transcribe(file) {
  const form = new FormData();
  form.append("file", file, file.name);
  form.append("response_format", "verbose_json");
  form.append("timestamp_granularities[]", "segment");
  form.append("timestamp_granularities[]", "word");
  return (await ask("v1/audio/transcriptions", { method: "POST", body: form })).json();
}

// A recording that is sent while it is made. `hear` gets each message of the server.
export class Stream {
  constructor(sampleRate, hear) {
    const address = new URL(`v1/stream?sample_rate=${sampleRate}`, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const key = sessionStorage.getItem(KEY);
    const coded = key && btoa(key).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    this.socket = new WebSocket(address, key ? ["asr", `key.${coded}`] : ["asr"]);
    this.waiting = []; // until it is open
    this.socket.onopen = () => {
      for (const each of this.waiting.splice(0)) this.socket.send(each);
    };
    this.done = new Promise((resolve, reject) => {
      let trouble = null;
      this.socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "error") trouble = message.message;
        else hear(message);
      };
      this.socket.onclose = ({ code, reason }) => {
        if (code === 1000 && !trouble) resolve();
        else reject(new Error(trouble ?? (reason || "The server does not answer.")));
      };
    });
    this.done.catch(() => {}); // told by who waits for it
  }

  send(content) {
    if (this.socket.readyState === WebSocket.CONNECTING) this.waiting.push(content);
    else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(content);
  }

  finish() {
    this.send(JSON.stringify({ type: "finish" }));
    return this.done;
  }
}
