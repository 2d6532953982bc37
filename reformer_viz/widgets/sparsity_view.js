// Sparsity: who sees whom, coloured by the round that saw the pair first, beside full attention's
// weights. Number of rounds, chunk length, window rule and order are answered here, from the buckets;
// weights come from the kernel as a small picture, and as what each offered rule finds of them.

import { dial, make, many, num, openPage, painter, planRound } from './plan.js';
import { painterOn } from './kept.js';

export const READING = -1; // the order that is no round's sorted order

// ---- Counting --------------------------------------------------------------------------------

export const ruleOf = (data, window, chunk_length) => ({
  ...data, window, chunk_length,
  chunks_before: window === 'sliding' ? Math.max(1, data.chunks_before) : data.chunks_before,
});

// For each of the first rounds the number of pairs in every cell that it is the first to see. `known`
// are the counts of some first rounds, which later ones do not change.
export function countFirstSeen(plans, data, order, rounds, known = []) {
  const { length: n, per_cell, cells, causal } = data;
  const cellOf = Int32Array.from({ length: n }, (_, i) =>
    Math.floor((order === READING ? i : plans[order].slot[i]) / per_cell));
  const counts = known.slice(0, rounds);
  for (let r = counts.length; r < rounds; r++) {
    const { order: at, first, last } = plans[r], of = new Uint16Array(cells * cells);
    for (let s = 0; s < n; s++) {
      const i = at[s], row = cellOf[i] * cells;
      for (let t = first[s]; t <= last[s]; t++) {
        const j = at[t];
        if (causal ? j < i : j !== i) if (!seenBefore(plans, r, i, j)) of[row + cellOf[j]]++;
      }
    }
    counts.push(of);
  }
  return counts;
}

function seenBefore(plans, round, i, j) {
  for (let r = 0; r < round; r++) {
    const { slot, first, last } = plans[r], s = slot[i], t = slot[j];
    if (first[s] <= t && t <= last[s]) return true;
  }
  return false;
}

// The scores of a round whose chunks meet all that some query of theirs may look at.
export function wholeTiles(rule) {
  const { first, last } = planRound(rule.buckets[0], { ...rule, within_bucket: false });
  const n = first.length, size = rule.chunk_length;
  let scores = 0;
  for (let start = 0; start < n; start += size) {
    const end = Math.min(start + size, n);
    let low = n, high = -1;
    for (let s = start; s < end; s++)
      if (first[s] <= last[s]) { low = Math.min(low, first[s]); high = Math.max(high, last[s]); }
    scores += (end - start) * Math.max(0, high - low + 1);
  }
  return scores;
}

const realOf = data => data.length - (data.padding ?? []).filter(Boolean).length;
export const possibleOf = data => (realOf(data) * (realOf(data) - 1)) / (data.causal ? 2 : 1);

// ---- In words: the same sentences as Sparsity.describe and SparsityByRule.describe_cell ---------------

export function percent(part, whole) {
  if (part > 0 && part * 20000 < whole) return 'less than 0.01 %';
  if (10 * part < whole) {
    const hundredths = Math.floor((20000 * part + whole) / (2 * whole));
    return `${Math.floor(hundredths / 100)}.${`${hundredths % 100}`.padStart(2, '0')} %`;
  }
  const tenths = Math.floor((2000 * part + whole) / (2 * whole));
  return `${num(Math.floor(tenths / 10))}.${tenths % 10} %`;
}

const MILLION = 1e6;
const sum = xs => {
  let all = 0;
  for (let k = 0; k < xs.length; k++) all += xs[k];
  return all;
};
const adding = counts => counts.map((pairs, r) => `round ${r} adds ${num(pairs)}`).join(', ');

export function describeAll(view) {
  const { data, rule, totals, rounds, tiles, mass } = view, n = data.length, real = realOf(data);
  const reach = rule.chunk_length * (rule.chunks_before + rule.chunks_after);
  const seen = sum(totals.slice(0, rounds)), all = possibleOf(data), [share, error] = mass[rounds - 1];
  const found = `${percent(share, MILLION)} of full attention's weight`;
  return `${many(n, 'token')}${real < n ? ` (${num(n - real)} of them padding)` : ''}, ` +
    `${many(data.n_buckets, 'bucket')}, ${many(rounds, 'round')}, ` +
    `${rule.window === 'sliding' ? `a sliding window of ${many(reach, 'slot')}` : `chunks of ${num(rule.chunk_length)}`}. ` +
    `Of ${many(all, 'pair')} they see ${num(seen)}, ${percent(seen, all)}: ${adding(totals.slice(0, rounds))}. ` +
    (data.drawn
      ? `They find about ${found} (standard error ${percent(error, MILLION)}: ${data.drawn} queries drawn). `
      : `They find ${found}. `) +
    `In whole tiles that takes ${many(rounds * tiles, 'score')}, ${percent(rounds * tiles, n * n)} of full ` +
    `attention's ${num(n * n)}.`;
}

export function describeCell({ data, plans, counts, rounds, order }, row, column) {
  const { length, per_cell, cells } = data, here = counts.slice(0, rounds).map(of => of[row * cells + column]);
  if (per_cell === 1) return describePair(data, plans, here, order, row, column);
  const stretch = cell => `${num(cell * per_cell)} to ${num(Math.min((cell + 1) * per_cell, length) - 1)}`;
  const [queries, keys] = order === READING ? ['Queries', 'keys'] : [`Queries in round ${order}'s slots`, 'keys in slots'];
  return `${queries} ${stretch(row)}, ${keys} ${stretch(column)}: the rounds see ${many(sum(here), 'pair')}: ${adding(here)}.`;
}

function describePair(data, plans, here, order, row, column) {
  const [query, key] = order === READING ? [row, column] : [row, column].map(slot => plans[order].order[slot]);
  const token = i => `${num(i)}${data.labels ? ` “${data.labels[i]}”` : ''}`;
  return `Query ${token(query)}, key ${token(key)}: ${seenBy(data, here, query, key)}`;
}

function seenBy(data, here, query, key) {
  if (data.padding?.[query] || data.padding?.[key]) return 'padding is in no pair.';
  if (query === key) return 'a token looks at itself only where there is nobody else.';
  if (data.causal && key > query) return 'the key stands later, and nobody sees later tokens.';
  const first = here.findIndex(Boolean);
  if (first < 0) return `${here.length === 1 ? 'the round does not see' : 'no round sees'} the pair.`;
  return `round ${first} is the first to see the pair.`;
}

// ---- The picture ---------------------------------------------------------------------------

const TITLE = 22, SQUARE = 400, BETWEEN = 32; // pixels, in the upper canvas
const BAR = 18, NAMES = 128, BELOW = 20; // pixels, in the lower one
const FAINTEST = 0.25, STRONGEST = 0.995, SHADE = 0.11, GAMMA = 0.4; // as in figures/sparsity.py

const rgbOf = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)); // "#RRGGBB"

function squares(width) {
  const size = Math.max(40, Math.floor(Math.min(SQUARE, (width - BETWEEN) / 2)));
  return { size, xs: [0, size + BETWEEN] };
}

// How many pairs of full attention's a cell holds.
function roomOf(data, order) {
  const m = data.per_cell, real = new Int32Array(data.cells);
  for (let i = 0; i < data.length; i++) if (!data.padding?.[i]) real[Math.floor(i / m)]++;
  return (a, b) => {
    if (order !== READING) return m * m;
    if (a === b) return (real[a] * (real[a] - 1)) / (data.causal ? 2 : 1);
    return data.causal && b > a ? 0 : real[a] * real[b];
  };
}

// How dense a cell is that is painted in full: denser than nearly all in which somebody is seen.
function topOf(densities) {
  const seen = densities.slice().sort();
  return seen.length ? seen[Math.floor(STRONGEST * (seen.length - 1))] : 1;
}

// The cells in which the first rounds see somebody, and how many pairs in each.
function litBy(counts, rounds) {
  const pairs = new Uint32Array(counts[0].length), lit = [];
  for (const of of counts.slice(0, rounds))
    for (let at = 0; at < of.length; at++) if (of[at]) pairs[at] += of[at];
  for (let at = 0; at < pairs.length; at++) if (pairs[at]) lit.push(at);
  return { pairs, lit };
}

// One pixel a cell, to be scaled. A cell mixes its rounds' colours, the stronger the more of its pairs
// are seen. What nobody sees is faint ink; what nobody may see, 0 of 0 pairs, stays empty.
function paintSeen({ data, counts, rounds, order }, ink) {
  const { cells } = data, room = roomOf(data, order), colours = data.colours.map(rgbOf);
  const { pairs, lit } = litBy(counts, rounds);
  const densities = Float32Array.from(lit, at => pairs[at] / room(Math.floor(at / cells), at % cells));
  const top = data.per_cell === 1 ? 1 : topOf(densities), { canvas, pixel, whole, show } = sheet(cells);
  pixel(0, ...ink, SHADE);
  const faint = whole[0];
  for (let row = 0, at = 0; row < cells; row++)
    for (let column = 0; column < cells; column++, at++) whole[at] = room(row, column) ? faint : 0;
  lit.forEach((at, k) => {
    const all = pairs[at];
    let red = 0, green = 0, blue = 0;
    for (let r = 0; r < rounds; r++) {
      const here = counts[r][at], [x, y, z] = colours[r];
      red += here * x; green += here * y; blue += here * z;
    }
    pixel(at, red / all, green / all, blue / all, FAINTEST + (1 - FAINTEST) * Math.sqrt(Math.min(1, densities[k] / top)));
  });
  show();
  return canvas;
}

function paintWeights({ weights, scale }) {
  const cells = weights.length, colours = scale.map(rgbOf), { canvas, pixel, show } = sheet(cells);
  weights.forEach((row, at) => [...row].forEach((level, column) => {
    if (level !== ' ') pixel(at * cells + column, ...colours[parseInt(level, 36)], 1);
  }));
  show();
  return canvas;
}

// An empty picture of one pixel a cell: its pixels one by one or as `whole` numbers, shown at the end.
function sheet(cells) {
  const canvas = make('canvas', { width: cells, height: cells }), pen = canvas.getContext('2d');
  const image = pen.createImageData(cells, cells), bytes = image.data, whole = new Uint32Array(bytes.buffer);
  const pixel = (at, red, green, blue, alpha) => {
    bytes[4 * at] = red; bytes[4 * at + 1] = green; bytes[4 * at + 2] = blue; bytes[4 * at + 3] = 255 * alpha;
  };
  return { canvas, pixel, whole, show: () => pen.putImageData(image, 0, 0) };
}

// More rounds than hues: every second one has a stripe, in cells that are large enough.
const striped = ({ hatched }, r) => hatched && r % 2 === 1;
const LEAST_STRIPED = 4; // pixels

function drawStripes({ fill }, { data, counts, rounds }, size, x) {
  const { cells } = data, unit = size / cells;
  if (data.per_cell > 1 || unit < LEAST_STRIPED) return;
  counts.slice(0, rounds).forEach((of, r) => of.forEach((seen, at) => {
    if (seen && striped(data, r))
      fill(x + (at % cells) * unit, TITLE + (Math.floor(at / cells) + 0.4) * unit, unit, 0.3 * unit, data.text_colours[r], 0.8);
  }));
}

// All but the marks of the chosen pair.
function drawMatrices({ pen, ink, text, frame, fill }, view, size, xs) {
  const { data, order } = view, images = [paintSeen(view, inkOf(ink)), paintWeights(data)];
  const titles = [order === READING ? 'who sees whom, in reading order' : `who sees whom, as round ${order} sorts`,
    `full attention's weights${data.drawn ? `, ${data.drawn} queries` : ''}`];
  images.forEach((image, k) => {
    text(titles[k], xs[k], 9, { align: 'left' });
    pen.globalAlpha = 1;
    pen.imageSmoothingEnabled = image.width > size * (window.devicePixelRatio || 1);
    pen.imageSmoothingQuality = 'high';
    pen.drawImage(image, xs[k], TITLE, size, size);
    if (k === 0) drawStripes({ fill }, view, size, xs[0]);
    frame(xs[k] - 0.5, TITLE - 0.5, size + 1, size + 1, ink, { alpha: 0.35 });
  });
  text('keys →, queries ↓', xs[0], TITLE + size + 11, { align: 'left', alpha: 0.7 });
  text(`lightest: ${data.lightest} or more of a query's weight in one cell`, xs[1], TITLE + size + 11, { align: 'left', alpha: 0.7 });
}

const inkOf = colour => colour.match(/[\d.]+/g).slice(0, 3).map(Number);

function drawSquares(canvas, view) {
  const width = canvas.clientWidth, { size, xs } = squares(width), { data, order } = view;
  const { ink, frame } = painterOn(canvas, width, TITLE + size + BELOW, [view.version, view.rounds],
    tools => drawMatrices(tools, view, size, xs));
  if (view.row === null) return;
  const unit = size / data.cells;
  const box = (x, y, w, h) => frame(x - 2, y - 2, w + 4, h + 4, ink, { weight: 1.5 });
  for (const x of order === READING ? xs : xs.slice(0, 1)) {
    box(x, TITLE + view.row * unit, size, unit);
    box(x + view.column * unit, TITLE, unit, size);
  }
}

const BARS = ['pairs seen', 'weight found', 'scores, in whole tiles'];

// What every shown round adds, as shares of full attention.
const sharesOf = ({ data, totals, rounds, tiles, mass }) => [
  r => totals[r] / possibleOf(data),
  r => (mass[r][0] - (r ? mass[r - 1][0] : 0)) / MILLION,
  () => tiles / data.length ** 2,
].map(share => [...Array(rounds).keys()].map(share));

function drawBars(canvas, view) {
  const width = canvas.clientWidth, { ink, text, fits, fill } = painter(canvas, width, 3 * (BAR + 6) + 4);
  const { data } = view;
  const shares = sharesOf(view), most = Math.max(...shares.map(sum)), whole = most > 0.2;
  const room = width - NAMES - 62, unit = room / (whole ? Math.max(1, most) : most || 1);
  shares.forEach((adds, row) => {
    const y = 2 + row * (BAR + 6);
    let x = NAMES;
    text(BARS[row], NAMES - 8, y + BAR / 2, { align: 'right' });
    adds.forEach((share, r) => {
      const wide = Math.max(0, share * unit), colour = data.text_colours[r];
      fill(x, y, wide, BAR, data.colours[r]);
      if (striped(data, r)) fill(x, y + BAR - 4, wide, 2, colour, 0.8);
      if (data.hatched && fits(`${r}`, wide - 2, 10)) text(`${r}`, x + wide / 2, y + 7, { size: 10, colour, alpha: 1 });
      x += share * unit;
    });
    if (whole && x < NAMES + unit && x + 50 > NAMES + unit) x = NAMES + unit; // the line below
    text(percent(Math.round(sum(adds) * MILLION), MILLION), x + 6, y + BAR / 2, { align: 'left' });
  });
  if (whole) fill(NAMES + unit, 0, 1, 3 * (BAR + 6), ink, 0.5); // all that full attention has
}

// ---- The explorer ----------------------------------------------------------------------------

const SPARSITY_CSS = `
.rx-root canvas{max-width:832px}
.rx-key{display:flex;flex-wrap:wrap;gap:2px 14px;margin:6px 0}
.rx-key i{display:inline-block;width:10px;height:10px;margin-right:6px;vertical-align:-1px}
.rx-bar select{font:inherit;padding:1px 4px}
`;

export const mount = (root, data) => openPage(root, data, sparsityIn);

const swatchOf = (data, r) => {
  const { colours: { [r]: colour }, text_colours: { [r]: stripe } } = data;
  return `background:${striped(data, r) ? `linear-gradient(${colour} 40%,${stripe} 40% 70%,${colour} 70%)` : colour}`;
};

const choice = (name, names, move) => {
  const select = make('select', {}, ...names.map(textContent => make('option', { textContent })));
  select.onchange = () => move(select.value);
  return { select, row: make('label', {}, name, select) };
};

const moveOf = ({ key, shiftKey }, { row, column }, cells) => {
  const step = shiftKey ? 16 : 1, here = { row: row ?? 0, column: column ?? 0 };
  return {
    ArrowRight: { ...here, column: here.column + step },
    ArrowLeft: { ...here, column: here.column - step },
    ArrowUp: { ...here, row: here.row - step },
    ArrowDown: { ...here, row: here.row + step },
    Home: { row: here.row, column: 0 },
    End: { row: here.row, column: cells - 1 },
    Escape: { row: null, column: null },
  }[key];
};

function rowsOf(view) {
  const { data, totals, tiles, mass, rounds } = view, n = data.length, all = possibleOf(data);
  const upTo = r => sum(totals.slice(0, r + 1));
  return [
    ['round', 'pairs it adds', 'pairs so far', 'of all pairs', 'weight found so far', 'scores so far', "of full attention's"],
    ...totals.slice(0, rounds).map((adds, r) => [
      r, num(adds), num(upTo(r)), percent(upTo(r), all), percent(mass[r][0], MILLION),
      num((r + 1) * tiles), percent((r + 1) * tiles, n * n),
    ]),
  ];
}

// What both squares show of so many queries, or cells of them, from the chosen one on.
const MOST_ROWS = 200, HEAVIEST = 3;

function cellRowsOf(view) {
  const { data, counts, rounds, order, plans, row } = view, { cells, per_cell, length } = data;
  const most = Math.min(MOST_ROWS, cells), start = Math.min(row ?? 0, cells - most), shown = [...Array(rounds).keys()];
  const stretch = (cell, per) => per === 1 ? num(cell) : `${num(cell * per)}–${num(Math.min((cell + 1) * per, length) - 1)}`;
  const token = cell => (order === READING ? cell : plans[order].order[cell]);
  const name = cell => stretch(per_cell === 1 ? token(cell) : cell, per_cell);
  const what = per_cell > 1 && order !== READING ? 'slots' : per_cell > 1 ? 'positions' : 'query';
  const weighed = per_cell === 1 || order === READING;
  const keysOf = (cell, r) => {
    const found = [];
    for (let column = 0, at = cell * cells; column < cells; column++, at++)
      if (counts[r][at]) found.push(per_cell === 1 ? name(column) : `${name(column)}: ${num(counts[r][at])}`);
    return found.join(per_cell === 1 ? ', ' : '; ');
  };
  return [
    [what, ...shown.map(r => `keys that round ${r} shows first${per_cell > 1 ? ', and pairs' : ''}`),
      ...(weighed ? ["keys with most of full attention's weight, about"] : [])],
    ...Array.from({ length: most }, (_, k) => {
      const cell = start + k;
      return [name(cell), ...shown.map(r => keysOf(cell, r)),
        ...(weighed ? [heaviestOf(data, per_cell === 1 ? token(cell) : cell * per_cell, stretch)] : [])];
    }),
  ];
}

// The keys in which a query's row of weights is lightest, with a share as exact as its colour is.
function heaviestOf({ weights, per_weight, top, scale }, query, stretch) {
  const levels = [...weights[Math.floor(query / per_weight)]].map(level => (level === ' ' ? -1 : parseInt(level, 36)));
  const keys = [...levels.keys()].filter(key => levels[key] > 0).sort((a, b) => levels[b] - levels[a] || a - b);
  const share = key => percent(Math.round(MILLION * top * (levels[key] / (scale.length - 1)) ** (1 / GAMMA)), MILLION);
  const most = key => (levels[key] === scale.length - 1 ? 'at least ' : '');
  return keys.slice(0, HEAVIEST).map(key => `${stretch(key, per_weight)}: ${most(key)}${share(key)}`).join('; ');
}

function sparsityIn(page) {
  const place = { rounds: null, chunk_length: null, window: null, order: READING, row: null, column: null };
  const view = { version: 0 }; // what is drawn: the data, what follows from them, and the place
  let kept = {}, data; // kept: the cell that is chosen while none is pointed at

  const matrix = make('canvas', { tabIndex: 0, role: 'slider', ariaLabel: 'pair', ariaValueMin: 0 });
  const shares = make('canvas', { role: 'img' });
  const rounds = dial('rounds', rounds => go({ rounds })), order = dial('order', k => go({ order: k - 1 }));
  const chunk = dial('chunk length', k => go({ chunk_length: data.chunk_lengths[k] }));
  const rule = choice('window', ['chunks', 'sliding'], window => go({ window }));
  const key = make('div', { className: 'rx-key' });
  const nodes = [
    make('style', { textContent: SPARSITY_CSS }),
    make('div', { className: 'rx-bar' }, rounds.row, chunk.row, rule.row, order.row),
    matrix, key, page.sentence, shares, page.details, page.caption,
  ];

  function update(fresh) {
    data = fresh;
    Object.assign(view, { data, cut: null });
    rounds.input.min = 1;
    rounds.input.max = data.buckets.length;
    chunk.input.max = data.chunk_lengths.length - 1;
    order.input.max = data.buckets.length;
    go({ ...kept, ...data.place });
  }

  const inside = (x, size) => (x === null ? null : Math.max(0, Math.min(size - 1, x)));

  function settle() { // the place that is nearest to what was asked for
    place.rounds = 1 + inside((place.rounds ?? data.rounds) - 1, data.buckets.length);
    if (!data.chunk_lengths.includes(place.chunk_length)) place.chunk_length = data.chunk_length;
    place.window ??= data.window;
    place.order = Math.min(place.order, data.buckets.length - 1);
    for (const axis of ['row', 'column']) place[axis] = inside(place[axis], data.cells);
  }

  function go(change, pointing = false) {
    if (page.blocked) return;
    Object.assign(place, change);
    settle();
    if (!pointing) kept = { row: place.row, column: place.column };
    const cut = [place.window, place.chunk_length].join(), ordered = [cut, place.order].join();
    if (view.cut !== cut) { // or the data are new
      const rule = ruleOf(data, place.window, place.chunk_length);
      const plans = data.buckets.map(buckets => planRound(buckets, rule));
      const mass = data.mass[place.window][data.chunk_lengths.indexOf(place.chunk_length)];
      Object.assign(view, { cut, rule, plans, mass, tiles: wholeTiles(rule), ordered: null });
    }
    if (view.ordered !== ordered || view.counts.length < place.rounds) { // or later rounds are shown
      const known = view.ordered === ordered ? view.counts : [];
      const counts = countFirstSeen(view.plans, data, place.order, place.rounds, known);
      Object.assign(view, { ordered, counts, totals: counts.map(sum), version: view.version + 1 });
    }
    Object.assign(view, place);
    speak();
    redraw();
  }

  function speak() {
    const all = describeAll(view), words = place.row === null ? all : describeCell(view, place.row, place.column);
    shares.ariaLabel = `Shares of full attention. ${all}`;
    Object.assign(matrix, {
      ariaValueMax: data.cells - 1, ariaValueNow: place.row ?? 0,
      ariaValueText: place.row === null ? 'no pair chosen: the arrow keys choose one' : words,
    });
    rounds.input.value = place.rounds;
    rounds.output.textContent = `${place.rounds} of ${data.buckets.length}`;
    chunk.input.value = data.chunk_lengths.indexOf(place.chunk_length);
    chunk.output.textContent = place.chunk_length;
    rule.select.value = place.window;
    order.input.value = place.order + 1;
    order.output.textContent = place.order === READING ? 'reading order' : `sorted by round ${place.order}`;
    const item = (words, css) => make('span', {}, make('i', { style: css }), words);
    key.replaceChildren('first seen by ',
      ...view.totals.slice(0, place.rounds).map((_, r) => item(`round ${r}`, swatchOf(data, r))),
      item('none', 'background:currentColor;opacity:.2'));
    page.say(words, { ...place, ...kept });
  }

  function redraw() {
    if (!matrix.clientWidth || page.blocked) return;
    drawSquares(matrix, view);
    drawBars(shares, view);
  }

  const pointed = ({ clientX, clientY }) => {
    const box = matrix.getBoundingClientRect(), { size, xs } = squares(box.width), { cells } = data;
    const left = clientX - box.left < xs[1] - BETWEEN / 2 || place.order !== READING ? xs[0] : xs[1];
    const cellAt = pixels => inside(Math.floor((pixels * cells) / size), cells);
    return { row: cellAt(clientY - box.top - TITLE), column: cellAt(clientX - box.left - left) };
  };
  matrix.onpointermove = event => go(pointed(event), true);
  matrix.onpointerleave = () => go({ row: null, column: null, ...kept });
  matrix.onclick = event => {
    const here = pointed(event), again = kept.row === here.row && kept.column === here.column;
    go(again ? { row: null, column: null } : here);
  };
  matrix.onkeydown = event => {
    const move = moveOf(event, place, data.cells);
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(move);
  };

  const rows = () => rowsOf(view), more = () => cellRowsOf(view), canvases = [matrix, shares];
  return { nodes, canvases, place, update, go, redraw, rows, more, squares: () => squares(matrix.clientWidth) };
}
