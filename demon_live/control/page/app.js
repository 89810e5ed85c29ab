// The page for the projector. What it knows of the session comes from moment.js.
import { accent, meters, stage } from "/draw.js";
import { connect, cycleAt, frame, moment, scene } from "/moment.js";

const $ = (id) => document.getElementById(id);
const shown = { bar: null, beat: null, beats: 0 };
let spans = [];
let lit = [];

const TAKE = {
  f(word) {
    frame(word);
    if (word.L) light(word.L);
  },
  scene(word) {
    scene(word);
    facts(word);
  },
  score,
};

function facts(word) {
  const grade = word.alive ? word.grade : "late";
  $("grade").textContent = word.alive ? grade : "starting";
  $("grade").className = grade;
  $("recording").hidden = !word.recording;
  $("recording").textContent = `● ${word.recording || ""}`;
  $("hushed").hidden = !word.hushed;
  $("engine").textContent = `${word.engine} · ${word.device}${word.input ? ` · in ${word.input}` : ""}${word.shed ? ` · ${word.shed}` : ""}`;
  $("figures").textContent = `tick ${word.tick} ms · depth ${word.depth} · lead ${word.lead} ms`;
}

// --- scores ---------------------------------------------------------------------------------

// A text is cut where a colour, a statement or a step that may light up begins or ends. Steps are
// known only when they sound, so a span is cut again when one lights up inside it.
function score(word) {
  spans = word.files.map(() => []);
  const texts = word.files.map((file, i) => article(file, i, word.errors.filter((e) => e.name === file.name)));
  const others = word.errors.filter((e) => !word.files.some((f) => f.name === e.name));
  $("scores").replaceChildren(...texts, ...others.map(complaint));
  fit(word.files);
  light(lit);
}

function article(file, number, errors) {
  const pre = document.createElement("pre");
  const cuts = new Set([0, file.text.length]);
  for (const [start] of file.tokens) cuts.add(start);
  for (const [start, stop] of file.live) cuts.add(start).add(stop);
  for (let at = file.text.indexOf("\n"); at >= 0; at = file.text.indexOf("\n", at + 1)) cuts.add(at + 1);
  const edges = [...cuts].sort((a, b) => a - b);
  const wrong = new Map(errors.map((e) => [e.line, e]));
  let token = 0;
  let line = 1;
  for (let i = 0; i + 1 < edges.length; i++) {
    const [start, stop] = [edges[i], edges[i + 1]];
    while (token + 1 < file.tokens.length && file.tokens[token + 1][0] <= start) token++;
    const kind = file.tokens[token]?.[1] || "";
    const state = file.live.find(([a, b]) => a <= start && stop <= b);
    const span = piece(file.text.slice(start, stop), kind, state);
    if (wrong.has(line)) span.classList.add("wrong");
    spans[number].push({ start, stop, span });
    pre.append(span);
    if (file.text[stop - 1] === "\n" || stop === file.text.length) {
      if (wrong.has(line)) pre.append(complaint(wrong.get(line)));
      line++;
    }
  }
  const title = document.createElement("h2");
  title.textContent = file.name;
  const element = document.createElement("article");
  element.append(title, pre);
  return element;
}

function piece(text, kind, state) {
  const span = document.createElement("span");
  span.textContent = text;
  span.className = kind;
  // What is no binding (a deck's name, the tempo) always holds.
  if (kind !== "c" && (!state || state[2] === 1)) span.classList.add("live");
  if (state && state[2] === 2) span.classList.add("wait");
  if (state) span.dataset.deck = state[3];
  return span;
}

function complaint(error) {
  const element = document.createElement("span");
  element.className = "error";
  element.textContent = `${error.message} `;
  const hint = document.createElement("em");
  hint.textContent = error.hint;
  element.append(hint);
  return element;
}

function light(steps) {
  lit = steps;
  for (const row of spans) for (const s of row) s.span.classList.remove("lit");
  for (const [file, start, stop] of steps) {
    for (const s of cut(file, start, stop)) {
      const deck = moment.scene.decks.findIndex((d) => d.name === s.span.dataset.deck);
      s.span.style.setProperty("--mark", accent(Math.max(0, deck), 66));
      s.span.classList.add("lit");
    }
  }
}

function cut(file, start, stop) {
  const row = spans[file] || [];
  for (const edge of [start, stop]) {
    const i = row.findIndex((s) => s.start < edge && edge < s.stop);
    if (i < 0) continue;
    const whole = row[i];
    const text = whole.span.textContent;
    const rest = whole.span.cloneNode();
    whole.span.textContent = text.slice(0, edge - whole.start);
    rest.textContent = text.slice(edge - whole.start);
    whole.span.after(rest);
    row.splice(i, 1, { ...whole, stop: edge }, { start: edge, stop: whole.stop, span: rest });
  }
  return row.filter((s) => s.start >= start && s.stop <= stop);
}

// As large as the whole score allows.
function fit(files) {
  const box = $("scores");
  const lines = files.reduce((n, f) => n + f.text.trimEnd().split("\n").length + 2, 0);
  const longest = Math.max(24, ...files.flatMap((f) => f.text.split("\n").map((l) => l.length)));
  // A long line is folded: it is better read in two rows than not at all from the back of a room.
  const wanted = Math.min(box.clientHeight / (lines * 1.42), box.clientWidth / (Math.min(longest, 36) * 0.605));
  const least = Math.max(11, window.innerHeight * 0.016);
  let px = Math.max(least, Math.min(window.innerHeight * 0.042, wanted));
  box.style.fontSize = `${px}px`;
  while (box.scrollHeight > box.clientHeight && px > least) {
    px *= 0.94;
    box.style.fontSize = `${px}px`;
  }
}

// --- the screen -----------------------------------------------------------------------------

function draw(now) {
  requestAnimationFrame(draw);
  const cycle = cycleAt(now);
  const bar = Math.floor(cycle);
  const beat = Math.floor((cycle - bar) * moment.beats);
  if (shown.beats !== moment.beats) {
    shown.beats = moment.beats;
    $("beats").replaceChildren(...Array.from({ length: Math.ceil(moment.beats) }, () => document.createElement("i")));
    shown.beat = null;
  }
  if (bar !== shown.bar) $("bar").textContent = shown.bar = bar;
  if (beat !== shown.beat) {
    shown.beat = beat;
    [...$("beats").children].forEach((dot, i) => dot.classList.toggle("on", i === beat));
  }
  const tempo = `${Math.round(moment.bpm * 10) / 10}`;
  if (shown.tempo !== tempo) {
    shown.tempo = tempo;
    const unit = document.createElement("small");
    unit.textContent = "bpm";
    $("tempo").replaceChildren(tempo, unit);
  }
  stage($("stage"), { ...moment, cycle, now });
  meters($("meters"), moment.peaks, moment.input);
}

let again = 0;
addEventListener("resize", () => {
  clearTimeout(again);
  again = setTimeout(() => fit([...document.querySelectorAll("#scores pre")].map((p) => ({ text: p.textContent }))), 100);
});
connect(TAKE);
requestAnimationFrame(draw);
