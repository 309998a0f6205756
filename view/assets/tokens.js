// Grids of tokens as colours, numbers and bits.

import { h } from "./dom.js";

/** A colour for a code: codes that differ in a bit look different, the same code looks the same everywhere. */
export function colour(code) {
  let value = Math.imul(code + 1, 0x9e3779b1) >>> 0;
  value = Math.imul(value ^ (value >>> 15), 0x85ebca6b) >>> 0;
  value = (value ^ (value >>> 13)) >>> 0;
  return hsl(value % 360, 0.35 + ((value >>> 9) % 40) / 100, 0.38 + ((value >>> 17) % 36) / 100);
}

function hsl(hue, saturation, lightness) {
  const spread = saturation * Math.min(lightness, 1 - lightness);
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (lightness - spread * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

/** A canvas with one pixel per token, coloured by `of(code)` as [r, g, b]. */
export function canvas(tokens, of, properties = {}) {
  const [height, width] = [tokens.length, tokens[0].length];
  const element = h("canvas", { width, height, ...properties });
  const context = element.getContext("2d");
  const image = context.createImageData(width, height);
  tokens.flat().forEach((code, i) => image.data.set([...of(code), 255], 4 * i));
  context.putImageData(image, 0, 0);
  return element;
}

/** A canvas as a PNG in which a token is `scale` pixels wide. */
export function enlarged(element, scale) {
  const large = h("canvas", { width: element.width * scale, height: element.height * scale });
  const context = large.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(element, 0, 0, large.width, large.height);
  return new Promise((resolve) => large.toBlob(resolve));
}

/** The bits of a code, from the lowest one on. */
export const bitsOf = (code, bits) => Array.from({ length: bits }, (_, bit) => (code >> bit) & 1).join("");
