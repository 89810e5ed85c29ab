// What both pages know of the session: one websocket in, nothing out. Between two words of the
// session the music goes on by the page's own clock, so that the playhead runs as smoothly as the
// screen can.
import { Sound } from "/draw.js";

export const moment = { cycle: 0, bpm: 120, beats: 4, at: 0, heard: false, peaks: [-120, -120], slots: [], sounds: {}, scene: { decks: [] } };
export const token = new URLSearchParams(location.search).get("t") || "";
let version = null;
let patience = 300;

// take: functions of further messages, by kind.
export function connect(take = {}) {
  const socket = new WebSocket(`ws://${location.host}/ws?t=${encodeURIComponent(token)}`);
  const away = document.getElementById("away");
  const known = { hello, f: frame, scene, ...take };
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    patience = 300;
    away.hidden = true;
  };
  socket.onmessage = (message) => {
    if (typeof message.data !== "string") return hear(message.data);
    const word = JSON.parse(message.data);
    known[word.k]?.(word);
  };
  socket.onclose = () => {
    away.hidden = false;
    moment.heard = false;
    setTimeout(connect, patience, take);
    patience = Math.min(2000, patience * 1.5);
  };
}

function hello(word) {
  // Another version of the session has another page.
  if (version && version !== word.version) location.reload();
  version = word.version;
}

export function frame(word) {
  const now = performance.now();
  // The page's clock is led to the session's gently; a jump (a seek, a tempo) at once.
  const mine = moment.cycle + ((now - moment.at) / 60000) * (moment.bpm / moment.beats);
  const off = word.c - mine;
  moment.cycle = moment.heard && Math.abs(off) < 0.1 ? mine + off * 0.12 : word.c;
  Object.assign(moment, { bpm: word.b, beats: word.n, at: now, heard: true, slots: word.s });
  moment.peaks = moment.peaks.map((db, i) => Math.max(word.m[i], db - 1.1));
  moment.input = word.i;
}

export function scene(word) {
  moment.scene = word;
}

export function cycleAt(now) {
  const gone = moment.heard ? (now - moment.at) / 60000 : 0;
  return moment.cycle + gone * (moment.bpm / moment.beats);
}

function hear(data) {
  const view = new DataView(data);
  const [deck, columns, bands, length] = [view.getUint8(1), view.getUint16(2, true), view.getUint16(4, true), view.getUint16(6, true)];
  const spectrum = new Uint8Array(data, 8, columns * bands);
  const wave = new Uint8Array(data, 8 + columns * bands, length);
  moment.sounds[deck] = new Sound(deck, columns, bands, spectrum, wave, moment.sounds[deck], performance.now());
}
