// Bucketing: the sequence, its buckets, sorted order and chunks, and who sees whom, round by round.
// Its words are those of `describe` in plan_view.js, which are those of `Bucketing.describe`.

import { opened } from './letters.js';
import { binned, MOST_PAIRWISE, SEVERAL } from './plan_cells.js';
import {
  describe, dial, kindsFor, kindsOf, make, num, openPage, painter, planRound, ELSEWHERE, FOUND, HIDDEN, LOST, SEEN,
} from './plan_view.js';
import { AS_PLANNED, between, lengthOf, ruleControls, ruleKey, ruleOf, settle } from './plan_rule.js';

// ---- The picture ---------------------------------------------------------------------------

const STEPS = ['tokens', 'hash', 'sort', 'cut', 'look'];
const [TOKENS, HASH, SORT, CUT, LOOK] = STEPS.keys();
const WHAT = [
  'the sequence, in reading order',
  'every token falls into a bucket',
  'sort by bucket, ties in reading order',
  'cut the sorted row into chunks',
  'point at a token, or use the arrow keys, to see what it may look at',
];
const ROW = 24, NAMES = 92; // pixels, in the upper canvas
const TITLE = 22, SQUARE = 400, BETWEEN = 32; // pixels, in the lower one
const MOST_CELLS = 1200, MOST_WAYS = 512, MOST_ROWS = 200; // of more tokens some are drawn or listed

// How high things stand in the upper canvas. A few tokens have room for every number.
const levels = room => (room >= 36
  ? { numbers: true, reading: 20, ways: 66, sorted: 174, chunks: 238, height: 286 }
  : { numbers: false, reading: 6, ways: 33, sorted: 150, chunks: 178, height: 226 });

// Where things stand in the upper canvas: a cell's width, and its left edge by position or slot.
function layout(width, n, chunk_length) {
  const left = width < 560 ? 0 : NAMES, room = width - left - 2, chunks = Math.ceil(n / chunk_length);
  const gap = Math.min(10, (0.25 * room) / chunks), one = room / n, two = (room - gap * (chunks - 1)) / n;
  return {
    left, one, two, y: levels(one),
    reading: i => left + i * one,
    sorted: (s, cut) => (cut ? left + s * two + Math.floor(s / chunk_length) * gap : left + s * one),
  };
}

// The pose of the sorted row, as numbers that can be interpolated: every token's left edge, then
// how far the row has come down, then the width of a cell.
function poseOf(view, width) {
  const { data, plan, step } = view, at = layout(width, plan.slot.length, data.chunk_length);
  const lefts = Array.from(plan.slot, (s, i) => (step < SORT ? at.reading(i) : at.sorted(s, step >= CUT)));
  return Float64Array.of(...lefts, step < SORT ? 0 : 1, step < CUT ? at.one : at.two);
}

// The upper canvas: both rows of tokens, the ways between them, and what the chosen token may see.
function drawStrips(canvas, view, pose) {
  const { data, plan, row, token, step } = view, n = plan.slot.length, width = canvas.clientWidth;
  const at = layout(width, n, data.chunk_length), { height } = at.y;
  const chosen = token !== null && step === LOOK, down = pose[n], wide = pose[n + 1];
  const scene = {
    ...view, ...painter(canvas, width, height), n, pose, chosen, wide, at,
    y: at.y.reading + (at.y.sorted - at.y.reading) * down,
    padded: i => !!data.padding?.[i],
    kind: i => (!chosen || i === token ? SEEN : row[i]),
    lost: i => scene.kind(i) === LOST || scene.kind(i) === FOUND,
    name(words, y) {
      if (at.left) scene.text(words, NAMES - 10, y, { align: 'right', alpha: 0.75 });
    },
  };
  const every = Math.ceil(n / MOST_CELLS), way = Math.ceil(n / MOST_WAYS), lit = [];
  if (chosen) row.forEach((kind, i) => { if (kind !== HIDDEN || i === token) lit.push(i); });
  const inRow = s => (down === 1 ? plan.order[s] : s);
  scene.name('reading order', at.y.reading + ROW / 2);
  for (let i = 0; i < n; i++) if (i % way === 0) drawWay(scene, i);
  if (way > 1) for (const i of lit) drawWay(scene, i);
  for (let i = 0; i < n; i += every) drawCell(scene, i, at.reading(i), at.y.reading, at.one * every);
  if (step >= SORT) for (let s = 0; s < n; s += every) drawCell(scene, inRow(s), pose[inRow(s)], scene.y, wide * every);
  if (every > 1)
    for (const i of lit) {
      drawCell(scene, i, at.reading(i), at.y.reading, Math.max(1.5, at.one));
      drawCell(scene, i, pose[i], scene.y, Math.max(1.5, wide));
    }
  if (at.y.numbers) drawNumbers(scene, down === 1);
  if (step >= SORT && down === 1) drawBuckets(scene);
  if (step >= CUT && down === 1) drawChunks(scene);
  if (chosen) drawWindow(scene);
  else scene.text(WHAT[step], at.left, height - 16, { align: 'left' });
}

// The slots that a slot's occupant may see.
const runOf = ({ first, last }, s) =>
  (first[s] > last[s] ? '–' : first[s] === last[s] ? `${first[s]}` : `${first[s]}–${last[s]}`);

// Every token's numbers: position and bucket at its place in the text, slot and run in the sorted row.
function drawNumbers({ plan, buckets, step, pose, wide, n, at, padded, name, text }, arrived) {
  const line = (words, y, from, of) => {
    if (step < from) return;
    name(words, y);
    for (let i = 0; i < n; i++) text(of(i), (from < SORT ? at.reading(i) + at.one / 2 : pose[i] + wide / 2), y);
  };
  const { reading, sorted } = at.y;
  line('position', reading - 10, TOKENS, i => `${i}`);
  line('bucket', reading + ROW + 10, HASH, i => (padded(i) ? '–' : `${buckets[i]}`));
  if (!arrived) return;
  line('slot', sorted + ROW + 12, SORT, i => `${plan.slot[i]}`);
  line('may see slots', sorted + ROW + 28, LOOK, i => runOf(plan, plan.slot[i]));
}

// What a cell calls its token: a name, shortened where it must be, upright where more of it then fits.
// Part of a number would be another number.
function nameIn({ data, fits, short }, i, w) {
  const size = Math.min(12, Math.max(8, w)), small = Math.min(size, 10);
  if (!data.labels) return [fits(`${i}`, w, size) ? `${i}` : '', { size }];
  const whole = data.labels[i];
  if (fits(whole, w, size)) return [whole, { size }];
  const flat = short(whole, w, small), high = short(whole, ROW - 2, small);
  return high.length > flat.length ? [high, { size: small, upright: true }] : [flat, { size: small }];
}

function drawCell(scene, i, x, y, room) {
  const { data, buckets, token, step, chosen, kind, ink, text, fill, frame } = scene;
  const b = buckets[i], w = room > 5 ? room - 1 : room, padding = scene.padded(i);
  const filled = step > TOKENS && !padding && kind(i) === SEEN, colour = filled ? data.text_colours[b] : ink;
  if (step === TOKENS || padding) frame(x, y, w, ROW, ink, { alpha: 0.4, dash: padding ? [2, 2] : [] });
  else if (scene.lost(i) && w > 2) frame(x, y, w, ROW, data.colours[b], { weight: Math.min(2, w / 4) });
  else fill(x, y, w, ROW, data.colours[b], filled ? 1 : scene.lost(i) ? 0.6 : 0.18);
  if (filled && data.hatched && b % 2) fill(x, y + ROW - 5, w, 2, colour, 0.8);
  if (room >= 8) {
    const [words, how] = nameIn(scene, i, w);
    text(words, x + w / 2, y + ROW / 2, { ...how, colour, alpha: filled ? 1 : 0.7 });
  }
  if (kind(i) === ELSEWHERE || kind(i) === FOUND) fill(x + w / 2 - 1.5, y + ROW - 4, 3, 3, ink, 0.8);
  if (chosen && i === token) frame(x - 2, y - 2, w + 4, ROW + 4, ink, { weight: 2 });
}

// A token's way from its place in the text to its slot.
function drawWay(scene, i) {
  const { data, buckets, token, pose, at, wide, chosen, kind, pen, ink } = scene, lost = scene.lost(i);
  const from = at.reading(i) + at.one / 2, to = pose[i] + wide / 2;
  const top = at.y.ways, bottom = scene.y - 22;
  if (bottom <= top || scene.padded(i)) return;
  Object.assign(pen, {
    strokeStyle: chosen && i === token ? ink : data.colours[buckets[i]],
    globalAlpha: !chosen ? 0.75 : kind(i) === SEEN || lost ? 1 : 0.12,
    lineWidth: Math.max(0.5, Math.min(2, at.one / 6)),
  });
  pen.setLineDash(lost ? [3, 3] : []);
  pen.beginPath();
  pen.moveTo(from, top);
  pen.bezierCurveTo(from, (top + bottom) / 2, to, (top + bottom) / 2, to, bottom);
  pen.stroke();
  pen.setLineDash([]);
}

function drawBuckets({ data, plan, buckets, pose, wide, n, at, padded, name, text, fits, fill }) {
  const { sorted } = at.y;
  name('bucket', sorted - 14);
  name('sorted order', sorted + ROW / 2);
  const group = s => (padded(plan.order[s]) ? 'padding' : `${buckets[plan.order[s]]}`);
  for (let s = 0, end; s < n; s = end) {
    for (end = s + 1; end < n && group(end) === group(s); ) end++;
    const x = pose[plan.order[s]], w = pose[plan.order[end - 1]] + wide - x;
    if (!padded(plan.order[s])) fill(x, sorted - 6, Math.max(w - 1, w / 2), 3, data.colours[buckets[plan.order[s]]]);
    if (fits(group(s), w)) text(group(s), x + w / 2, sorted - 14);
  }
}

// The least of 1, 2, 5, 10, 20, ... that is enough.
function everyFew(enough) {
  let every = 1;
  for (let k = 0; !enough(every); k++) every = [2, 5, 10][k % 3] * 10 ** Math.floor(k / 3);
  return every;
}

function drawChunks({ data, at, wide, n, ink, name, text, fits, fill }) {
  const y = at.y.chunks, pitch = at.sorted(data.chunk_length, true) - at.sorted(0, true);
  const widest = num(Math.floor((n - 1) / data.chunk_length)), every = everyFew(k => fits(widest, k * pitch - 6));
  name('chunk', y + 10);
  for (let s = 0, chunk = 0; s < n; s += data.chunk_length, chunk++) {
    const x = at.sorted(s, true), w = Math.min(data.chunk_length, n - s) * wide;
    fill(x, y, Math.max(w - 1, w / 2), 1.5, ink, 0.6);
    if (chunk % every === 0) text(num(chunk), x + w / 2, y + 10);
  }
}

// What the chosen token's window covers, and in it what it may look at.
function drawWindow({ plan, whole, token, at, wide, ink, name, fill, padded }) {
  if (padded(token)) return;
  const y = at.y.height - 16, s = plan.slot[token];
  name('its window', y);
  for (const [{ first, last }, height, alpha] of [[whole, 10, 0.15], [plan, 4, 0.85]]) {
    const x = at.sorted(first[s], true), w = at.sorted(last[s], true) + wide - x - 1;
    if (first[s] <= last[s]) fill(x, y - height / 2, w, height, ink, alpha);
  }
}

// The lower canvas, two squares: queries in rows and keys in columns, on the left in sorted order, on
// the right in reading order. Whole pixels a cell where so many fit, so that cells are crisp.
function squares(width, n) {
  const room = Math.floor(Math.min(SQUARE, (width - BETWEEN) / 2));
  const size = room < 2 * n ? room : room - (room % n);
  return { size, unit: size / n, xs: [0, size + BETWEEN] };
}

const TITLES = ['sorted order: near the diagonal', 'reading order: scattered; other rounds in grey'];
const placesOf = view => [view.plan.slot, view.plan.slot.map((_, i) => i)];

function drawSquares(canvas, view) {
  const width = canvas.clientWidth, { size, unit, xs } = squares(width, view.buckets.length);
  const height = TITLE + size + 2, style = getComputedStyle(canvas);
  const { pen, ink, frame, fill } = painter(canvas, width, height, style);
  const key = [view.round, view.step, width, ink, window.devicePixelRatio].join();
  if (view.still?.key !== key) view.still = { key, canvas: drawPairs(view, width, style) };
  pen.drawImage(view.still.canvas, 0, 0, width, height);
  const { token, row } = view;
  if (token === null || view.step < LOOK) return;
  placesOf(view).forEach((place, k) => {
    const y = TITLE + place[token] * unit;
    frame(xs[k] - 1, y - 2, size + 2, unit + 3, ink, { weight: 1.5 });
    if (!view.kinds)
      row.forEach((kind, j) => { if (kind === SEEN) fill(xs[k] + place[j] * unit - 1, y - 2, 2, 5, ink); });
  });
}

// All but the chosen token's row: painted once, and kept until something else changes.
function drawPairs(view, width, style) {
  const { data, buckets, kinds, whole } = view, n = buckets.length, { size, unit, xs } = squares(width, n);
  const canvas = document.createElement('canvas'), places = placesOf(view);
  const { ink, text, fill, frame } = painter(canvas, width, TITLE + size + 2, style);
  const gap = unit >= 4 ? 1 : 0, edge = k => Math.round(k * unit);
  const extent = k => Math.max(1, edge(k + 1) - edge(k) - gap);
  xs.forEach((x, k) => {
    text(TITLES[k], x, 9, { align: 'left' });
    frame(x, TITLE, size, size, ink, { alpha: 0.35 });
  });
  if (view.step < LOOK) return canvas;
  if (!kinds) return drawBins(view, size, xs, { canvas, ink, fill });
  for (let s = 0; s < n; s++) {
    const left = edge(whole.first[s]), right = edge(whole.last[s] + 1);
    if (left < right) fill(left, TITLE + edge(s), right - left, edge(s + 1) - edge(s), ink, 0.1);
  }
  places.forEach((place, k) => {
    const lefts = Array.from(place, column => xs[k] + edge(column)), sizes = Array.from(place, extent);
    for (let i = 0, at = 0; i < n; i++) {
      const colour = data.colours[buckets[i]], y = TITLE + edge(place[i]), h = sizes[i];
      for (let j = 0; j < n; j++, at++) {
        const kind = kinds[at];
        if (kind === HIDDEN) continue;
        if (k && (kind === ELSEWHERE || kind === FOUND)) fill(lefts[j], y, sizes[j], h, ink, 0.22);
        if (kind === SEEN) fill(lefts[j], y, sizes[j], h, colour);
        else if (kind !== ELSEWHERE && gap) frame(lefts[j], y, sizes[j], h, colour);
        else if (kind !== ELSEWHERE) fill(lefts[j], y, sizes[j], h, colour, 0.35);
      }
    }
  });
  return canvas;
}

// Many pairs, in bins: the darker, the more; ink where several buckets share a bin. In sorted order
// what a bucket loses is the tint of its block.
function drawBins({ data, plans, round, plan, buckets, whole }, size, xs, { canvas, ink, fill }) {
  const n = buckets.length, cells = Math.floor(size / 2), unit = size / cells, pen = canvas.getContext('2d');
  const paint = (x, y, w, h, colour, alpha) => fill(xs[0] + x, TITLE + y, w, h, colour, alpha);
  for (let c = 0; c < cells; c++) {
    const [s, t] = [c, c + 1].map(edge => Math.ceil((edge * n) / cells)), left = whole.first[s];
    paint((left * size) / n, c * unit, ((whole.last[t - 1] + 1 - left) * size) / n, unit, ink, 0.1);
  }
  for (let s = 0, end; s < n && !data.padding?.[plan.order[s]]; s = end) {
    const b = buckets[plan.order[s]], mate = t => buckets[plan.order[t]] === b && !data.padding?.[plan.order[t]];
    for (end = s + 1; end < n && mate(end); ) end++;
    const [from, to] = [s, end].map(edge => (edge * size) / n);
    pen.save();
    pen.beginPath();
    for (const [x, y] of [[from, from], data.causal ? [to, to] : [to, from], [to, to], [from, to]])
      pen.lineTo(xs[0] + x, TITLE + y);
    pen.clip();
    paint(from, from, to - from, to - from, data.colours[b], 0.35);
    pen.restore();
  }
  xs.forEach((x, k) => {
    const { seen, bucket, elsewhere } = binned(plans, data, round, k === 0, cells);
    const most = seen.reduce((a, b) => Math.max(a, b), 1);
    seen.forEach((count, at) => {
      const cell = [x + (at % cells) * unit, TITLE + Math.floor(at / cells) * unit, unit, unit];
      if (k && elsewhere[at] && !count) fill(...cell, ink, 0.22);
      const colour = bucket[at] === SEVERAL ? ink : data.colours[bucket[at]];
      if (count) fill(...cell, colour, 0.25 + 0.75 * Math.sqrt(count / most));
    });
  });
  return canvas;
}

// ---- Pointing --------------------------------------------------------------------------------

function tokenInStrips(view, width, x, y) {
  const { data, plan, step } = view, n = plan.slot.length, at = layout(width, n, data.chunk_length);
  if (step < SORT || y < (at.y.reading + at.y.sorted) / 2) return Math.floor((x - at.left) / at.one);
  let s = 0;
  while (s + 1 < n && at.sorted(s + 1, step >= CUT) <= x) s++;
  return plan.order[s];
}

function tokenInSquares(view, width, x, y) {
  const { order } = view.plan, { unit, xs } = squares(width, order.length);
  const row = Math.max(0, Math.min(order.length - 1, Math.floor((y - TITLE) / unit)));
  return x < xs[1] - BETWEEN / 2 ? order[row] : row;
}

const moveOf = (key, { token, round }, n) => ({
  ArrowRight: { token: (token ?? -1) + 1 },
  ArrowLeft: { token: (token ?? n) - 1 },
  ArrowUp: { round: round - 1 },
  ArrowDown: { round: round + 1 },
  Home: { token: 0 },
  End: { token: n - 1 },
  Escape: { token: null },
})[key];

// ---- The explorer ----------------------------------------------------------------------------

// The colours of some buckets, what is lost as it is drawn in cells of this size, and what bins add.
function legendOf({ data: { colours }, kinds }, unit) {
  const item = (words, css) => make('span', {}, make('i', { style: css }), words);
  const some = [0, 0.5, 1].map(share => colours[Math.floor(share * (colours.length - 1))]);
  const stripes = some.map((colour, k) => `${colour} ${33 * k}% ${33 * k + 34}%`).join();
  return [
    item(`seen by this round${kinds ? '' : ': the stronger, the more pairs'}`,
      `border:0;padding:1px;background:linear-gradient(90deg,${stripes})`),
    ...(kinds ? [] : [item('pairs of several buckets', 'background:currentColor')]),
    item('same bucket, lost to the window',
      kinds && unit >= 4 ? `border-color:${some[1]}` : `border:0;padding:1px;background:${some[1]};opacity:.35`),
    item('seen by another round (a dot in the rows above)', 'background:currentColor;opacity:.3'),
    item('the window', 'background:currentColor;opacity:.12'),
    make('span', { textContent: 'rows look, columns are looked at' }),
  ];
}

// Of many tokens the table lists some, from the chosen one on.
function rowsOf({ data, plans, plan, round, token, buckets }) {
  const n = buckets.length, most = n > MOST_PAIRWISE ? MOST_ROWS : n;
  const start = n > most ? Math.min(token ?? 0, n - most) : 0;
  return [
    ['position', 'token', 'bucket', 'slot', 'chunk', 'may see slots', 'sees', 'loses', 'seen by other rounds'],
    ...Array.from({ length: most }, (_, k) => {
      const i = start + k, s = plan.slot[i], kinds = kindsFor(plans, data, round, i);
      const count = (...wanted) => kinds.filter(kind => wanted.includes(kind)).length;
      return [
        i, data.labels?.[i] ?? '', buckets[i], s, Math.floor(s / data.chunk_length), runOf(plan, s),
        count(SEEN), count(LOST, FOUND), count(FOUND, ELSEWHERE),
      ];
    }),
  ];
}

const PAIRS_CSS = `
.rx-pairs{display:flex;flex-wrap:wrap;gap:6px 30px}
.rx-root .rx-matrix{flex:0 1 832px;min-width:0}
.rx-pairs aside{flex:1 1 220px}
.rx-key{display:flex;flex-wrap:wrap;gap:2px 18px;margin:10px 0 8px}
.rx-key i{display:inline-block;width:10px;height:10px;margin-right:6px;border:1.5px solid;vertical-align:-1px}
`;

export const mount = (root, data) => openPage(root, data, bucketingIn);

function bucketingIn(page) {
  const place = { round: 0, token: null, step: LOOK, ...AS_PLANNED };
  const view = {}; // what is drawn: the data under the chosen rule, what follows from them, and the place
  let kept = null; // the token that is chosen while none is pointed at
  let pose = null, frames = 0, data;

  const strips = make('canvas', { className: 'rx-strips', tabIndex: 0 });
  const matrix = make('canvas', { className: 'rx-matrix', role: 'img' });
  const controls = ruleControls(go), step = dial('step', step => go({ step }));
  const play = make('button', { type: 'button', textContent: '▶ play the steps', onclick: playSteps });
  Object.assign(strips, { role: 'slider', ariaLabel: 'token', ariaValueMin: 0 });
  const key = make('div', { className: 'rx-key' }), aside = make('aside', {}, key, page.details, page.caption);
  const nodes = [
    make('style', { textContent: PAIRS_CSS }),
    make('div', { className: 'rx-bar' }, controls.round, step.row, play),
    make('div', { className: 'rx-bar' }, controls.rounds, controls.chunk, controls.window, controls.within),
    strips, page.sentence, make('div', { className: 'rx-pairs' }, matrix, aside),
  ];

  function update(fresh) {
    data = opened(fresh);
    view.key = null;
    step.input.max = LOOK;
    strips.ariaValueMax = lengthOf(data) - 1;
    go({ token: kept, ...data.place });
  }

  function plan(key) {
    const rule = ruleOf(data, place), plans = rule.buckets.map(buckets => planRound(buckets, rule));
    const whole = planRound(rule.buckets[0], { ...rule, within_bucket: false });
    Object.assign(view, { key, data: rule, plans, whole, round: null, still: null });
  }

  function go(change, pointing = false) {
    if (page.blocked) return;
    settle(data, Object.assign(place, change));
    place.step = between(TOKENS, place.step, LOOK);
    if (!pointing) kept = place.token;
    const key = ruleKey(place), { round, token, step } = place;
    if (view.key !== key) plan(key); // or the data are new
    const { data: rule, plans } = view;
    if (view.round !== round) {
      const buckets = rule.buckets[round];
      const kinds = buckets.length > MOST_PAIRWISE ? null : kindsOf(plans, rule, round);
      Object.assign(view, { plan: plans[round], buckets, kinds, words: describe(plans, rule, round, null) });
    }
    const row = token === null ? null : kindsFor(plans, rule, round, token);
    Object.assign(view, { round, token, step, row });
    speak();
    animate();
  }

  function speak() {
    const { round: r, token } = place;
    const words = token === null ? view.words : describe(view.plans, view.data, r, token);
    matrix.ariaLabel = `Who sees whom. ${words}`;
    strips.ariaValueNow = place.token ?? 0;
    strips.ariaValueText = place.token === null ? 'no token chosen' : words;
    controls.show(data, view.data, place);
    step.input.value = place.step;
    step.output.textContent = STEPS[place.step];
    page.say(words, { ...place, token: kept });
  }

  function animate() { // from the pose that is shown to the one that is meant
    const width = strips.clientWidth;
    if (!width || page.blocked) return;
    const from = pose, to = poseOf(view, width), began = performance.now(), mine = ++frames;
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches || from?.length !== to.length;
    const { still: painted } = view;
    drawSquares(matrix, view);
    if (view.still !== painted) key.replaceChildren(...legendOf(view, drawn().unit));
    const frame = now => {
      if (mine !== frames) return; // a newer movement has begun
      const t = still ? 1 : Math.max(0, Math.min(1, (now - began) / 500)), eased = t * t * (3 - 2 * t);
      pose = t === 1 ? to : to.map((x, k) => from[k] + (x - from[k]) * eased);
      drawStrips(strips, view, pose);
      if (t < 1) requestAnimationFrame(frame);
    };
    frame(still || from.every((x, k) => x === to[k]) ? Infinity : began);
  }

  function redraw() { // another size or another theme
    pose = null;
    animate();
  }

  async function playSteps() {
    play.disabled = true;
    for (const step of STEPS.keys()) {
      go({ step });
      await new Promise(done => setTimeout(done, 1100));
    }
    play.disabled = false;
  }

  for (const [canvas, tokenAt] of [[strips, tokenInStrips], [matrix, tokenInSquares]]) {
    const pointed = ({ clientX, clientY }) => {
      const box = canvas.getBoundingClientRect();
      return tokenAt(view, box.width, clientX - box.left, clientY - box.top);
    };
    canvas.onpointermove = event => go({ token: pointed(event) }, true);
    canvas.onpointerleave = () => go({ token: kept });
    canvas.onclick = event => go({ token: kept === pointed(event) ? null : pointed(event) });
  }
  strips.onkeydown = event => {
    const move = moveOf(event.key, place, view.buckets.length);
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(move);
  };

  const drawn = () => squares(matrix.clientWidth, view.buckets.length);
  const rows = () => rowsOf(view), canvases = [strips, matrix];
  return { nodes, canvases, place, update, go, redraw, rows, squares: drawn };
}
