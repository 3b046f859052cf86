// A player: a button, the log-mel picture that is also the time slider, and the CTC path below it.

const SLOWEST = 110; // narrowest picture [CSS px a second]: ten characters a second stay legible
const WIDEST = 420; // widest [CSS px a second]
const PICTURE_HEIGHT = 128; // [CSS px]
const ROW_HEIGHT = 46; // of one path [CSS px]
const SVG = "http://www.w3.org/2000/svg";
const players = new Set();

// Colours of equal steps in lightness, from the paper's own to the far end: OKLab to sRGB
// (B. Ottosson, A perceptual color space for image processing, 2020).
function oklab(lightness, a, b) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((value) => {
    const inside = Math.min(Math.max(value, 0), 1);
    return 255 * (inside <= 0.0031308 ? 12.92 * inside : 1.055 * inside ** (1 / 2.4) - 0.055);
  });
}

function palette(dark) {
  const colours = new Uint8ClampedArray(4 * 256);
  for (let level = 0; level < 256; level++) {
    const share = level / 255;
    const lightness = dark ? 0.2 + 0.74 * share : 0.985 - 0.76 * share;
    const chroma = 0.145 * Math.sin(Math.PI * 0.92 * share) ** 0.8;
    const hue = ((dark ? 285 + 165 * share : 430 - 150 * share) * Math.PI) / 180;
    colours.set(oklab(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)), 4 * level);
    colours[4 * level + 3] = 255;
  }
  return colours;
}

function paint(canvas, image) {
  if (!image.naturalWidth) return; // not loaded yet
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = palette(isDark());
  for (let at = 0; at < pixels.data.length; at += 4) {
    const level = 4 * pixels.data[at];
    pixels.data.set(colours.subarray(level, level + 4), at);
  }
  context.putImageData(pixels, 0, 0);
}

function shape(name, attributes, className) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (className) made.setAttribute("class", className);
  return made;
}

// One path: a letter in the middle of its frames, above a bar as tall as the model was sure.
function drawPath(path, kinds, scale, width) {
  const drawing = shape("svg", { width, height: ROW_HEIGHT, "aria-hidden": "true" }, "path");
  let word = 0;
  let inWord = false;
  for (const [character, start, end, probability] of path.characters) {
    const isSpace = character === " ";
    // Without gaps each character counts by itself, else those up to a space.
    if (inWord && (isSpace || !data.gap)) word++;
    inWord = !isSpace;
    const kind = isSpace ? "space" : kinds[word] || "hit";
    const left = start * scale;
    const wide = Math.max((end - start) * scale - 1, 2);
    const tall = Math.max(16 * probability, 1);
    const box = { x: left, y: ROW_HEIGHT - tall, width: wide, height: tall };
    drawing.append(shape("rect", box, kind));
    const letter = shape("text", { x: left + wide / 2, y: 20 }, kind);
    letter.textContent = character === " " ? "·" : character;
    drawing.append(letter);
  }
  return drawing;
}

function timeAxis(clip, scale, width) {
  const drawing = shape("svg", { width, height: 16, "aria-hidden": "true" }, "ticks");
  for (let second = 0; second <= clip.seconds; second += 0.5) {
    const whole = Number.isInteger(second);
    const x = Math.max(second * scale, 0.5);
    drawing.append(shape("line", { x1: x, x2: x, y1: 0, y2: whole ? 6 : 3 }));
    if ((!whole && scale < 200) || x > width - 24) continue;
    const label = shape("text", { x: x + 3, y: 13 });
    label.textContent = `${second} s`;
    drawing.append(label);
  }
  return drawing;
}

function makePlayer(clip, name, steps) {
  const root = node("div", undefined, "player");
  const audio = new Audio(clip.audio);
  const button = node("button", "▶ Play", "play");
  button.type = "button";
  const clock = node("span", undefined, "clock");
  const speed = node("select");
  for (const rate of [1, 0.75, 0.5]) {
    const option = node("option", `${rate}×`);
    option.value = rate;
    speed.append(option);
  }
  speed.setAttribute("aria-label", "Speed");
  const failure = node("span", undefined, "failure");
  failure.setAttribute("role", "status");
  const bar = node("div", undefined, "transport");
  bar.append(button, clock, speed, failure);
  const frame = node("div", undefined, "frame");
  const stage = node("div", undefined, "stage");
  const canvas = node("canvas");
  const head = node("div", undefined, "head");
  stage.setAttribute("role", "slider");
  stage.setAttribute("aria-label", `Position in ${name}`);
  stage.setAttribute("aria-valuemin", "0");
  stage.setAttribute("aria-valuemax", clip.seconds.toFixed(2));
  stage.tabIndex = 0;
  frame.append(stage);
  root.append(bar, frame);

  const image = new Image();
  const player = { root, audio, repaint: () => paint(canvas, image) };
  let scale = 1;

  function place() {
    const now = audio.currentTime;
    head.style.transform = `translateX(${now * scale}px)`;
    clock.textContent = `${now.toFixed(2)} of ${clip.seconds.toFixed(2)} s`;
    stage.setAttribute("aria-valuenow", now.toFixed(2));
    stage.setAttribute("aria-valuetext", `${now.toFixed(2)} seconds`);
  }

  function follow() {
    place();
    const at = audio.currentTime * scale;
    if (at < frame.scrollLeft || at > frame.scrollLeft + frame.clientWidth - 8) {
      frame.scrollLeft = Math.max(at - 24, 0);
    }
    if (!audio.paused) requestAnimationFrame(follow);
  }

  function seek(seconds) {
    audio.currentTime = Math.min(Math.max(seconds, 0), clip.seconds);
    place();
  }

  function toggle() {
    if (!audio.paused) return audio.pause();
    for (const other of players) other.audio.pause();
    audio.playbackRate = Number(speed.value);
    audio.play().catch((error) => {
      if (error.name === "AbortError") return; // paused before it had begun
      failure.textContent = "This browser cannot play the sound; make the report with report.audio=wav.";
    });
  }

  function lay() {
    const room = root.clientWidth - 2; // its border is 1 px at either side
    if (room <= 0) return;
    scale = Math.min(Math.max(room / clip.seconds, SLOWEST), WIDEST);
    const width = Math.ceil(clip.seconds * scale);
    stage.style.width = `${width}px`;
    canvas.style.width = `${clip.pictureSeconds * scale}px`;
    canvas.style.height = `${PICTURE_HEIGHT}px`;
    const rows = clip.paths.map((path) => {
      const row = node("div", undefined, "row");
      const kinds = kindsOf(steps, path.name === "reference" ? 0 : 1);
      const label = path.missing ? `no path of the ${path.name}: ${path.missing}` : path.name;
      row.append(node("span", label, "whose"));
      if (!path.missing) row.append(drawPath(path, kinds, scale, width));
      return row;
    });
    stage.replaceChildren(canvas, ...rows, timeAxis(clip, scale, width), head);
    place();
  }

  audio.addEventListener("play", () => {
    button.textContent = "❚❚ Pause";
    follow();
  });
  audio.addEventListener("pause", () => {
    button.textContent = "▶ Play";
    place();
  });
  audio.addEventListener("seeked", place);
  speed.addEventListener("input", () => (audio.playbackRate = Number(speed.value)));
  button.addEventListener("click", toggle);
  stage.addEventListener("pointerdown", (event) => {
    if (event.button === 0) seek((event.clientX - stage.getBoundingClientRect().left) / scale);
  });
  stage.addEventListener("keydown", (event) => {
    const now = audio.currentTime;
    const times = { ArrowLeft: now - 0.1, ArrowRight: now + 0.1, ArrowDown: now - 0.1 };
    Object.assign(times, { ArrowUp: now + 0.1, PageDown: now - 1, PageUp: now + 1 });
    Object.assign(times, { Home: 0, End: clip.seconds });
    if (event.key in times) seek(times[event.key]);
    else if (event.key === " " || event.key === "Enter") toggle();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  image.addEventListener("load", player.repaint);
  image.src = clip.picture;
  new ResizeObserver(lay).observe(root);
  players.add(player);
  return root;
}

// What has left the page must not go on sounding.
function dropDetachedPlayers() {
  for (const player of players) {
    if (player.root.isConnected) continue;
    player.audio.pause();
    players.delete(player);
  }
}

document.addEventListener("themechange", () => {
  dropDetachedPlayers();
  for (const player of players) player.repaint();
});
