// Many points on a canvas: by the graphics card where there is one, else pixel by pixel.

/** Nothing is marked. */
export const NONE = -2;

const VERTEX = `#version 300 es
layout(location = 0) in vec2 place;
layout(location = 1) in int label;
layout(location = 2) in float chosen;
uniform vec2 centre;
uniform vec2 zoom;
uniform float size;
uniform int only;
uniform float pale;
out vec4 colour;
vec3 hue(int label) {
  uint h = uint(label + 2) * 0x9e3779b1u;
  h = (h ^ (h >> 15)) * 0x85ebca6bu;
  h ^= h >> 13;
  float angle = float(h % 360u) / 60.0;
  vec3 pure = clamp(abs(mod(angle + vec3(0.0, 4.0, 2.0), 6.0) - 3.0) - 1.0, 0.0, 1.0);
  return mix(vec3(0.45), pure, 0.6) * (0.72 + 0.28 * float((h >> 9) % 64u) / 63.0);
}
void main() {
  gl_Position = vec4((place - centre) * zoom * vec2(1.0, -1.0), 0.0, 1.0);
  bool is_other = only > -2 && label != only;
  gl_PointSize = chosen > 0.5 ? size + 2.0 : size;
  colour = chosen > 0.5 ? vec4(0.93, 0.38, 0.05, 1.0) : is_other ? vec4(0.55, 0.55, 0.55, 0.12) : vec4(hue(label), pale);
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 colour;
out vec4 shown;
void main() { shown = colour; }`;

/** The colour of a class, as above. */
export function classColour(label) {
  let h = Math.imul(label + 2, 0x9e3779b1) >>> 0;
  h = Math.imul((h ^ (h >>> 15)) >>> 0, 0x85ebca6b) >>> 0;
  h = (h ^ (h >>> 13)) >>> 0;
  const light = 0.72 + (0.28 * ((h >>> 9) % 64)) / 63;
  return [0, 4, 2].map((turn) => {
    const pure = Math.max(0, Math.min(1, Math.abs((((h % 360) / 60 + turn) % 6) - 3) - 1));
    return Math.round(255 * (0.45 + (pure - 0.45) * 0.6) * light);
  });
}

/** What draws: `points` is 8 bytes each (x and y in 16 bits, label in 32). Null where the browser has no WebGL 2. */
export function painter(canvas, points) {
  const gl = hasCard() ? canvas.getContext("webgl2", { antialias: false, alpha: true, preserveDrawingBuffer: false }) : null;
  return gl === null ? pixels(canvas, points) : card(gl, canvas, points);
}

/** Whether WebGL 2 is there, and drawn by a card: where the processor plays one, it is faster without. */
function hasCard() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (gl === null) return false;
  const details = gl.getExtension("WEBGL_debug_renderer_info");
  const name = details === null ? "" : String(gl.getParameter(details.UNMASKED_RENDERER_WEBGL));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

function card(gl, canvas, points) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`The map cannot be drawn: ${gl.getProgramInfoLog(program)}`);
  gl.useProgram(program);
  const buffer = (data) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
  };
  buffer(points);
  gl.vertexAttribPointer(0, 2, gl.UNSIGNED_SHORT, true, 8, 0);
  gl.vertexAttribIPointer(1, 1, gl.INT, 8, 4);
  buffer(new Uint8Array(points.byteLength / 8));
  gl.vertexAttribPointer(2, 1, gl.UNSIGNED_BYTE, false, 1, 0);
  [0, 1, 2].forEach((place) => gl.enableVertexAttribArray(place));
  gl.enable(gl.BLEND);
  gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  gl.clearColor(0, 0, 0, 0);
  const place = (name) => gl.getUniformLocation(program, name);
  const uniforms = { centre: place("centre"), zoom: place("zoom"), size: place("size"), only: place("only"), pale: place("pale") };
  let isAny = false;
  return {
    name: "WebGL",
    /** Which points are chosen: a byte each. */
    choose(flags) {
      isAny = flags.includes(1);
      gl.bufferSubData(gl.ARRAY_BUFFER, 0, flags);
    },
    draw({ x, y, scale, size, only }, count) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(uniforms.centre, x, y);
      gl.uniform2f(uniforms.zoom, (2 * scale) / canvas.width, (2 * scale) / canvas.height);
      gl.uniform1f(uniforms.size, size);
      gl.uniform1i(uniforms.only, only);
      // What is chosen stands out.
      gl.uniform1f(uniforms.pale, isAny ? 0.3 : 0.8);
      gl.drawArrays(gl.POINTS, 0, count);
    },
    /** Waits until what was asked for is drawn: for measurements. */
    finish: () => gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)),
  };
}

/** Colours of points that are not of the class, and of those that are chosen: alpha, blue, green, red. */
const OTHER = 0x30808080;
const CHOSEN = 0xff0d61ed;
const PALE = 0x4cffffff;

/** The same by writing pixels. */
function pixels(canvas, points) {
  // In memory, where the pixels are written: a canvas of a card would have to be sent each time.
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const places = new Uint16Array(points.buffer, points.byteOffset, points.byteLength / 2);
  const labels = new Int32Array(points.buffer, points.byteOffset, points.byteLength / 4);
  const packed = ([red, green, blue]) => (0xff000000 | (blue << 16) | (green << 8) | red) >>> 0;
  const known = new Map();
  const number = points.byteLength / 8;
  const [own, colours] = [new Int32Array(number), new Uint32Array(number)];
  for (let i = 0; i < number; i += 1) {
    own[i] = labels[2 * i + 1];
    if (!known.has(own[i])) known.set(own[i], packed(classColour(own[i])));
    colours[i] = known.get(own[i]);
  }
  let [image, out] = [null, null];
  let flags = null;
  return {
    name: "pixels",
    choose(chosen) {
      flags = chosen.includes(1) ? chosen : null;
    },
    draw({ x, y, scale, size, only }, count) {
      const { width, height } = canvas;
      if (image?.width !== width || image.height !== height) {
        image = context.createImageData(width, height);
        out = new Uint32Array(image.data.buffer);
      }
      out.fill(0);
      const side = Math.max(1, Math.round(size / 2));
      const unit = scale / 65535;
      const left = width / 2 - x * scale;
      const top = height / 2 - y * scale;
      const [columns, rows] = [width - side, height - side];
      const paint = (i, colour) => {
        const column = (left + places[4 * i] * unit) | 0;
        const row = (top + places[4 * i + 1] * unit) | 0;
        if (column < 0 || row < 0 || column > columns || row > rows) return;
        let at = row * width + column;
        out[at] = colour;
        if (side === 1) return;
        for (let dy = 0; dy < side; dy += 1, at += width) for (let dx = 0; dx < side; dx += 1) out[at + dx] = colour;
      };
      // What is chosen stands out.
      const pale = flags === null ? 0xffffffff : PALE;
      for (let i = 0; i < count; i += 1) paint(i, only === NONE || own[i] === only ? colours[i] & pale : OTHER);
      for (let i = 0; i < count && flags; i += 1) if (flags[i]) paint(i, CHOSEN);
      context.putImageData(image, 0, 0);
    },
    finish() {},
  };
}
