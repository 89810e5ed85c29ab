// What the canvases show: decks as spectrograms with their lanes, slots as they denoise, meters.
// Pure drawing: it is told the moment, and keeps nothing but images made from data.

// One hue for each deck, far apart also for those who see fewer colours.
const HUES = [188, 32, 280, 96, 340, 226];
export const hue = (deck) => HUES[deck % HUES.length];
export const accent = (deck, light = 62, alpha = 1) => `hsl(${hue(deck)} 88% ${light}% / ${alpha})`;

const NOISE = Array.from({ length: 6 }, (_, i) => noise(96, 40, 7919 * (i + 1)));

function noise(width, height, seed) {
  const canvas = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  let x = seed >>> 0;
  for (let i = 0; i < image.data.length; i += 4) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    const v = x >>> 24;
    image.data[i] = image.data[i + 1] = image.data[i + 2] = v;
    image.data[i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function hsl(h, s, l) {
  const f = (n) => {
    const k = (n + h / 30) % 12;
    return 255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1)));
  };
  return [f(0), f(8), f(4)];
}

// Black, the deck's colour, white: quiet to loud.
function palette(deck) {
  const rows = [];
  for (let i = 0; i < 256; i++) {
    const v = i / 255;
    rows.push(hsl(hue(deck), 0.85 - 0.35 * v, 0.02 + 0.62 * v ** 1.9));
  }
  return rows;
}
const PALETTES = new Map();

// A deck's sound as an image, low at the bottom; the image before it fades out.
export class Sound {
  constructor(deck, columns, bands, spectrum, wave, before, now) {
    this.wave = wave;
    this.image = new OffscreenCanvas(columns, bands);
    this.before = before ? before.image : null;
    this.since = now;
    if (!PALETTES.has(deck)) PALETTES.set(deck, palette(deck));
    const colours = PALETTES.get(deck);
    const pixels = new ImageData(columns, bands);
    for (let x = 0; x < columns; x++) {
      for (let y = 0; y < bands; y++) {
        const [r, g, b] = colours[spectrum[x * bands + y]];
        const at = ((bands - 1 - y) * columns + x) * 4;
        pixels.data[at] = r;
        pixels.data[at + 1] = g;
        pixels.data[at + 2] = b;
        pixels.data[at + 3] = 255;
      }
    }
    this.image.getContext("2d").putImageData(pixels, 0, 0);
  }
}

export function size(canvas) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const width = Math.round(canvas.clientWidth * ratio);
  const height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  return ratio;
}

// moment: {cycle, now, beats, scene, sounds, slots}
export function stage(canvas, moment) {
  size(canvas);
  const c = canvas.getContext("2d");
  const { width, height } = canvas;
  c.clearRect(0, 0, width, height);
  const decks = moment.scene.decks;
  if (!decks.length) return;
  const strip = moment.slots.length ? Math.max(48, height * 0.13) : 0;
  const gap = Math.max(6, height * 0.018);
  const each = (height - strip - (strip ? gap : 0) - gap * (decks.length - 1)) / decks.length;
  decks.forEach((deck, i) => {
    panel(c, { x: 0, y: i * (each + gap), w: width, h: each }, deck, i, moment);
  });
  if (strip) slots(c, { x: 0, y: height - strip, w: width, h: strip }, moment);
}

function panel(c, r, deck, i, moment) {
  const u = Math.min(r.h / 10, r.w / 16, c.canvas.height / 22);
  const head = ((((moment.cycle % deck.cycles) + deck.cycles) % deck.cycles) / deck.cycles) * r.w;
  c.save();
  c.beginPath();
  c.roundRect(r.x, r.y, r.w, r.h, u * 0.35);
  c.clip();
  c.fillStyle = "#0d0f14";
  c.fillRect(r.x, r.y, r.w, r.h);
  if (deck.muted) c.filter = "grayscale(1) brightness(.45)";
  spectrogram(c, r, moment.sounds[i], moment.now);
  c.filter = "none";
  grid(c, r, deck, moment.beats, u);
  waveform(c, r, moment.sounds[i], i);
  // What has been heard of this lap is a shade darker.
  c.fillStyle = "#07080b59";
  c.fillRect(r.x, r.y, head, r.h);
  notes(c, r, deck, i, head, u);
  const curves = deck.lanes.filter((lane) => lane.samples);
  curves.forEach((lane, n) => curve(c, r, lane, i, n, u));
  playhead(c, r, head, u);
  curves.forEach((lane, n) => dot(c, r, lane, i, n, head, u));
  labels(c, r, deck, curves, i, head, u);
  c.restore();
}

function spectrogram(c, r, sound, now) {
  if (!sound) return;
  const fade = Math.min(1, (now - sound.since) / 500);
  c.imageSmoothingEnabled = true;
  c.imageSmoothingQuality = "high";
  if (fade < 1 && sound.before) c.drawImage(sound.before, r.x, r.y, r.w, r.h);
  c.globalAlpha = sound.before ? fade : 1;
  c.drawImage(sound.image, r.x, r.y, r.w, r.h);
  c.globalAlpha = 1;
}

function grid(c, r, deck, beats, u) {
  const lines = deck.cycles * beats;
  if (lines > 256) return;
  for (let n = 1; n < lines; n++) {
    const bar = n % beats === 0;
    c.fillStyle = bar ? "#ffffff2e" : "#ffffff0f";
    c.fillRect(r.x + (n / lines) * r.w - 1, r.y, bar ? 2 : 1, r.h);
  }
}

function waveform(c, r, sound, i) {
  if (!sound) return;
  const { wave } = sound;
  const middle = r.y + r.h * 0.9;
  const tall = r.h * 0.1;
  c.fillStyle = accent(i, 72, 0.5);
  c.beginPath();
  for (let x = 0; x < wave.length; x++) c.lineTo(r.x + (x / (wave.length - 1)) * r.w, middle - (wave[x] / 255) * tall);
  for (let x = wave.length - 1; x >= 0; x--) c.lineTo(r.x + (x / (wave.length - 1)) * r.w, middle + (wave[x] / 255) * tall);
  c.fill();
}

// Curves of one deck share its hue; the first is the brightest.
const shade = (i, n) => accent(i, [90, 76, 64, 84, 70, 58][n % 6]);
const level = (r, v) => r.y + r.h * (0.78 - 0.68 * v);

// Hits as a grid of steps, a row for each drum; notes as a piano roll. What sounds is lit.
function notes(c, r, deck, i, head, u) {
  const played = deck.lanes.filter((lane) => lane.notes);
  const row = Math.min(u * 0.8, (r.h * 0.6) / Math.max(1, played.length));
  played.forEach((lane, n) => {
    const top = r.y + r.h * 0.88 - (played.length - n) * row;
    c.font = FONT(row * 0.7);
    c.textAlign = "left";
    c.textBaseline = "top";
    written(c, lane.control, r.x + u * 0.3, top, shade(i, n));
    for (const [begin, length, height, velocity] of lane.notes) {
      const x = begin * r.w;
      const wide = Math.max(2, (height ? length * r.w : Math.min(length * r.w, row * 0.6)) - 1);
      const lit = head >= x && head < x + Math.max(wide, u * 0.4);
      c.fillStyle = lit ? "#ffffff" : accent(i, 70, 0.35 + 0.6 * Math.min(1, velocity));
      const tall = height ? row * 0.3 : row * 0.7;
      c.fillRect(r.x + x, height ? top + (1 - height) * row * 0.6 : top + row * 0.1, wide, tall);
    }
  });
}

function values(lane) {
  if (!lane.log) return lane.samples.map((v) => v / 255);
  // Pitch is heard in octaves.
  const span = Math.log(lane.high / lane.low);
  return lane.samples.map((v) => Math.log((lane.low + (v / 255) * (lane.high - lane.low)) / lane.low) / span);
}

function curve(c, r, lane, i, n, u) {
  const points = lane.points || (lane.points = values(lane));
  c.beginPath();
  points.forEach((v, x) => {
    const at = r.x + (x / points.length) * r.w;
    // A jump is a step, not a slope.
    if (x && Math.abs(v - points[x - 1]) > 0.12) c.lineTo(at, level(r, points[x - 1]));
    c.lineTo(at, level(r, v));
  });
  c.lineTo(r.x + r.w, level(r, points[points.length - 1]));
  c.lineJoin = "round";
  c.strokeStyle = "#07080b99";
  c.lineWidth = u * 0.22;
  c.stroke();
  c.strokeStyle = shade(i, n);
  c.lineWidth = u * 0.11;
  c.stroke();
}

const at = (points, share) => points[Math.min(points.length - 1, Math.floor(share * points.length))];

function dot(c, r, lane, i, n, head, u) {
  c.beginPath();
  c.arc(r.x + head, level(r, at(lane.points, head / r.w)), u * 0.2, 0, 7);
  c.fillStyle = shade(i, n);
  c.fill();
  c.strokeStyle = "#07080b";
  c.lineWidth = u * 0.05;
  c.stroke();
}

function playhead(c, r, head, u) {
  const trail = c.createLinearGradient(r.x + head - u * 2.4, 0, r.x + head, 0);
  trail.addColorStop(0, "#ffffff00");
  trail.addColorStop(1, "#ffffff2b");
  c.fillStyle = trail;
  c.fillRect(r.x + head - u * 2.4, r.y, u * 2.4, r.h);
  c.fillStyle = "#ffffff";
  c.fillRect(r.x + head - u * 0.06, r.y, u * 0.12, r.h);
}

const FONT = (px, weight = 600) => `${weight} ${px}px ui-monospace, "JetBrains Mono", "DejaVu Sans Mono", Menlo, monospace`;

function written(c, text, x, y, colour) {
  c.lineJoin = "round";
  c.strokeStyle = "#07080bd9";
  c.lineWidth = Math.max(3, parseInt(c.font.split(" ")[1]) * 0.22);
  c.strokeText(text, x, y);
  c.fillStyle = colour;
  c.fillText(text, x, y);
}

function number(v) {
  if (Math.abs(v) >= 100) return v.toFixed(0);
  return v.toFixed(2).replace(/^(-?)0\./, "$1.");
}

function labels(c, r, deck, curves, i, head, u) {
  const pad = u * 0.45;
  c.textBaseline = "top";
  c.font = FONT(u * 0.95, 700);
  c.textAlign = "left";
  written(c, deck.name, r.x + pad, r.y + pad, accent(i, 74));
  const named = c.measureText(deck.name).width;
  c.font = FONT(u * 0.6);
  const origin = deck.to ? `to ${deck.to}` : deck.taken || deck.source || "";
  const state = deck.muted ? "muted" : deck.soloed ? "solo" : origin;
  written(c, state, r.x + pad * 2 + named, r.y + pad + u * 0.28, deck.muted || deck.soloed ? "#ffc857" : "#8d97a5");
  c.textAlign = "right";
  const row = Math.min(u * 0.95, (r.h * 0.72) / Math.max(1, curves.length));
  c.font = FONT(row * 0.82);
  curves.forEach((lane, n) => {
    const v = at(lane.samples, head / r.w) / 255;
    const text = `${lane.control} ${number(lane.low + v * (lane.high - lane.low))}`;
    written(c, text, r.x + r.w - pad, r.y + pad + n * row, shade(i, n));
  });
  words(c, r, deck, i, u, pad);
}

// Prompts and other words: large, at the foot.
function words(c, r, deck, i, u, pad) {
  const said = deck.lanes.filter((lane) => !lane.samples && lane.value);
  c.textAlign = "left";
  c.textBaseline = "bottom";
  said.slice(0, 2).forEach((lane, n) => {
    const px = u * (n ? 0.75 : 1.05);
    c.font = FONT(px, 700);
    const room = r.w - 2 * pad;
    let text = lane.value;
    while (text.length > 4 && c.measureText(text).width > room) text = `${text.slice(0, -2)}…`;
    const y = r.y + r.h - pad - n * u * 1.25;
    written(c, text, r.x + pad, y, "#f5f8fc");
    const after = c.measureText(text).width;
    c.font = FONT(px * 0.7, 600);
    const coming = lane.next ? `  → ${lane.next}` : "";
    if (coming && after + c.measureText(coming).width < room) written(c, coming, r.x + pad + after, y - px * 0.1, "#ffc857");
  });
}

// A slot is the deck's own picture, seen through as much noise as is still to be taken away.
function slots(c, r, moment) {
  const shown = moment.slots.slice(0, 16);
  const gap = r.h * 0.12;
  const width = Math.min((r.w - gap * (shown.length - 1)) / shown.length, r.h * 3.2);
  shown.forEach(([deck, step, steps, denoise], n) => {
    const x = r.x + n * (width + gap);
    const done = steps ? Math.min(1, step / steps) : 1;
    c.save();
    c.beginPath();
    c.roundRect(x, r.y, width, r.h * 0.8, r.h * 0.07);
    c.clip();
    c.fillStyle = "#0d0f14";
    c.fillRect(x, r.y, width, r.h);
    const sound = moment.sounds[deck];
    if (sound) {
      c.globalAlpha = 0.35 + 0.65 * done;
      c.drawImage(sound.image, x, r.y, width, r.h * 0.8);
    }
    c.globalAlpha = Math.min(1, 0.15 + denoise) * (1 - done) ** 0.8;
    c.imageSmoothingEnabled = false;
    c.drawImage(NOISE[(Math.floor(moment.now / 66) + n * 2) % NOISE.length], x, r.y, width, r.h * 0.8);
    c.restore();
    c.fillStyle = "#1d2129";
    c.fillRect(x, r.y + r.h * 0.88, width, r.h * 0.08);
    c.fillStyle = accent(deck, 64);
    c.fillRect(x, r.y + r.h * 0.88, width * done, r.h * 0.08);
  });
}

// input: its level in dB, or "closed" or "lost"; undefined without one. It has a third bar.
export function meters(canvas, peaks, input) {
  size(canvas);
  const c = canvas.getContext("2d");
  const { width, height } = canvas;
  c.clearRect(0, 0, width, height);
  const bars = input === undefined ? peaks : [...peaks, typeof input === "number" ? input : -120];
  const tall = (height * 0.84) / bars.length;
  bars.forEach((db, n) => {
    const share = Math.max(0, Math.min(1, (db + 48) / 48));
    const y = (n * (height - tall)) / (bars.length - 1);
    c.fillStyle = n === 2 && input === "lost" ? "#ff5d5d" : "#1d2129";
    c.fillRect(0, y, width, tall);
    c.fillStyle = db > -0.5 ? "#ff5d5d" : db > -6 ? "#ffc857" : "#5fd38d";
    c.fillRect(0, y, width * share, tall);
  });
}
