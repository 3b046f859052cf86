// Gathers the microphone's samples in blocks; runs in the thread of the sound.

const BLOCK = 2048; // samples: 43 ms at 48 kHz

class Gatherer extends AudioWorkletProcessor {
  block = new Int16Array(BLOCK);
  filled = 0;
  over = false;

  constructor() {
    super();
    this.port.onmessage = () => {
      this.over = true;
      this.port.postMessage(this.block.slice(0, this.filled));
      this.port.postMessage(null); // the end
    };
  }

  process([channels]) {
    for (let at = 0; at < (channels[0]?.length ?? 0); at++) {
      let sum = 0;
      for (const channel of channels) sum += channel[at];
      const sample = Math.max(-1, Math.min(1, sum / channels.length));
      this.block[this.filled++] = Math.round(32767 * sample);
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return !this.over;
  }
}

registerProcessor("gatherer", Gatherer);
