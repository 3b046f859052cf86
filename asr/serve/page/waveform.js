// The picture of a recording: how loud it is, column by column, and how much has been heard.

import { level } from "./microphone.js";

const COLUMN = 3; // [CSS px], with the gap
const MAX_BYTES = 64 << 20; // of a file that the browser decodes for its picture

export class Waveform {
  levels = []; // 0 to 1, any number

  constructor(canvas) {
    this.canvas = canvas;
    this.share = 0; // heard
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    document.addEventListener("theme", () => this.draw());
  }

  // Blocks that come while somebody speaks.
  push(block) {
    if (block.length) this.levels.push(level(block));
    this.draw(true);
  }

  // A whole file, where the browser can decode it.
  async read(blob) {
    if (blob.size > MAX_BYTES) return;
    const context = new OfflineAudioContext(1, 1, 8000);
    const decoded = await context.decodeAudioData(await blob.arrayBuffer()).catch(() => null);
    if (!decoded) return;
    const samples = decoded.getChannelData(0);
    const count = Math.min(2000, Math.max(1, Math.floor(decoded.duration * 20)));
    const size = Math.max(1, Math.floor(samples.length / count));
    this.levels = Array.from({ length: count }, (_, k) =>
      level(samples.subarray(k * size, (k + 1) * size).map((sample) => 32768 * sample)),
    );
    this.draw();
  }

  draw(isLive = false) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(this.canvas);
    const columns = Math.max(1, Math.floor(width / COLUMN));
    const { levels } = this;
    for (let column = 0; column < columns; column++) {
      // While it is made, it comes in from the right; then it is drawn out to the whole width.
      const first = isLive ? levels.length - columns + column : Math.floor((column * levels.length) / columns);
      const behind = isLive ? first + 1 : Math.max(first + 1, Math.floor(((column + 1) * levels.length) / columns));
      const loudest = Math.max(0, ...levels.slice(Math.max(0, first), Math.max(0, behind)));
      const tall = Math.max(2, loudest * height);
      context.fillStyle = isLive || column / columns < this.share ? style.color : style.borderColor;
      context.beginPath();
      context.roundRect(column * COLUMN, (height - tall) / 2, COLUMN - 1, tall, 1);
      context.fill();
    }
  }
}
