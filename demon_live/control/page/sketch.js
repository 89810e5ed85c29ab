// The sketch that is shown if no other is named: each deck's spectrogram around the centre, what is
// heard now innermost, the past moving outward; hits push it, loudness holds the trails, the noise
// of generations in flight lies over it, a hand shows the playhead of the first deck.
import { hue, size } from "/draw.js";

const CORNERS = "attribute vec2 corner; varying vec2 uv; void main() { uv = corner * .5 + .5; gl_Position = vec4(corner, 0., 1.); }";
// The frame before, pushed outward, turned and darker.
const TRAIL = `precision mediump float; varying vec2 uv; uniform sampler2D image; uniform vec2 screen; uniform float hit, loud, turn;
void main() {
  vec2 p = (uv - .5) * screen / screen.y * (.985 - .05 * hit);
  float c = cos(turn), s = sin(turn);
  p = mat2(c, s, -s, c) * p * screen.y / screen + .5;
  gl_FragColor = vec4(texture2D(image, p).rgb * (.86 + .1 * loud), 1.);
}`;
// A deck, added to it.
const DECK = `precision mediump float; varying vec2 uv; uniform sampler2D image; uniform vec2 screen;
uniform float hit, loud, head, noise, now, hand, number; uniform vec3 colour; uniform vec4 lanes;
float grain(vec2 p) { return fract(sin(dot(p, vec2(12.9898, 78.233)) + now) * 43758.5453); }
void main() {
  vec2 p = (uv - .5) * screen / screen.y;
  float r = length(p), a = atan(p.x, p.y) / 6.2832;
  float wave = .04 * (lanes.y - .5) * sin(6.2832 * (a * 6. + lanes.z * 4.));
  float inner = .08 + .06 * number + .05 * hit + .04 * lanes.x + wave;
  float gone = (r - inner) * (.35 + .5 * lanes.w);
  float band = abs(fract(a + .5 + .1 * number) * 2. - 1.);
  float heard = texture2D(image, vec2(fract(head - max(gone, 0.)), band)).g;
  float grains = grain(floor(uv * 160.)) * noise;
  float ring = (1. - smoothstep(0., .012 + .03 * hit, abs(r - inner))) * (.25 + .75 * hit);
  float far = abs(fract(a - hand + .5) - .5) * 6.2832 * r;
  float sweep = (number < .5 ? 1. : 0.) * (1. - smoothstep(0., .006, far)) * step(inner, r) * .3;
  float light = heard * heard * step(0., gone) * (.3 + .7 * loud) * exp(-1.5 * max(gone, 0.));
  gl_FragColor = vec4(colour * (light * (1. - .6 * grains) + ring + .12 * grains) + sweep, 1.);
}`;
const COPY = "precision mediump float; varying vec2 uv; uniform sampler2D image; void main() { gl_FragColor = texture2D(image, uv); }";

function program(gl, text) {
  const made = gl.createProgram();
  for (const [kind, code] of [[gl.VERTEX_SHADER, CORNERS], [gl.FRAGMENT_SHADER, text]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, code);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.bindAttribLocation(made, 0, "corner");
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

function texture(gl) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const edge of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, edge, gl.CLAMP_TO_EDGE);
  for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
  return made;
}

// A picture that can be drawn into.
function target(gl) {
  const image = texture(gl);
  const buffer = gl.createFramebuffer();
  gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, image, 0);
  return { image, buffer };
}

function rgb(degrees) {
  const f = (n) => {
    const k = (n + degrees / 30) % 12;
    return 0.55 - 0.45 * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  };
  return [f(0), f(8), f(4)];
}

function use(gl, made, image, values) {
  gl.useProgram(made);
  gl.bindTexture(gl.TEXTURE_2D, image);
  for (const [name, value] of Object.entries(values)) {
    const where = gl.getUniformLocation(made, name);
    if (Array.isArray(value)) gl[`uniform${value.length}f`](where, ...value);
    else gl.uniform1f(where, value);
  }
  gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
}

export default function start(canvas) {
  const gl = canvas.getContext("webgl", { alpha: false, antialias: false });
  if (!gl) throw new Error("this browser has no WebGL");
  const [trail, shape, copy] = [TRAIL, DECK, COPY].map((text) => program(gl, text));
  const frames = [target(gl), target(gl)];
  const sounds = [];
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
  gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
  gl.blendFunc(gl.ONE, gl.ONE);
  let wide = 0;
  let high = 0;

  // A deck's spectrogram as a texture, written again only when it is another.
  function heard(i, picture) {
    const kept = sounds[i] || (sounds[i] = { image: texture(gl), picture: null });
    if (picture && kept.picture !== picture) {
      kept.picture = picture;
      gl.bindTexture(gl.TEXTURE_2D, kept.image);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    }
    return kept.image;
  }

  function fit() {
    size(canvas);
    if (canvas.width === wide && canvas.height === high) return;
    [wide, high] = [canvas.width, canvas.height];
    for (const frame of frames) {
      gl.bindTexture(gl.TEXTURE_2D, frame.image);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, wide, high, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    }
    gl.viewport(0, 0, wide, high);
  }

  return (now) => {
    fit();
    const screen = [wide, high];
    frames.reverse();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frames[0].buffer);
    gl.disable(gl.BLEND);
    use(gl, trail, frames[1].image, { screen, hit: now.hit, loud: now.loud, turn: 0.004 + 0.02 * (now.decks[0]?.hit || 0) });
    now.decks.forEach((deck, i) => {
      const image = heard(i, deck.sound);
      const lanes = Object.values(deck.lanes).slice(0, 4);
      const slots = now.slots.filter((slot) => slot.deck === i);
      const noise = Math.max(0, ...slots.map((slot) => (1 - slot.done) * slot.denoise));
      const loud = deck.muted ? 0 : Math.max(now.loud, deck.loud);
      const values = { screen, hit: deck.hit, loud, head: deck.playhead, noise, now: now.now % 10, hand: deck.playhead, number: i };
      gl.enable(gl.BLEND);
      use(gl, shape, image, { ...values, colour: rgb(hue(i)), lanes: [0, 1, 2, 3].map((n) => lanes[n] ?? 0.5) });
    });
    gl.disable(gl.BLEND);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    use(gl, copy, frames[0].image, {});
  };
}
