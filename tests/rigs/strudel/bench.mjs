// Strudel's times for the patterns of ../language.py, as JSON on stdout: microseconds, best of many.
// core 1.2.6 does not load in node as it is: its optional @kabelsalat/web lacks an export. A stub stands in.
import { register } from "node:module";

const stub = "data:text/javascript,export class SalatRepl {}";
register(
  "data:text/javascript," +
    encodeURIComponent(`export async function resolve(name, context, next) {
      if (name.startsWith("@kabelsalat/")) return { url: ${JSON.stringify(stub)}, shortCircuit: true };
      return next(name, context);
    }`),
);
const log = console.log;
console.log = () => {}; // the packages greet on load
const { sine, saw } = await import("@strudel/core");
const { mini } = await import("@strudel/mini");

const best = (fn, repeats = 400) => {
  for (let i = 0; i < 100; i++) fn(i);
  let least = Infinity;
  for (let i = 0; i < repeats; i++) {
    const begin = process.hrtime.bigint();
    fn(i);
    least = Math.min(least, Number(process.hrtime.bigint() - begin) / 1000);
  }
  return Math.round(least * 10) / 10;
};

const { minis, frames } = JSON.parse(process.argv[2]);
const out = { minis: {}, frames: {}, version: "1.2.6", node: process.version };
for (const text of minis) {
  const pattern = mini(text);
  out.minis[text] = {
    parse: best(() => mini(text)),
    // A new cycle each time, so that nothing can be remembered.
    query: best((i) => pattern.queryArc(i, i + 1)),
  };
}
const signals = {
  "sine.slow(8).range(.2, .9)": sine.slow(8).range(0.2, 0.9),
  "saw.segment(16)": saw.segment(16),
};
for (const name of frames) {
  const pattern = signals[name];
  // 25 frames of one cycle, one query a frame: Strudel has no other way.
  out.frames[name] = best((i) => {
    for (let k = 0; k < 25; k++) pattern.queryArc(i + k / 25, i + (k + 1) / 25);
  });
}
log(JSON.stringify(out));
