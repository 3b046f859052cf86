// The microphone: blocks of samples while somebody speaks, and a WAV file of all of them.

const WAV_HEADER = 44; // bytes

export class Microphone {
  blocks = []; // of samples, 16 bits

  // Ask for the microphone, and call `take` with each block. Throws what to tell the user.
  static async open(take) {
    if (!navigator.mediaDevices) {
      throw new Error("The browser gives the microphone to pages of https or of localhost only.");
    }
    const microphone = new Microphone();
    try {
      // As it was said: the recogniser has learnt rooms, noise and levels, and not what takes them away.
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      microphone.source = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      const refused = error.name === "NotAllowedError";
      throw new Error(refused ? "The microphone was refused to this page." : `No microphone: ${error.message}`);
    }
    microphone.context = new AudioContext();
    await microphone.context.audioWorklet.addModule("worklet.js");
    microphone.node = new AudioWorkletNode(microphone.context, "gatherer", { numberOfOutputs: 0 });
    microphone.ended = new Promise((resolve) => {
      microphone.node.port.onmessage = ({ data: block }) => {
        if (block === null) return resolve();
        microphone.blocks.push(block);
        take(block);
      };
    });
    microphone.context.createMediaStreamSource(microphone.source).connect(microphone.node);
    return microphone;
  }

  get sampleRate() {
    return this.context.sampleRate;
  }

  get duration() {
    return this.blocks.reduce((sum, block) => sum + block.length, 0) / this.sampleRate;
  }

  // Stop, once the last block has been taken.
  async close() {
    this.node.port.postMessage(null);
    await this.ended;
    for (const track of this.source.getTracks()) track.stop();
    await this.context.close();
  }

  // What was said, as a WAV file of 16 bits and one channel.
  wav() {
    const bytes = 2 * this.blocks.reduce((sum, block) => sum + block.length, 0);
    const view = new DataView(new ArrayBuffer(WAV_HEADER));
    const text = (at, letters) => [...letters].forEach((c, k) => view.setUint8(at + k, c.charCodeAt(0)));
    text(0, "RIFF");
    view.setUint32(4, WAV_HEADER - 8 + bytes, true);
    text(8, "WAVEfmt ");
    view.setUint32(16, 16, true); // bytes of the format
    view.setUint16(20, 1, true); // PCM
    view.setUint16(22, 1, true); // channels
    view.setUint32(24, this.sampleRate, true);
    view.setUint32(28, 2 * this.sampleRate, true); // bytes a second
    view.setUint16(32, 2, true); // bytes of a frame
    view.setUint16(34, 16, true); // bits
    text(36, "data");
    view.setUint32(40, bytes, true);
    return new Blob([view, ...this.blocks], { type: "audio/wav" });
  }
}

// The level of a block, 0 to 1, as loud as it sounds.
export function level(block) {
  let sum = 0;
  for (const sample of block) sum += sample * sample;
  const decibels = 20 * Math.log10(Math.sqrt(sum / block.length) / 32768 + 1e-9);
  return Math.max(0, Math.min(1, (decibels + 60) / 54)); // -60 dBFS to -6
}
