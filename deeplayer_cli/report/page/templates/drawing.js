"use strict";

/* Pictures with their boxes, and histograms. */

const CORRECT_IOU = 0.5;
const BINS = 20;
const TEXT = "colour-000000"; // black, or white in the dark

function rectangle(box, kind) {
  const [x1, x2] = [box[0], box[2]].sort((one, other) => one - other);
  const [y1, y2] = [box[1], box[3]].sort((one, other) => one - other);
  const place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
  return draw("g", { class: `box ${kind}` }, draw("rect", { ...place, class: "halo" }), draw("rect", place));
}

/* The cells of the kept visual tokens, as columns and rows of a grid over the whole image: of the tiles, or of the
   thumbnail. The tokens of a tile come row by row, the tiles too, and the thumbnail last. */
function keptCells(kept, onThumbnail) {
  const [columns, rows, , side] = kept.tiles;
  const mask = atob(kept.mask);
  const tiles = columns * rows;
  const cells = [];
  for (let index = 0; index < 8 * mask.length; index += 1) {
    if (!((mask.charCodeAt(index >> 3) >> (index & 7)) & 1)) continue;
    const tile = Math.floor(index / side ** 2);
    const within = index % side ** 2;
    const [column, row] = [within % side, Math.floor(within / side)];
    if (tile === tiles && onThumbnail) cells.push([column, row]);
    else if (tile < tiles && !onThumbnail)
      cells.push([(tile % columns) * side + column, Math.floor(tile / columns) * side + row]);
  }
  return { cells, across: onThumbnail ? side : columns * side, down: onThumbnail ? side : rows * side };
}

/* A shade over the image with a hole for each kept token. */
function shade(kept, onThumbnail, width, height) {
  const { cells, across, down } = keptCells(kept, onThumbnail);
  const [w, h] = [width / across, height / down];
  const hole = ([column, row]) => `M${(column * w).toFixed(2)} ${(row * h).toFixed(2)}h${w.toFixed(2)}v${h.toFixed(2)}h-${w.toFixed(2)}z`;
  return draw("path", { class: "shade", d: `M0 0H${width}V${height}H0z${cells.map(hole).join("")}` });
}

/* The picture of a row with its gold box and the boxes of one answer, in pixels of the stored image. */
function drawPicture(row, answer, picture, { description, tokens = null }) {
  const known = picture !== null && picture.width !== null;
  const [width, height] = known ? [picture.width, picture.height] : [400, 300];
  const parts = [];
  if (picture?.source) parts.push(draw("image", { href: picture.source, width, height, preserveAspectRatio: "none" }));
  else parts.push(draw("rect", { width, height, class: "absent" }));
  if (known && tokens && answer?.kept) parts.push(shade(answer.kept, tokens === "thumbnail", width, height));
  if (known && row.gold) parts.push(rectangle(row.gold, "gold"));
  for (const box of (known && answer?.others) || []) parts.push(rectangle(box, "predicted other"));
  if (known && answer?.box) parts.push(rectangle(answer.box, "predicted"));
  const canvas = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description }, ...parts);
  const note = picture?.source ? null : make("span", { class: "placeholder" }, "no picture");
  return make("span", { class: "picture" }, canvas, note);
}

function binned(values, most, least) {
  const bins = new Array(BINS).fill(0);
  for (const value of values) bins[Math.min(BINS - 1, Math.floor(((value - least) / (most - least)) * BINS))] += 1;
  return bins;
}

function described(series) {
  return series
    .map(({ label, values }) => {
      const sorted = [...values].sort((one, other) => one - other);
      const middle = sorted.length ? decimals(sorted[Math.floor(sorted.length / 2)]) : "–";
      return `${label}: ${counted(values.length, "row")}, median ${middle}`;
    })
    .join("; ");
}

function key(kind, label) {
  const swatch = draw("rect", { class: kind, x: 1, y: 1, width: 10, height: 10 });
  return make("span", { class: "key" }, draw("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, swatch), " ", make("bdi", {}, label));
}

/* One histogram of one or two runs: the first as bars, the second as an outline. */
function drawHistogram(title, series, most, least = 0) {
  const [width, height, left, bottom, top] = [360, 150, 40, 24, 8];
  const bins = series.map(({ values }) => binned(values, most, least));
  const highest = Math.max(1, ...bins.flat());
  const x = (bin) => left + (bin / BINS) * (width - left - 8);
  const y = (n) => height - bottom - (n / highest) * (height - bottom - top);
  const colours = series.map(({ colour }) => colour);
  if (colours[0] === colours[1]) colours[1] = colours[0] === TEXT ? "colour-d55e00" : TEXT; // two runs of one method
  const looks = [`bar ${colours[0]}`, `outline ${colours[1]}`];
  const bars = bins[0].map((n, bin) =>
    draw("rect", { class: looks[0], x: x(bin) + 0.75, y: y(n), width: x(1) - x(0) - 1.5, height: y(0) - y(n) }),
  );
  const outline = bins[1]?.flatMap((n, bin) => [`${x(bin)},${y(n)}`, `${x(bin + 1)},${y(n)}`]);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) =>
    draw("text", { x: x(share * BINS), y: height - 6, class: "centre" }, String(Number((least + share * (most - least)).toPrecision(2)))),
  );
  const label = `${title}. ${described(series)}`;
  const canvas = draw(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    draw("line", { class: "axis", x1: left, x2: width - 8, y1: y(0), y2: y(0) }),
    draw("text", { x: left - 6, y: y(highest), class: "end middle" }, highest.toLocaleString("en")),
    ...bars,
    outline ? draw("polyline", { class: looks[1], points: outline.join(" ") }) : null,
    ...ticks,
  );
  const keys = series.length < 2 ? [] : series.map(({ label }, place) => key(looks[place], label));
  return make("figure", {}, make("figcaption", {}, title, ...keys), canvas);
}

/* The smallest round number, 1, 2 or 5 times a power of ten, that no value exceeds. */
function roundAbove(values) {
  const highest = values.reduce((one, other) => Math.max(one, other), 0);
  if (highest <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 5, 10].map((step) => step * power).find((value) => value >= highest);
}
