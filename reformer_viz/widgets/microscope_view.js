// The microscope: one head of a trained model as text, as sorted order and as a matrix, each as an
// overview of everything and as a detail that can be read. What is chosen in one lights up in all.
// The plan follows from the buckets, here. Weights need the model: they come later, for the plan that
// the model itself made, and name the version of the data that they belong to.

import {
  eachSeen, kindsFor, make, many, nameOf, num, openPage, paddingInWords, painter, planRound, sees,
  tokenInWords, ELSEWHERE, FOUND, HIDDEN, LOST, SEEN,
} from './plan_view.js';
import { AS_PLANNED, between, isOwn, lengthOf, ruleControls, ruleKey, ruleOf, settle } from './plan_rule.js';

// ---- What follows from the buckets -----------------------------------------------------------

// What a round makes of every key for one query, and which round shows a key first (-1: none).
export function rowOf(plans, rule, round, token) {
  const kinds = kindsFor(plans, rule, round, token);
  const by = key => (kinds[key] === HIDDEN ? -1 : plans.findIndex(plan => sees(plan, token, key)));
  return { kinds, by };
}

// Weights as Python packed them: how many keys a query has, the keys, and their half percents.
export function unpack({ version, counts, keys, halves, most }) {
  const bytes = packed => Uint8Array.from(atob(packed), c => c.charCodeAt(0));
  const starts = [0];
  for (const count of bytes(counts)) starts.push(starts.at(-1) + count);
  return { version, starts, keys: new Uint16Array(bytes(keys).buffer), halves: bytes(halves), most };
}

const weightsOf = (weights, token) => {
  if (weights.answer?.token === token) return weights.answer.found;
  const found = new Map();
  for (let at = weights.starts[token]; at < weights.starts[token + 1]; at++)
    found.set(weights.keys[at], weights.halves[at]);
  return found; // heaviest first
};

// Whether there may be more weights of a token than a page of a long text holds.
const isCut = ({ starts, most, answer }, token) =>
  token !== null && answer?.token !== token && starts[token + 1] - starts[token] === most;

// ---- In words: the same sentences as Microscope.describe -----------------------------------------

const percent = halves => `${(halves / 2).toFixed(1)} %`;

export function describeMicroscope({ rule, plans, row, weights, place }) {
  const { round, token } = place, own = isOwn(place), padded = !!rule.padding?.[token];
  const words = token === null
    ? `${allInWords(rule)} ${roundInWords(rule, plans[round], round)}`
    : padded ? paddingInWords(rule, token) : tokenInWords(plans[round], rule, row.kinds, round, token);
  if (!own) return `${words} The model did otherwise, so nothing is said about weights.`;
  return token === null || padded || !weights ? words : `${words} ${weightsInWords(rule, row, weights, token)}`;
}

function allInWords(rule) {
  const reach = rule.chunk_length * (rule.chunks_before + rule.chunks_after);
  const padded = (rule.padding ?? []).filter(Boolean).length;
  return `Layer ${rule.layer}, head ${rule.head}: ${many(lengthOf(rule), 'token')}` +
    `${padded ? ` (${num(padded)} of them padding)` : ''}, ` +
    `${many(rule.n_buckets, 'bucket')}, ${many(rule.buckets.length, 'round')}, ` +
    (rule.window === 'sliding' ? `a sliding window of ${many(reach, 'slot')}.` : `chunks of ${num(rule.chunk_length)}.`);
}

function roundInWords(rule, plan, round) {
  const buckets = rule.buckets[round], sizes = new Int32Array(rule.n_buckets);
  let seen = 0, across = 0, mates = 0;
  buckets.forEach((b, i) => { if (!rule.padding?.[i]) sizes[b]++; });
  for (const size of sizes) mates += (size * (size - 1)) / (rule.causal ? 2 : 1);
  eachSeen(plan, rule.causal, (i, j) => { if (buckets[i] === buckets[j]) seen++; else across++; });
  return `Round ${round}: buckets hold ${num(Math.min(...sizes))} to ${many(Math.max(...sizes), 'token')}. ` +
    `Of ${many(mates, 'pair')} in one bucket, the round sees ${num(seen)} and loses ` +
    `${num(mates - seen)} to the window.${rule.within_bucket ? '' : ` It sees ${num(across)} across buckets.`}`;
}

function weightsInWords(rule, row, weights, token) {
  if (row.kinds.every(kind => kind === HIDDEN || kind === LOST)) return 'No round shows it anybody, so it attends to itself.';
  const named = [...weightsOf(weights, token)].slice(0, 3).map(
    ([key, halves]) => `token ${num(key)}${nameOf(rule, key)} ${percent(halves)}`);
  return `It gives most weight to ${named.join(', ') || 'none in particular'}.`;
}

// ---- The rows of tokens: the text, and sorted order ----------------------------------------------

const DETAIL = 64; // tokens at most that have room for their names
const HEAD = 18, STEMS = 14, STRIP = 16, FUNNEL = 26, CELL = 26; // pixels, from above
const OVER = HEAD + STEMS, CELLS = OVER + STRIP + FUNNEL, FEET = CELLS + CELL;
const WINDOW = FEET + 27; // the middle of the bars for what a window covers
const MONO = 'ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace';

// How long nine of ten names are: the others are shortened.
const lettersOf = labels => {
  const lengths = labels.map(label => label.length).sort((a, b) => a - b);
  return between(1, lengths[Math.floor(0.9 * (lengths.length - 1))], 8);
};

// How many tokens have room for names of so many letters.
const roomFor = (letters, width) => between(4, Math.floor(width / (5 * letters + 4)), DETAIL);

// Move a detail so that a place is in it, and not at its very edge.
const follow = (start, at, n, count) => {
  const edge = count >> 3, near = at >= start + edge && at < start + count - edge;
  return between(0, near ? start : at - (count >> 1), Math.max(0, n - count));
};

// Where the tokens of a row stand. In sorted order there is a gap between chunks.
function layout(row, width) {
  const { n, start, cut, count } = row, chunk = k => (cut ? Math.floor(k / cut) : 0);
  const gaps = chunk(start + count - 1) - chunk(start), gap = gaps ? Math.min(5, (0.2 * width) / gaps) : 0;
  const one = (width - gap * gaps) / count, unit = width / n;
  return {
    count, one, unit,
    detail: k => (k - start) * one + gap * (chunk(k) - chunk(start)),
    over: k => k * unit,
    atDetail(x) {
      let k = start;
      while (k + 1 < start + count && this.detail(k + 1) <= x) k++;
      return k;
    },
    atOver: x => between(0, Math.floor(x / unit), n - 1),
  };
}

function drawRow(canvas, view, row) {
  const width = canvas.clientWidth, at = layout(row, width), { token } = view.place;
  const scene = { ...view, ...painter(canvas, width, FEET + (row.cut ? 34 : 20)), width, at, token };
  scene.text(row.title, 0, 8, { align: 'left' });
  scene.text(row.range, width, 8, { align: 'right', alpha: 0.7 });
  drawOverview(scene, row);
  drawFunnel(scene, row);
  for (let k = row.start; k < row.start + at.count; k++) drawCell(scene, row, k);
  if (row.cut) drawChunks(scene, row);
  else drawNumbers(scene, row);
}

const kindIn = ({ row, token, data }, i) =>
  (token === null ? (data.padding?.[i] ? HIDDEN : SEEN) : i === token ? HIDDEN : row.kinds[i]);

function drawOverview(scene, row) {
  const { at, width, token, buckets, data, fill, frame, ink } = scene, columns = Math.min(row.n, Math.floor(width));
  const wide = width / columns;
  for (let c = 0; c < columns; c++) {
    const i = row.token(Math.floor((c * row.n) / columns));
    fill(c * wide, OVER, wide + 0.4, STRIP, data.colours[buckets[i]], token === null && !data.padding?.[i] ? 1 : 0.2);
  }
  if (token === null) return;
  const broad = Math.max(2, at.unit - (at.unit > 4 ? 1 : 0));
  for (let k = 0; k < row.n; k++) {
    const i = row.token(k), kind = scene.row.kinds[i], x = at.over(k), colour = data.colours[buckets[i]];
    if (kind === SEEN) fill(x, OVER, broad, STRIP, colour);
    if (kind === LOST || kind === FOUND) fill(x, OVER + STRIP - 5, broad, 5, colour);
    if (kind === ELSEWHERE || kind === FOUND) fill(x, OVER + STRIP + 1, broad, 3, ink, 0.55);
    const share = scene.shares?.get(i);
    if (share) stem(scene, x + broad / 2, OVER - 1, STEMS - 2, Math.min(broad, 3), share);
  }
  frame(at.over(row.at(token)) - 1, OVER - 3, broad + 2, STRIP + 6, ink, { weight: 2 });
}

const stem = ({ fill, ink, heaviest }, x, foot, room, wide, share) => {
  const high = Math.max(1.5, (room * share) / heaviest);
  fill(x - wide / 2, foot - high, wide, high, ink, 0.9);
};

// The part of the overview that the detail shows.
function drawFunnel({ pen, ink, at, width, frame }, row) {
  if (row.n <= row.count) return;
  const left = at.over(row.start), right = at.over(row.start + at.count), top = OVER + STRIP + 5;
  frame(left, OVER - 2, right - left, STRIP + 7, ink, { alpha: 0.7 });
  Object.assign(pen, { fillStyle: ink, globalAlpha: 0.07 });
  pen.beginPath();
  for (const [x, y] of [[left, top], [right, top], [width, CELLS - 1], [0, CELLS - 1]]) pen.lineTo(x, y);
  pen.fill();
}

function drawCell(scene, row, k) {
  const { at, data, buckets, token, ink, text, short, fill, frame, shares } = scene, i = row.token(k), b = buckets[i];
  const x = at.detail(k), wide = at.one - (at.one > 5 ? 1 : 0), kind = kindIn(scene, i), colour = data.colours[b];
  const lit = kind === SEEN || i === token, lost = kind === LOST || kind === FOUND;
  if (lost) frame(x, CELLS, wide, CELL, colour, { weight: 2 });
  else fill(x, CELLS, wide, CELL, colour, lit ? 1 : 0.16);
  const words = data.labels[i], size = scene.letters > 1 || words.length > 1 ? 10 : 14;
  const on = lit ? data.text_colours[b] : ink, most = wide - (wide > 20 ? 4 : 0);
  if (lit && data.hatched && b % 2) fill(x, FEET - 4, wide, 2, on, 0.6);
  text(short(words, 1.25 * most, size, MONO), x + wide / 2, CELLS + CELL / 2,
    { size, colour: on, alpha: lit ? 1 : 0.75, family: MONO, most });
  if (kind === ELSEWHERE || kind === FOUND) fill(x, FEET + 1, wide, 3, ink, 0.55);
  if (shares?.get(i)) stem(scene, x + wide / 2, CELLS - 1, FUNNEL - 8, Math.min(wide, 6), shares.get(i));
  if (i === token) frame(x - 2, CELLS - 2, wide + 4, CELL + 4, ink, { weight: 2 });
}

function drawNumbers({ at, text }, row) {
  for (let k = row.start; k < row.start + at.count; k++)
    if (k % 8 === 0) text(num(k), at.detail(k), FEET + 12, { size: 10, alpha: 0.7, align: 'left' });
}

// Under sorted order: the buckets, the chunks, and what the chosen token's window covers.
function drawChunks(scene, row) {
  const { at, data, buckets, text, fits, fill, ink, token, plan, whole } = scene, end = row.start + at.count;
  const runs = (same, draw) => {
    for (let k = row.start, next; k < end; k = next) {
      for (next = k + 1; next < end && same(k, next); ) next++;
      draw(k, at.detail(k), at.detail(next - 1) + at.one - 1 - at.detail(k));
    }
  };
  const bucket = k => buckets[row.token(k)], chunk = k => Math.floor(k / row.cut);
  runs((k, l) => bucket(k) === bucket(l), (k, x, w) => {
    fill(x, CELLS - 4, w, 3, data.colours[bucket(k)]);
    if (token === null && fits(num(bucket(k)), w, 10)) text(num(bucket(k)), x + w / 2, CELLS - 10, { size: 10 });
  });
  runs((k, l) => chunk(k) === chunk(l), (k, x, w) => {
    fill(x, FEET + 6, w, 1, ink, 0.5);
    const words = fits(`chunk ${num(chunk(k))}`, w, 10) ? `chunk ${num(chunk(k))}` : num(chunk(k));
    if (fits(words, w, 10)) text(words, x + w / 2, FEET + 14, { size: 10, alpha: 0.7 });
  });
  if (token === null) return;
  const s = plan.slot[token], y = WINDOW;
  for (const [{ first, last }, high, alpha] of [[whole, 10, 0.15], [plan, 4, 0.85]]) {
    const from = Math.max(row.start, first[s]), to = Math.min(end - 1, last[s]);
    const x = at.detail(from), wide = at.detail(to) + at.one - 1 - x;
    if (from <= to) fill(x, y - high / 2, wide, high, ink, alpha);
  }
}

// ---- The matrix ------------------------------------------------------------------------------

const TITLE = 36, BETWEEN = 24, SQUARE = 420, LIT = 9, BARS = 22; // pixels
const FADED = 0.3; // what is not the chosen token's

function squares(width, n) {
  const size = Math.floor(Math.min(SQUARE, (width - BETWEEN) / 2));
  return { size, x: size + BETWEEN, one: size / Math.min(DETAIL, n) };
}

function drawMatrix(canvas, view, start) {
  const { place, plan, buckets } = view, { token } = place, n = buckets.length, width = canvas.clientWidth;
  const { size, x, one } = squares(width, n), scene = { ...view, ...painter(canvas, width, TITLE + size + 2) };
  const { pen, ink, text, frame } = scene, shown = Math.min(DETAIL, n), unit = size / n;
  const name = (left, ...lines) => lines.forEach((line, k) =>
    text(line, left, 8 + 14 * k, { align: 'left', alpha: k ? 0.7 : 0.85, most: size }));
  name(0, `all ${many(n, 'token')}, in reading order`, 'rows look at columns; blue: this round');
  name(x, `slots ${num(start)}–${num(start + shown - 1)} of sorted order`, 'rows look at columns; colours: buckets');
  const key = [view.number, place.round, size, ink].join();
  if (view.still?.key !== key) view.still = { key, picture: pictureOf(view, size, ink) };
  Object.assign(pen, { globalAlpha: token === null ? 1 : FADED, imageSmoothingEnabled: false });
  pen.drawImage(view.still.picture, 0, TITLE, size, size);
  drawDetail(scene, start, x, one);
  for (const left of [0, x]) frame(left, TITLE, size, size, ink, { alpha: 0.35 });
  if (token === null) return;
  const high = Math.max(unit, LIT), slot = plan.slot[token] - start;
  const y = Math.round(between(TITLE, TITLE + (token + 0.5) * unit - high / 2, TITLE + size - high));
  light(scene, y, size, high, unit);
  frameRow(scene, 0, y, size, high, key => key, n, unit);
  if (slot >= 0 && slot < shown)
    frameRow(scene, x, TITLE + slot * one, size, one, key => plan.slot[key] - start, shown, one);
}

// The chosen token's row of all pairs, as high as can be seen: what the round makes of every key.
function light({ pen, fill, frame, ink, row, data }, y, size, high, unit) {
  const wide = Math.max(2, unit > 4 ? unit - 1 : unit);
  pen.clearRect(0, y, size, high);
  for (const kind of [ELSEWHERE, FOUND, LOST, SEEN]) row.kinds.forEach((found, key) => {
    if (found !== kind) return;
    const x = key * unit;
    if (kind === SEEN) fill(x, y, wide, high, data.accent);
    if (kind === ELSEWHERE || kind === FOUND) fill(x, y, wide, high, ink, 0.45);
    if (kind === LOST || kind === FOUND) frame(x, y, wide, high, data.accent);
  });
}

// Around the chosen token's row of a square, and on it the weights that the token gives.
function frameRow(scene, x, y, wide, high, at, count, unit) {
  scene.frame(x - 1, y - 2, wide + 2, high + 3, scene.ink, { weight: 1.5 });
  scene.shares?.forEach((share, key) => {
    const k = at(key);
    if (k >= 0 && k < count)
      stem(scene, x + (k + 0.5) * unit, y - 2, Math.min(BARS, y - TITLE + 6), between(1.5, unit - 2, 4), share);
  });
}

// All pairs, in as many bins as there are pixels: this round in one colour, stronger the more pairs
// fall into a bin, over the other rounds in faint ink.
function pictureOf({ rule, plans, buckets, data, place }, size, ink) {
  const n = buckets.length, bins = Math.min(n, size), bin = Uint16Array.from(buckets, (_, i) => (i * bins) / n);
  const [here, others] = [0, 1].map(() => new ImageData(bins, bins)), pairs = new Uint32Array(bins * bins);
  plans.forEach((plan, r) => eachSeen(plan, rule.causal, r === place.round
    ? (i, j) => { pairs[bin[i] * bins + bin[j]]++; }
    : (i, j) => { others.data[4 * (bin[i] * bins + bin[j]) + 3] = 56; }));
  const accent = [1, 3, 5].map(at => parseInt(data.accent.slice(at, at + 2), 16));
  const enough = Math.max(1, (n / bins) ** 2 / 64); // of a bin's pairs, for its full colour
  pairs.forEach((count, at) => {
    if (count) here.data.set([...accent, Math.min(255, 90 + (165 * count) / enough)], 4 * at);
  });
  const sheet = image => {
    const canvas = make('canvas', { width: bins, height: bins }), pen = canvas.getContext('2d');
    pen.putImageData(image, 0, 0);
    return { canvas, pen };
  };
  const { canvas, pen } = sheet(others);
  Object.assign(pen, { globalCompositeOperation: 'source-in', fillStyle: ink });
  pen.fillRect(0, 0, bins, bins);
  pen.globalCompositeOperation = 'source-over';
  pen.drawImage(sheet(here).canvas, 0, 0);
  return canvas;
}

// Part of sorted order: queries in rows, keys in columns, a cell a pair.
function drawDetail({ fill, frame, ink, rule, plans, plan, whole, buckets, data, place }, start, x, one) {
  const shown = Math.min(DETAIL, buckets.length), gap = one > 4 ? 1 : 0;
  for (let row = 0; row < shown; row++) {
    const i = plan.order[start + row], y = TITLE + row * one, b = buckets[i], colour = data.colours[b];
    const chosen = place.token === i, alpha = chosen || place.token === null ? 1 : FADED;
    const edge = slot => between(0, slot - start, shown);
    const from = edge(whole.first[start + row]), to = edge(whole.last[start + row] + 1);
    if (from < to) fill(x + from * one, y, (to - from) * one, one, ink, 0.08);
    for (let column = 0; column < shown; column++) {
      const j = plan.order[start + column], cell = [x + column * one, y, one - gap, one - gap];
      if ((rule.causal ? j >= i : j === i) || rule.padding?.[i] || rule.padding?.[j]) continue;
      if (sees(plan, i, j)) fill(...cell, colour, alpha);
      else if (plans.some(other => sees(other, i, j))) fill(...cell, ink, chosen ? 0.55 : 0.3 * alpha);
      if (buckets[j] === b && !sees(plan, i, j)) frame(...cell, colour, { alpha });
    }
  }
}

// ---- The list of mates -----------------------------------------------------------------------

const CHIPS = 8;

function chipsOf(view, title, keys, choose) {
  const { data, buckets, shares, row } = view, share = key => shares?.get(key) ?? 0;
  const heavy = [...keys].sort((a, b) => share(b) - share(a) || a - b);
  const chip = key => {
    const found = row.kinds[key] === FOUND || row.kinds[key] === ELSEWHERE ? `round ${row.by(key)}` : '';
    const facts = [num(key), share(key) && percent(share(key)), found].filter(Boolean).join(' · ');
    const swatch = make('i', { style: `background:${data.colours[buckets[key]]}` });
    const name = make('b', { textContent: data.labels[key] });
    return make('button', { type: 'button', className: 'rx-chip', onclick: () => choose(key) }, swatch, name, facts);
  };
  const head = `${title}: ${num(keys.length)}`;
  const more = keys.length > CHIPS ? `and ${num(keys.length - CHIPS)} more` : '';
  return make('div', {}, make('h4', { textContent: head }), ...heavy.slice(0, CHIPS).map(chip), more);
}

const HINT = 'Point at a token, or step to one with the arrow keys, and its bucket-mates light up everywhere.';
const LISTS = [
  [round => `seen by round ${round}`, [SEEN]],
  [() => 'lost to the window', [LOST, FOUND]],
  [() => 'shown by other rounds', [FOUND, ELSEWHERE]],
];

function listsOf(view, choose) {
  const { row, place } = view;
  return LISTS.map(([title, kinds]) => {
    const keys = [];
    row.kinds.forEach((kind, j) => { if (kinds.includes(kind)) keys.push(j); });
    return chipsOf(view, title(place.round), keys, choose);
  });
}

// ---- The explorer ----------------------------------------------------------------------------

const stepOf = (key, { token, round }, row) => {
  const n = row.n, at = token === null ? null : row.at(token), to = k => ({ token: row.token(between(0, k, n - 1)) });
  return {
    ArrowRight: () => to((at ?? -1) + 1),
    ArrowLeft: () => to((at ?? n) - 1),
    PageDown: () => to((at ?? 0) + row.count),
    PageUp: () => to((at ?? 0) - row.count),
    Home: () => to(0),
    End: () => to(n - 1),
    ArrowUp: () => ({ round: round - 1 }),
    ArrowDown: () => ({ round: round + 1 }),
    Escape: () => ({ token: null }),
  }[key]?.();
};

const legend = () => {
  const item = (words, css) => make('span', {}, make('i', { style: css }), words);
  return make('div', { className: 'rx-key' },
    item('seen by this round', 'background:var(--rx-first);border-color:var(--rx-first)'),
    item('one bucket, lost to the window', 'border-color:var(--rx-first)'),
    item('shown by another round', 'background:currentColor;opacity:.4'),
    item('the window', 'background:currentColor;opacity:.12'),
    make('span', { textContent: 'bars: weight' }),
    make('span', { textContent: 'click or press to lock, Escape to unlock' }));
};

const MICROSCOPE_CSS = `
.rx-root h4{margin:0 0 4px;font-size:12px;font-weight:600}
.rx-mates{display:flex;flex-wrap:wrap;align-content:start;gap:4px 12px;min-height:136px;font-size:11px;margin:8px 0}
.rx-mates div{flex:1 1 200px}
.rx-mates div:last-child{flex:1.6 1 310px}
.rx-root .rx-chip{display:inline-flex;max-width:100%;white-space:nowrap;gap:5px;align-items:center;margin:0 3px 3px 0;padding:0 5px;border:1px solid;border-color:color-mix(in srgb,currentColor 25%,transparent);border-radius:9px;background:none;color:inherit;font-size:11px;line-height:1.6;cursor:pointer}
.rx-chip i{width:9px;height:9px}
.rx-chip b{font-family:${MONO};overflow:hidden;text-overflow:ellipsis}
.rx-key{display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0}
.rx-key i{display:inline-block;width:10px;height:10px;margin-right:6px;border:1.5px solid;vertical-align:-1px}
`;

export const mount = (root, data) => openPage(root, data, microscopeIn);

function microscopeIn(page) {
  const place = { round: 0, token: null, ...AS_PLANNED };
  const view = { place, number: 0 }; // what is drawn, and how often the plan has changed
  let data, kept = null; // the token that is chosen while none is pointed at
  let textStart = 0, sortedStart = 0, asking, asked = 0;

  const canvas = (className, more) => make('canvas', { className, ...more });
  const text = canvas('rx-text', { tabIndex: 0, role: 'slider', ariaLabel: 'token', ariaValueMin: 0 });
  const sorted = canvas('rx-sorted', { tabIndex: 0, role: 'slider', ariaLabel: 'token, by slot', ariaValueMin: 0 });
  const matrix = canvas('rx-matrix', { role: 'img' });
  const controls = ruleControls(go);
  const mates = make('div', { className: 'rx-mates' });
  const back = make('button', { type: 'button', textContent: 'as the model did', onclick: () => go(AS_PLANNED) });
  const nodes = [
    make('style', { textContent: MICROSCOPE_CSS }),
    make('div', { className: 'rx-bar' },
      controls.round, controls.rounds, back, controls.chunk, controls.window, controls.within),
    text, sorted, page.sentence, mates, matrix, legend(), page.details, page.caption,
  ];

  function update(fresh) {
    data = fresh;
    if (view.weights?.version !== data.version) view.weights = null;
    Object.assign(view, { data, key: null, letters: lettersOf(data.labels) });
    page.root.style.setProperty('--rx-first', data.accent);
    go({ token: kept, ...data.place });
    if (data.late) arrive(data.late);
  }

  // Weights, which come after the plan: those of other data are too late.
  function arrive(late) {
    if (late.version !== data.version) return;
    view.weights = { ...unpack(late), answer: view.weights?.answer };
    go({}, true);
  }

  // All weights of one token, where the page holds only some: of another token it is too late.
  function answer({ version, token, weights }) {
    if (version !== data.version || token !== place.token || !view.weights) return;
    view.weights.answer = { token, found: new Map(weights) };
    go({}, true);
  }

  // Asks the kernel for them, if there is one, once the reader rests on a token.
  function askForRest() {
    clearTimeout(asking);
    view.waits = isOwn(place) && view.weights && isCut(view.weights, place.token) && page.canAsk();
    const question = { version: data.version, token: place.token, number: ++asked };
    if (view.waits) asking = setTimeout(page.ask, 60, question);
  }

  function go(change, pointing = false, held = null) {
    if (page.blocked) return;
    settle(data, Object.assign(place, change));
    if (!pointing) kept = place.token;
    const key = ruleKey(place);
    if (view.key !== key) plan(key);
    const { token } = place;
    Object.assign(view, { plan: view.plans[place.round], buckets: view.rule.buckets[place.round] });
    view.row = token === null ? null : rowOf(view.plans, view.rule, place.round, token);
    view.shares = token !== null && view.weights && isOwn(place) ? weightsOf(view.weights, token) : null;
    view.heaviest = Math.max(1, ...(view.shares?.values() ?? []));
    askForRest();
    scroll(held);
    speak();
    redraw();
  }

  function choose(token) { // in the list, whose buttons are then others
    go({ token });
    text.focus({ preventScroll: true });
  }

  function plan(key) {
    const rule = ruleOf(data, place), plans = rule.buckets.map(buckets => planRound(buckets, rule));
    const whole = planRound(rule.buckets[0], { ...rule, within_bucket: false });
    Object.assign(view, { key, rule, plans, whole, number: view.number + 1 });
  }

  const room = () => Math.min(lengthOf(data), roomFor(view.letters, text.clientWidth || 800));
  const squareStart = () => // the square shows more slots than have room for their names
    between(0, sortedStart - ((DETAIL - room()) >> 1), Math.max(0, lengthOf(data) - DETAIL));

  function scroll(held) { // the details, to the chosen token, except where the pointer is
    const n = lengthOf(data), { token } = place, count = room(), last = Math.max(0, n - count);
    const to = (start, at) => (token === null ? Math.min(start, last) : follow(start, at, n, count));
    if (held !== text) textStart = to(textStart, token);
    if (held !== sorted) sortedStart = to(sortedStart, view.plan.slot[token]);
  }

  function rowsOfTokens() {
    const n = lengthOf(data), { order, slot } = view.plan, count = room(), range = (what, start) =>
      `${what} ${num(start)}–${num(Math.min(n, start + count) - 1)} below`;
    const state = !isOwn(place) ? 'not what the model did, ' : !view.weights ? 'weights pending, '
      : view.waits ? 'more weights pending, ' : isCut(view.weights, place.token) ? 'heaviest weights, ' : '';
    return [
      { n, count, start: textStart, token: k => k, at: i => i,
        title: `the text, ${many(n, 'token')}`, range: range(`${state}tokens`, textStart) },
      { n, count, start: sortedStart, token: k => order[k], at: i => slot[i], cut: view.rule.chunk_length,
        title: `round ${place.round}: sorted by bucket, cut into chunks`, range: range('slots', sortedStart) },
    ];
  }

  function redraw() {
    if (page.blocked || !text.clientWidth) return;
    [textStart, sortedStart] = [textStart, sortedStart].map(at => Math.min(at, lengthOf(data) - room())); // another width
    view.rows = rowsOfTokens();
    drawRow(text, view, view.rows[0]);
    drawRow(sorted, view, view.rows[1]);
    drawMatrix(matrix, view, squareStart());
    mates.replaceChildren(...(place.token === null ? [make('p', { textContent: HINT })] : listsOf(view, choose)));
  }

  function speak() {
    const words = describeMicroscope(view), n = lengthOf(data), { token } = place;
    matrix.ariaLabel = `Who sees whom. ${words}`;
    for (const [canvas, at] of [[text, token], [sorted, view.plan.slot[token]]]) {
      canvas.ariaValueMax = n - 1;
      canvas.ariaValueNow = token === null ? 0 : at;
      canvas.ariaValueText = token === null ? 'no token chosen' : words;
    }
    controls.show(data, view.rule, place);
    back.style.visibility = isOwn(place) ? 'hidden' : '';
    page.say(words, { ...place, token: kept });
  }

  function rows() {
    const { rule, plans, plan, buckets, shares } = view, end = Math.min(lengthOf(data), textStart + DETAIL);
    const count = (kinds, ...wanted) => kinds.filter(kind => wanted.includes(kind)).length;
    return [
      ['position', 'token', 'bucket', 'slot', 'chunk', 'sees', 'loses', 'seen by other rounds', 'weight from the chosen'],
      ...Array.from({ length: end - textStart }, (_, k) => {
        const i = textStart + k, { kinds } = rowOf(plans, rule, place.round, i);
        return [i, data.labels[i], buckets[i], plan.slot[i], Math.floor(plan.slot[i] / rule.chunk_length),
          count(kinds, SEEN), count(kinds, LOST, FOUND), count(kinds, FOUND, ELSEWHERE),
          shares?.has(i) ? percent(shares.get(i)) : ''];
      }),
    ];
  }

  // Pointing. In an overview one drags the detail along; elsewhere one points, and a click locks.
  const placeIn = (canvas, { clientX, clientY }) => {
    const box = canvas.getBoundingClientRect();
    return { x: clientX - box.left, y: clientY - box.top, width: box.width };
  };
  const lock = (token, held) => go({ token: kept === token ? null : token }, false, held);
  [text, sorted].forEach((canvas, k) => {
    const found = event => {
      const { x, y, width } = placeIn(canvas, event), row = view.rows[k], at = layout(row, width);
      const dragged = canvas.hasPointerCapture(event.pointerId), over = dragged || y < OVER + STRIP + FUNNEL / 2;
      return { dragged, over, token: row.token(over ? at.atOver(x) : at.atDetail(x)) };
    };
    canvas.onpointerdown = event => {
      const { over, token } = found(event);
      if (!over) return;
      canvas.setPointerCapture(event.pointerId);
      go({ token });
    };
    canvas.onpointermove = event => {
      const { dragged, over, token } = found(event);
      canvas.style.cursor = over ? 'grab' : 'pointer';
      if (dragged) go({ token });
      else go({ token }, true, canvas);
    };
    canvas.onclick = event => {
      const { over, token } = found(event);
      if (!over) lock(token, canvas);
    };
    canvas.onpointerleave = () => go({ token: kept });
    canvas.onkeydown = event => {
      const step = stepOf(event.key, place, view.rows[k]);
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      go(step);
    };
  });
  const inMatrix = event => {
    const { x, y, width } = placeIn(matrix, event), n = lengthOf(data), { size, x: left, one } = squares(width, n);
    const down = between(0, y - TITLE, size - 1), near = x > left - BETWEEN / 2;
    const token = near ? view.plan.order[squareStart() + Math.floor(down / one)] : Math.floor((down * n) / size);
    return [token, near ? sorted : null];
  };
  matrix.onpointermove = event => {
    const [token, held] = inMatrix(event);
    go({ token }, true, held);
  };
  matrix.onclick = event => lock(...inMatrix(event));
  matrix.onpointerleave = () => go({ token: kept });

  const canvases = [text, sorted, matrix], shown = view;
  const drawn = () => ({ ...squares(matrix.clientWidth, lengthOf(data)), start: squareStart() });
  return { nodes, canvases, place, update, go, redraw, rows, arrive, answer, shown, squares: drawn };
}
