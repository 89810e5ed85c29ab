// The inputs of a sketch, a pure function of the moment: numbers from 0 to 1 unless it is said.
//
//   now        seconds            cycle, bpm   of the music
//   bar, beat  how far            loud         of the output, 48 dB from silence to full
//   hit        1 where a hit begins, then falling; of all decks that are not muted. A deck without
//              drums hits where its loop gets louder
//   hits       the same for each drum by name: hits.kick
//   decks      {name, muted, playhead, loud, hit, lanes: {gain: 0.5}, sound}; loud: of its loop at
//              the playhead; sound: its spectrogram as a canvas, low at the bottom, or null
//   slots      generations in flight: {deck (a number), done, denoise}

// How fast a hit falls, in beats.
const FALL = 0.5;
const share = (v) => Math.max(0, Math.min(1, v));
const part = (v) => ((v % 1) + 1) % 1;
const at = (row, place) => row[Math.min(row.length - 1, Math.floor(place * row.length))];

// What is left of the last hit of a lane: it fell since, over the end of the loop, too.
function left(lane, playhead, beats) {
  const each = lane.notes.map(([begin, , , velocity]) => velocity * Math.exp((-part(playhead - begin) * beats) / FALL));
  return share(Math.max(0, ...each));
}

function deckOf(deck, sound, moment) {
  const playhead = part(moment.cycle / deck.cycles);
  const lanes = {};
  const hits = {};
  for (const lane of deck.lanes) {
    if (lane.samples) lanes[lane.control] = at(lane.samples, playhead) / 255;
    // A drum's notes have no height.
    if (lane.notes?.some((note) => !note[2])) hits[lane.control] = left(lane, playhead, deck.cycles * moment.beats);
  }
  const heard = (place) => (sound && !deck.muted ? at(sound.wave, part(place)) / 255 : 0);
  const loud = heard(playhead);
  // Without drums, where the loop gets louder.
  const played = Object.values(hits);
  const rise = share(2 * (loud - heard(playhead - 0.02)));
  const hit = deck.muted ? 0 : played.length ? Math.max(...played) : rise;
  return { name: deck.name, muted: deck.muted, playhead, loud, hit, hits, lanes, sound: sound?.image || null };
}

export function inputs(moment, now) {
  const decks = moment.scene.decks.map((deck, i) => deckOf(deck, moment.sounds[i], moment));
  const hits = {};
  for (const deck of decks) for (const [name, v] of Object.entries(deck.muted ? {} : deck.hits)) hits[name] = Math.max(hits[name] || 0, v);
  return {
    now: now / 1000,
    cycle: moment.cycle,
    bpm: moment.bpm,
    bar: part(moment.cycle),
    beat: part(moment.cycle * moment.beats),
    loud: share((Math.max(...moment.peaks) + 48) / 48),
    hit: Math.max(0, ...decks.map((deck) => deck.hit)),
    hits,
    decks,
    slots: moment.slots.map(([deck, step, steps, denoise]) => ({ deck, done: steps ? share(step / steps) : 1, denoise })),
  };
}
