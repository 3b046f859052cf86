// A recording to text by a model of `asr export`: read the file, run the graph, collapse the labels.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

const METADATA = 14; // the field of an ONNX file that holds its metadata

/** The description that asr wrote into the file. */
function descriptionOf(bytes) {
  for (const [number, value] of fields(bytes)) {
    if (number !== METADATA) continue;
    const entry = new Map(fields(value));
    const text = (part) => new TextDecoder().decode(entry.get(part));
    if (text(1) === "asr") return JSON.parse(text(2));
  }
  throw new Error("no description, expected a file of asr export");
}

/** Numbers and bytes of the fields of a message of protocol buffers. */
function* fields(bytes) {
  let place = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = bytes[place++];
      value += (byte & 127) * shift;
      if (!(byte & 128)) return value;
    }
  };
  while (place < bytes.length) {
    const key = varint();
    if ((key & 7) === 0) {
      varint();
      continue;
    }
    const size = { 1: 8, 2: 0, 5: 4 }[key & 7] || varint();
    yield [key >> 3, bytes.subarray(place, place + size)];
    place += size;
  }
}

/** Samples of a file of any kind that the browser plays: one channel, at the model's rate. */
async function samplesOf(file, rate) {
  const context = new OfflineAudioContext(1, 1, rate);
  const audio = await context.decodeAudioData(await file.arrayBuffer());
  const mixed = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    audio.getChannelData(channel).forEach((sample, k) => (mixed[k] += sample / audio.numberOfChannels));
  }
  return mixed;
}

const tensor = (data, dims) =>
  new ort.Tensor(data instanceof BigInt64Array ? "int64" : "float32", data, dims);

/** Log-probabilities of a recording: their numbers, and how many frames they are. */
async function logProbsOf(session, about, samples) {
  if (!about.is_live) {
    const found = await session.run({
      waveforms: tensor(samples, [1, samples.length]),
      num_samples: tensor(BigInt64Array.of(BigInt(samples.length)), [1]),
    });
    return [found.log_probs.data, Number(found.log_prob_lengths.data[0])];
  }
  // A live model is a step of itself: the whole recording is one long step.
  const { timing } = about;
  const { hop_length: hop, win_length: width, subsampling, upsampling } = timing;
  const count = timing.is_centered
    ? Math.floor(samples.length / hop) + 1
    : Math.floor(Math.max(samples.length - width + hop, 0) / hop);
  const steps = Math.ceil(count / subsampling) + timing.live_delay / upsampling;
  if (!steps) return [new Float32Array(0), 0];
  const padded = new Float32Array((steps * subsampling + timing.live_extra - 1) * hop + width);
  const before = timing.is_centered ? Math.floor((width + 1) / 2) : 0;
  padded.set(samples.subarray(0, padded.length - before), before);
  const inputs = {
    waveforms: tensor(padded, [1, padded.length]),
    num_frames: tensor(BigInt64Array.of(BigInt(count)), [1]),
  };
  const kinds = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array };
  for (const { name, type, shape } of session.inputMetadata) {
    if (!name.startsWith("state_")) continue;
    const dims = shape.map((size) => (typeof size === "number" ? size : 1));
    const data = new kinds[type](dims.reduce((one, other) => one * other, 1));
    inputs[name] = new ort.Tensor(type, data, dims);
  }
  const { log_probs: found } = await session.run(inputs);
  const labels = found.dims[2];
  const length = Math.ceil(count / subsampling) * upsampling;
  return [found.data.subarray(timing.live_delay * labels), length];
}

/** The likeliest label of each frame, repeats and blanks (0) left out. */
function textOf(logProbs, length, alphabet) {
  const labels = alphabet.length + 1;
  let text = "";
  let last = 0;
  for (let frame = 0; frame < length; frame++) {
    const row = logProbs.subarray(frame * labels, (frame + 1) * labels);
    const best = row.indexOf(Math.max(...row));
    if (best && best !== last) text += alphabet[best - 1];
    last = best;
  }
  return text.split(" ").filter(Boolean).join(" ");
}

const [drop, chosen, output, status] = ["drop", "file", "text", "status"].map((id) =>
  document.getElementById(id),
);

async function main() {
  ort.env.wasm.numThreads = 1; // more need headers that a plain server does not send
  const answer = await fetch("model.onnx");
  if (!answer.ok) throw new Error("model.onnx is missing, expected it beside this page");
  const bytes = new Uint8Array(await answer.arrayBuffer());
  const about = descriptionOf(bytes);
  const alphabet = [...about.spec.alphabet];
  const session = await ort.InferenceSession.create(bytes);
  status.textContent = "Ready.";

  async function hear(file) {
    if (!file) return;
    status.textContent = `Listening to ${file.name} …`;
    const begun = performance.now();
    try {
      const samples = await samplesOf(file, about.timing.sample_rate);
      output.value = textOf(...(await logProbsOf(session, about, samples)), alphabet);
      const seconds = (performance.now() - begun) / 1000;
      status.textContent = `${file.name}: ${seconds.toFixed(1)} s`;
    } catch (error) {
      output.value = "";
      status.textContent = `${file.name}: ${error.message}`;
    }
  }

  chosen.addEventListener("change", () => hear(chosen.files[0]));
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    hear(event.dataTransfer.files[0]);
  });
}

main().catch((error) => (status.textContent = error.message));
