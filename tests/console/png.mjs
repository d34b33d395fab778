// Makes the PNG of a screenshot small without changing a pixel: browsers compress theirs in a hurry.

import assert from "node:assert/strict";
import zlib from "node:zlib";

const SIGNATURE = 8;

/** The same picture, 8 bits a channel, without interlace and without alpha, which a screenshot has none of. */
export function smaller(png) {
  const chunks = [...chunksOf(png)];
  const header = Buffer.from(chunks.find(({ type }) => type === "IHDR").data);
  const [width, height, depth, colour, interlace] = [header.readUInt32BE(0), header.readUInt32BE(4), header[8], header[9], header[12]];
  assert.ok(depth === 8 && (colour === 2 || colour === 6) && interlace === 0);
  const packed = Buffer.concat(chunks.filter(({ type }) => type === "IDAT").map(({ data }) => data));
  const rows = withoutAlpha(unfiltered(zlib.inflateSync(packed), width, height, colour === 6 ? 4 : 3), colour === 6 ? 4 : 3);
  header[9] = 2;
  const ways = [unchanged(rows), byRowAbove(rows)].map((data) => zlib.deflateSync(data, { level: 9, memLevel: 9 }));
  const best = ways.toSorted((one, other) => one.length - other.length)[0];
  return Buffer.concat([png.subarray(0, SIGNATURE), chunk("IHDR", header), chunk("IDAT", best), chunk("IEND", Buffer.alloc(0))]);
}

function* chunksOf(png) {
  for (let at = SIGNATURE; at < png.length; ) {
    const length = png.readUInt32BE(at);
    yield { type: png.toString("latin1", at + 4, at + 8), data: png.subarray(at + 8, at + 8 + length) };
    at += length + 12;
  }
}

function chunk(type, data) {
  const named = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const length = Buffer.alloc(4);
  const sum = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc(named));
  return Buffer.concat([length, named, sum]);
}

/** CRC-32 of PNG, annex D of its specification. */
function crc(data) {
  let sum = 0xffffffff;
  for (const byte of data) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? (sum >>> 1) ^ 0xedb88320 : sum >>> 1;
  }
  return (sum ^ 0xffffffff) >>> 0;
}

/** PNG's filters taken back, section 9 of its specification. */
function unfiltered(data, width, height, pixel) {
  const stride = width * pixel;
  const rows = [];
  let above = Buffer.alloc(stride);
  for (let y = 0; y < height; y += 1) {
    const filter = data[y * (stride + 1)];
    const row = Buffer.from(data.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
    for (let x = 0; x < stride; x += 1) {
      const left = x >= pixel ? row[x - pixel] : 0;
      const corner = x >= pixel ? above[x - pixel] : 0;
      row[x] += [0, left, above[x], (left + above[x]) >> 1, paeth(left, above[x], corner)][filter];
    }
    rows.push(row);
    above = row;
  }
  return rows;
}

function paeth(left, above, corner) {
  const guess = left + above - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - above), Math.abs(guess - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}

function withoutAlpha(rows, pixel) {
  return rows.map((row) => (pixel === 3 ? row : row.filter((value, at) => at % 4 !== 3 || assert.equal(value, 255))));
}

function unchanged(rows) {
  return Buffer.concat(rows.map((row) => Buffer.concat([Buffer.of(0), row])));
}

function byRowAbove(rows) {
  return Buffer.concat(rows.map((row, y) => Buffer.concat([Buffer.of(2), row.map((value, x) => value - (y > 0 ? rows[y - 1][x] : 0))])));
}
