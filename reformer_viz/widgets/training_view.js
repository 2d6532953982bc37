// Training: the run's curves, and the film of a probe's buckets, snapshot by snapshot. Whatever follows
// from buckets is computed here; its words are those of `describe_snapshot` in measure/training.py.

import {
  dial, kindsOf, make, many, num, openPage, painter, planRound, sees, ELSEWHERE, FOUND, SEEN,
} from './plan_view.js';
import { painterOn } from './kept.js';
import { numbersOf } from './letters.js';

const NOBODY = -1; // as in measure/recording.py

// ---- The film: one head's buckets and plans at every snapshot ------------------------------------

function filmOf(data, layer, head) {
  const { buckets, digits, sought, mass } = data.film;
  const frames = buckets[layer][head].map(rows => rows.map(row => numbersOf(row, digits)));
  const plans = frames.map(rounds => rounds.map(row => planRound(row, data.film)));
  const pairs = [...sought[layer][head].entries()].filter(([, key]) => key !== NOBODY);
  return { frames, plans, pairs, sought: sought[layer][head], mass: mass[layer][head] };
}

const maySee = (plan, i, j, causal) => sees(plan, i, j) && (causal ? j < i : j !== i);

// What `describe_snapshot` counts, of one round at one snapshot.
function countsOf({ frames, plans, pairs, mass }, data, snapshot, round) {
  const now = frames[snapshot][round], last = frames.at(-1)[round], sizes = new Int32Array(data.film.n_buckets);
  now.forEach(b => sizes[b]++);
  const byAny = ([i, j]) => plans[snapshot].some(plan => maySee(plan, i, j, data.film.causal));
  return {
    mass: mass[snapshot] / 1000,
    settled: now.filter((b, i) => b === last[i]).length,
    largest: Math.max(...sizes),
    together: pairs.filter(([i, j]) => now[i] === now[j]).length,
    seen: pairs.filter(byAny).length,
  };
}

// ---- In words ----------------------------------------------------------------------------------

function tell(view) {
  const { data, place, film, at } = view, { layers, steps } = data.film;
  return `After step ${num(steps[at])}, layer ${layers[place.layer]}, head ${place.head}, ` +
    `round ${place.round}: ${place.token === null ? tellRound(view) : tellToken(view, film)}`;
}

function tellRound({ data, place, film, at }) {
  const count = film.counts[place.round][at];
  return `${num(count.settled)} of ${many(film.sought.length, 'token')} are in the bucket that they end ` +
    `in; the largest of ${num(data.film.n_buckets)} buckets holds ${num(count.largest)}. ` +
    `The rounds hold ${(count.mass * 100).toFixed(1)} % of full attention's weight. ` +
    `Of ${many(film.pairs.length, 'pair')} that the last snapshot seeks, ${num(count.together)} share ` +
    `a bucket in this round, and ${num(count.seen)} are seen by some round.`;
}

function tellToken({ data, place, at, kinds }, { frames, plans, sought }) {
  const { token, round } = place, n = sought.length, { labels, causal } = data.film, key = sought[token];
  const seen = kinds.subarray(token * n, token * n + n), here = seen.filter(kind => kind === SEEN).length;
  const more = seen.filter(kind => kind === ELSEWHERE || kind === FOUND).length;
  const by = plan => maySee(plan, token, key, causal);
  const who = by(plans[at][round]) ? 'this round' : plans[at].some(by) ? 'another round' : 'no round';
  return `token ${num(token)} “${labels[token]}” is in bucket ${num(frames[at][round][token])} and sees ` +
    `${many(here, 'token')}, with the other rounds ${num(here + more)}. ` +
    (key === NOBODY
      ? 'In the last snapshot it puts no half of its weight on one token.'
      : `In the last snapshot it seeks token ${num(key)} “${labels[key]}”, which ${who} sees here.`);
}

// ---- The curves ----------------------------------------------------------------------------------

const PANEL = 68, PLOT = 34, ABOVE = 26, NUMBERS = 42; // pixels

const inUnits = (y, unit, digits = 1) =>
  unit === '%' ? `${(y * 100).toFixed(digits)} %` : `${+y.toPrecision(2 + digits)}${unit && ` ${unit}`}`;

// The panels from top to bottom: a title, a unit, and lines of points [step, value].
function panelsOf({ data, place, film }) {
  const run = data.curves.map(({ lines, ...panel }) => ({ ...panel, lines }));
  if (!film) return run;
  const { steps } = data.film, counts = film.counts[place.round], n = film.sought.length;
  const line = (name, of) => ({ name, x: steps, y: counts.map(of), colour: data.line });
  const pairs = film.pairs.length || NaN; // without a pair there is no share of them
  return [
    ...run,
    { title: 'full attention’s weight found', unit: '%', top: 1, lines: [line('', c => c.mass)] },
    { title: 'largest bucket', unit: 'tokens', lines: [line('', c => c.largest)],
      even: n / data.film.n_buckets },
    { title: 'sought pairs seen', unit: '%', top: 1, lines: [line('', c => c.seen / pairs)] },
  ];
}

const upTo = ({ x }, step) => x.findLastIndex(at => at <= step);

// One below the other beside the film, or side by side below it.
function drawCurves(canvas, view) {
  const { data, step } = view, panels = panelsOf(view), columns = Math.max(1, Math.floor(canvas.clientWidth / 235));
  const tools = painter(canvas, canvas.clientWidth, Math.ceil(panels.length / columns) * PANEL + 14);
  const wide = (canvas.clientWidth + 20) / columns;
  panels.forEach((panel, k) => {
    const left = (k % columns) * wide + 2, right = left + wide - 22 - NUMBERS, top = Math.floor(k / columns) * PANEL;
    const across = x => left + ((right - left) * x) / Math.max(1, data.steps);
    drawPanel(tools, panel, { top, left, right, across, step });
    if (k + columns < panels.length) return; // no panel below: here the axis has its numbers
    tools.text('step 0', left, top + PANEL + 4, { align: 'left', alpha: 0.65 });
    tools.text(num(data.steps), right, top + PANEL + 4, { align: 'right', alpha: 0.65 });
  });
}

function drawPanel({ pen, ink, text, fill }, panel, { top, left, right, across, step }) {
  const known = panel.lines.flatMap(line => line.y).filter(Number.isFinite);
  const height = panel.log ? Math.log : y => y, bottom = top + ABOVE + PLOT;
  const low = panel.log ? Math.min(...known) : 0, high = panel.top ?? Math.max(...known, panel.even ?? 0);
  const span = height(high) - height(low) || 1;
  const up = y => bottom - (PLOT * (height(y) - height(low))) / span;
  nameLines({ pen, text, fill }, panel, left, top + 10);
  fill(left, bottom, right - left, 1, ink, 0.35);
  fill(across(step), top + ABOVE - 4, 1, PLOT + 4, ink, 0.6);
  if (panel.even) fill(left, up(panel.even), right - left, 1, ink, 0.3);
  if (!known.length) return text('nothing yet', left, bottom - PLOT / 2, { align: 'left', alpha: 0.6 });
  for (const y of [low, high])
    text(inUnits(y, panel.unit === '%' ? '%' : '', 0), right + 5, up(y), { align: 'left', size: 10, alpha: 0.65 });
  for (const line of panel.lines) drawLine(pen, line, across, up);
  const [said] = panel.lines, value = said.y[upTo(said, step)];
  if (Number.isFinite(value)) text(inUnits(value, panel.unit), right + NUMBERS, top + 10, { align: 'right', size: 12, alpha: 1 });
}

// A panel's title and, where it has several lines, their names, each beside its colour.
function nameLines({ pen, text, fill }, { title, lines }, left, y) {
  const words = (what, x) => {
    text(what, x, y, { align: 'left', size: 12, alpha: 0.75 });
    return x + pen.measureText(what).width;
  };
  let x = words(title, left);
  for (const { name, colour } of lines.filter(line => line.name)) {
    fill(x + 10, y - 1, 10, 2, colour);
    x = words(name, x + 24);
  }
}

function drawLine(pen, { x, y, colour }, across, up) {
  Object.assign(pen, { strokeStyle: colour, globalAlpha: 1, lineWidth: 1.5 });
  pen.beginPath();
  x.forEach((at, k) => { if (Number.isFinite(y[k])) pen.lineTo(across(at), up(y[k])); });
  pen.stroke();
}

// ---- The film strip: a row for every snapshot, a column for every token ---------------------------

const STEPS = 48, HEAD = 18, FOOT = 18; // pixels: names of the rows, and above and below them
const SORTED = 'sorted as in the last snapshot', READING = 'in reading order';

const strip = (width, n, rows) => {
  const height = Math.max(3, Math.min(20, Math.floor(320 / rows)));
  return { one: (width - STEPS - 2) / n, height, bottom: HEAD + rows * height };
};

const columnsOf = ({ film, place }) => {
  const { order, slot } = film.plans.at(-1)[place.round], n = slot.length, reading = [...Array(n).keys()];
  return place.columns === READING ? { order: reading, at: reading } : { order, at: slot };
};

function drawFilm(canvas, view) {
  const { film, place, at } = view, { frames } = film, n = film.sought.length, width = canvas.clientWidth;
  const { one, height, bottom } = strip(width, n, frames.length), columns = columnsOf(view);
  const edge = k => Math.round(STEPS + k * one), cells = [film.number, place.round, place.columns];
  const tools = painterOn(canvas, width, bottom + FOOT, cells,
    under => drawCells(under, view, columns, { edge, height }));
  const { ink, text, frame } = tools;
  nameRows(tools, view, height);
  text(`tokens, ${place.columns}`, STEPS, bottom + 10, { align: 'left', alpha: 0.75 });
  frame(STEPS - 2, HEAD + at * height - 1, width - STEPS + 2, height + 2, ink, { weight: 2 });
  if (place.token === null) return text('snapshot after step', 0, 8, { align: 'left', alpha: 0.75 });
  const mark = (token, dash, words) => {
    const x = edge(columns.at[token]), w = Math.max(3, edge(columns.at[token] + 1) - x);
    frame(x - 1, HEAD - 2, w + 2, bottom - HEAD + 4, ink, { weight: 2, dash });
    text(words, Math.max(STEPS + 24, Math.min(width - 24, x + w / 2)), 8);
  };
  const key = film.sought[place.token];
  if (key !== NOBODY) mark(key, [3, 3], 'sought');
  mark(place.token, [], 'token');
}

function drawCells({ fill }, { data, film, place }, { order }, { edge, height }) {
  const gap = height > 6 ? 1 : 0;
  film.frames.forEach((rounds, row) => order.forEach((token, k) => {
    const bucket = rounds[place.round][token], y = HEAD + row * height, w = edge(k + 1) - edge(k);
    fill(edge(k), y, Math.max(1, w - (w > 6 ? 1 : 0)), height - gap, data.film.colours[bucket]);
    if (data.film.hatched && bucket % 2 && height > 6)
      fill(edge(k), y + height - 4, w, 1, data.film.text_colours[bucket], 0.7);
  }));
}

function nameRows({ text }, { data, at }, height) {
  const { steps } = data.film, every = Math.ceil(13 / height);
  steps.forEach((step, row) => {
    if (row === at || (row % every === 0 && Math.abs(row - at) >= every))
      text(num(step), STEPS - 7, HEAD + (row + 0.5) * height, { align: 'right', alpha: row === at ? 1 : 0.65 });
  });
}

// ---- The chosen snapshot: sorted order, and who sees whom -----------------------------------------

const ROW = 24, ROWS_TOP = 20, ROWS_HEIGHT = 64; // pixels

const poseOf = ({ film, place, at }) => Float64Array.from(film.plans[at][place.round].slot);

function drawSorted(canvas, view, pose) {
  const { data, film, place, at, kinds } = view, { token } = place, width = canvas.clientWidth;
  const { chunk_length, colours, text_colours, hatched, labels } = data.film, n = pose.length;
  const tools = painter(canvas, width, ROWS_HEIGHT), { ink, text, fits, fill, frame } = tools;
  const buckets = film.frames[at][place.round], one = (width - STEPS - 2) / n, w = one > 5 ? one - 1 : one;
  const size = Math.min(12, Math.max(8, one - 1)), named = one >= 8 && labels.every(words => fits(words, w, size));
  pose.forEach((slot, i) => {
    const b = buckets[i], x = STEPS + slot * one, lit = token === null || i === token || kinds[token * n + i] === SEEN;
    fill(x, ROWS_TOP, w, ROW, colours[b], lit ? 1 : 0.22);
    if (hatched && b % 2 && lit) fill(x, ROWS_TOP + ROW - 5, w, 2, text_colours[b], 0.8);
    if (named)
      text(labels[i], x + w / 2, ROWS_TOP + ROW / 2, { size, colour: lit ? text_colours[b] : ink });
    if (token !== null && (i === token || i === film.sought[token]))
      frame(x - 2, ROWS_TOP - 2, w + 4, ROW + 4, ink, { weight: 2, dash: i === token ? [] : [3, 3] });
  });
  text('sorted', STEPS - 7, ROWS_TOP + ROW / 2, { align: 'right', alpha: 0.75 });
  text('chunk', STEPS - 7, ROWS_TOP + ROW + 14, { align: 'right', alpha: 0.75 });
  nameBuckets(tools, view, one);
  for (let s = 0; s < n; s += chunk_length) {
    const wide = Math.min(chunk_length, n - s) * one, chunk = `${s / chunk_length}`;
    fill(STEPS + s * one, ROWS_TOP + ROW + 5, wide - 2, 1.5, ink, 0.6);
    if (fits(chunk, wide)) text(chunk, STEPS + s * one + wide / 2, ROWS_TOP + ROW + 14);
  }
}

function nameBuckets({ text, fits }, { film, place, at }, one) {
  const { order } = film.plans[at][place.round], buckets = film.frames[at][place.round], n = order.length;
  text('bucket', STEPS - 7, 9, { align: 'right', alpha: 0.75 });
  for (let s = 0, end; s < n; s = end) {
    for (end = s + 1; end < n && buckets[order[end]] === buckets[order[s]]; ) end++;
    const name = `${buckets[order[s]]}`;
    if (fits(name, (end - s) * one)) text(name, STEPS + ((s + end) / 2) * one, 9);
  }
}

const squareOf = (width, n) => {
  const size = width < 2 * n ? width : width - (width % n);
  return { size, unit: size / n };
};

// Queries in rows, keys in columns, both in reading order.
function drawPairs(canvas, view) {
  const { film, place, at } = view, n = film.sought.length, width = canvas.clientWidth;
  const { size, unit } = squareOf(width - 2, n), edge = k => 1 + Math.round(k * unit);
  const w = Math.max(1, Math.round(unit) - (unit >= 4 ? 1 : 0)), shown = [film.number, place.round, at];
  const { ink, frame } = painterOn(canvas, width, size + 2, shown, tools => {
    tools.frame(0, 0, size + 2, size + 2, tools.ink, { alpha: 0.35 });
    drawSeen(tools, view, edge, w);
    for (const [i, j] of film.pairs) tools.frame(edge(j) - 1.5, edge(i) - 1.5, w + 3, w + 3, tools.ink);
  });
  if (place.token !== null) frame(0, edge(place.token) - 2, size + 2, w + 4, ink, { weight: 2 });
}

function drawSeen({ ink, fill }, { data, film, place, at, kinds }, edge, w) {
  const buckets = film.frames[at][place.round], n = buckets.length, edges = Array.from(buckets, (_, k) => edge(k));
  for (let i = 0, pair = 0; i < n; i++)
    for (let j = 0; j < n; j++, pair++) {
      const kind = kinds[pair];
      if (kind === SEEN) fill(edges[j], edges[i], w, w, data.film.colours[buckets[i]]);
      else if (kind === ELSEWHERE || kind === FOUND) fill(edges[j], edges[i], w, w, ink, 0.22);
    }
}

// ---- The explorer ------------------------------------------------------------------------------

const FILM_CSS = `
.rx-flex{display:flex;flex-wrap:wrap;gap:0 24px}
.rx-wide{flex:3 1 500px;min-width:0}
.rx-side{flex:1 1 250px;min-width:0}
.rx-square{flex:0 1 390px;min-width:220px}
.rx-rest{flex:1 1 260px;min-width:0}
.rx-key i{display:inline-block;width:10px;height:10px;margin-right:6px;border:1.5px solid;vertical-align:-1px}
.rx-key span{display:block}
.rx-bar select{font:inherit}
`;

const choice = (name, move) => {
  const select = make('select', { ariaLabel: name, onchange: () => move(select.value) });
  const row = make('label', {}, name, select);
  const offer = (options, values = options.keys()) => {
    row.hidden = options.length < 2;
    select.replaceChildren(...[...values].map((value, k) => make('option', { value, textContent: options[k] })));
  };
  return { select, row, offer };
};

const legend = () => {
  const item = (words, css) => make('span', {}, make('i', { style: css }), words);
  return make('div', { className: 'rx-key' },
    make('span', { textContent: 'Who sees whom at the snapshot, in reading order: rows look, columns are looked at.' }),
    item('seen by this round, in the bucket’s colour', 'background:var(--rx-first);border-color:var(--rx-first)'),
    item('seen by another round', 'background:currentColor;opacity:.3'),
    item('framed: sought. In the last snapshot the query puts at least half of its weight there', ''));
};

const round3 = y => (Number.isFinite(y) ? +y.toPrecision(3) : '–');

function rowsOf(view) {
  const panels = panelsOf(view), { data, film, place } = view;
  const lines = panels.flatMap(({ title, lines }) =>
    lines.map(line => ({ ...line, name: [title, line.name].filter(Boolean).join(', ') })));
  const steps = film ? data.film.steps : data.curves[1].lines[0].x;
  const extra = film ? ['settled tokens', 'sought pairs in one bucket'] : [];
  return [
    ['step', ...lines.map(line => line.name), ...extra],
    ...steps.map((step, k) => {
      const counts = film?.counts[place.round][k];
      return [step, ...lines.map(line => round3(line.y[upTo(line, step)])),
        ...(film ? [counts.settled, counts.together] : [])];
    }),
  ];
}

// What the film, the sorted row and the square show of so many tokens, from the chosen one on.
const MOST_ROWS = 200;

function tokenRowsOf({ data, film, place, at, kinds }) {
  const { labels, steps, chunk_length } = data.film, { frames, plans, sought } = film, { round } = place;
  const n = labels.length, start = Math.max(0, Math.min(place.token ?? 0, n - MOST_ROWS)), { slot } = plans[at][round];
  const keysOf = (i, ...wanted) => {
    const found = [];
    for (let j = 0; j < n; j++) if (wanted.includes(kinds[i * n + j])) found.push(num(j));
    return found.join(', ');
  };
  return [
    ['position', 'token', 'slot', 'chunk', 'sees', 'sees in other rounds', 'seeks',
      ...steps.map(step => `bucket after step ${num(step)}`)],
    ...Array.from({ length: Math.min(MOST_ROWS, n) }, (_, k) => start + k).map(i => [
      num(i), labels[i], slot[i], Math.floor(slot[i] / chunk_length), keysOf(i, SEEN), keysOf(i, ELSEWHERE, FOUND),
      sought[i] === NOBODY ? '' : num(sought[i]), ...frames.map(rounds => rounds[round][i]),
    ]),
  ];
}

const moveOf = (key, { at, place }, { order, at: columnOf }) => {
  const n = order.length, column = place.token === null ? null : columnOf[place.token];
  const tokenAt = k => order[Math.max(0, Math.min(n - 1, k))];
  return {
    ArrowRight: { token: tokenAt((column ?? -1) + 1) },
    ArrowLeft: { token: tokenAt((column ?? n) - 1) },
    ArrowUp: { snapshot: at - 1 },
    ArrowDown: { snapshot: at + 1 },
    PageUp: { snapshot: 0 },
    PageDown: { snapshot: null },
    Home: { token: tokenAt(0) },
    End: { token: tokenAt(n - 1) },
    Escape: { token: null },
  }[key];
};

export const mount = (root, data) => openPage(root, data, trainingIn);

function trainingIn(page) {
  const place = { snapshot: null, layer: 0, head: 0, round: 0, token: null, columns: SORTED };
  const view = { place }; // what is drawn: the data, what follows from them, and the place
  let kept = null, pose = null, moving = 0, films = 0, playing = false; // kept: the token while none is pointed at

  const strips = make('canvas', { tabIndex: 0, role: 'slider', ariaLabel: 'token', ariaValueMin: 0 });
  const curves = make('canvas', { role: 'img' }), sorted = make('canvas', { role: 'img' });
  const pairs = make('canvas', { role: 'img' });
  strips.className = 'rx-film';
  const snapshot = dial('snapshot', snapshot => go({ snapshot }));
  const number = name => choice(name, value => go({ [name]: +value }));
  const choices = { layer: number('layer'), head: number('head'), round: number('round') };
  const columns = choice('columns', columns => go({ columns }));
  columns.offer([SORTED, READING], [SORTED, READING]);
  const play = make('button', { type: 'button', onclick: playAll });
  const bar = make('div', { className: 'rx-bar' }, snapshot.row, play,
    ...Object.values(choices).map(({ row }) => row), columns.row);
  const box = (className, ...nodes) => make('div', { className }, ...nodes);
  const wide = box('rx-wide', strips, sorted), square = box('rx-square', pairs), key = legend();
  const nodes = [
    make('style', { textContent: FILM_CSS }), bar,
    box('rx-flex', wide, box('rx-side', curves)), page.sentence,
    box('rx-flex', square, box('rx-rest', key, page.details, page.caption)),
  ];

  function update(data) {
    view.data = data;
    view.film = null;
    const film = data.film, names = size => [...Array(size).keys()].map(String);
    for (const node of [bar, wide, square, key]) node.hidden = !film;
    if (film) {
      choices.layer.offer(film.layers.map(String));
      choices.head.offer(names(film.buckets[0].length));
      choices.round.offer(names(film.buckets[0][0][0].length));
      snapshot.input.max = film.steps.length - 1;
      strips.ariaValueMax = film.labels.length - 1;
      page.root.style.setProperty('--rx-first', film.colours[0]);
    }
    go({ token: kept, ...data.place });
  }

  function go(change, pointing = false) {
    if (page.blocked) return;
    Object.assign(place, change);
    if (!view.data.film) {
      view.step = view.data.steps;
      curves.ariaLabel = `Curves of the run. ${view.data.words}`;
      page.say(view.data.words, place);
      return redraw();
    }
    keepInside(view.data.film);
    if (!pointing) kept = place.token;
    follow(view.data);
    speak();
    animate();
  }

  function keepInside({ buckets, steps, labels }) {
    const inside = (x, size) => (x === null ? null : Math.max(0, Math.min(size - 1, x)));
    place.layer = inside(place.layer, buckets.length);
    place.head = inside(place.head, buckets[0].length);
    place.round = inside(place.round, buckets[0][0][0].length);
    place.token = inside(place.token, labels.length);
    place.snapshot = inside(place.snapshot, steps.length);
    if (place.snapshot === steps.length - 1) place.snapshot = null; // the last one, also as more come
    if (place.columns !== READING) place.columns = SORTED;
  }

  function follow(data) { // what the data make of the place, computed when it has changed
    const { layer, head, round } = place, at = place.snapshot ?? data.film.steps.length - 1;
    if (!view.film || view.film.key !== `${layer} ${head}`) {
      view.film = { key: `${layer} ${head}`, number: ++films, counts: {}, ...filmOf(data, layer, head) };
      view.shown = null;
    }
    const { film } = view;
    film.counts[round] ??= film.frames.map((_, k) => countsOf(film, data, k, round));
    Object.assign(view, { at, step: data.film.steps[at] });
    if (view.shown !== `${round} ${at}`)
      view.kinds = kindsOf(film.plans[at], { ...data.film, buckets: film.frames[at] }, round);
    view.shown = `${round} ${at}`;
  }

  function speak() {
    const words = tell(view), { steps } = view.data.film;
    for (const [name, { select }] of Object.entries(choices)) select.value = place[name];
    columns.select.value = place.columns;
    snapshot.input.value = view.at;
    snapshot.output.textContent = `after step ${num(view.step)}`;
    snapshot.input.ariaValueText = `${view.at + 1} of ${steps.length}, after step ${num(view.step)}`;
    strips.ariaValueNow = place.token ?? 0;
    strips.ariaValueText = place.token === null ? 'no token chosen' : words;
    curves.ariaLabel = `Curves of the run, with a line at step ${num(view.step)}. ${view.data.words}`;
    sorted.ariaLabel = `The tokens sorted by bucket. ${words}`;
    pairs.ariaLabel = `Who sees whom. ${words}`;
    page.say(words, { ...place, token: kept });
  }

  function animate() { // tokens move to their new slots
    if (!strips.clientWidth) return;
    play.textContent = playing ? '❚❚ pause' : '▶ play';
    drawFilm(strips, view);
    drawCurves(curves, view);
    drawPairs(pairs, view);
    const from = pose, to = poseOf(view), began = performance.now(), mine = ++moving;
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches || from?.length !== to.length;
    const frame = now => {
      if (mine !== moving) return; // a newer movement has begun
      const t = still ? 1 : Math.max(0, Math.min(1, (now - began) / 300)), eased = t * t * (3 - 2 * t);
      pose = t === 1 ? to : to.map((x, k) => from[k] + (x - from[k]) * eased);
      drawSorted(sorted, view, pose);
      if (t < 1) requestAnimationFrame(frame);
    };
    frame(still || from.every((x, k) => x === to[k]) ? Infinity : began);
  }

  function redraw() { // another size or another theme
    pose = null;
    if (view.data.film) animate();
    else if (curves.clientWidth) drawCurves(curves, view);
  }

  async function playAll() {
    if (playing) return stop();
    playing = true;
    go({ snapshot: place.snapshot ?? 0 });
    while (playing && place.snapshot !== null) {
      await new Promise(done => setTimeout(done, 380));
      if (playing) go({ snapshot: view.at + 1 });
    }
    stop();
  }

  function stop() {
    playing = false;
    animate();
  }

  const pointed = (canvas, { clientX, clientY }) => {
    const { left, top, width } = canvas.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top, width };
  };
  const inRange = (k, size) => Math.max(0, Math.min(size - 1, Math.floor(k)));
  function inFilm(event) {
    const { x, y, width } = pointed(strips, event), { frames, sought } = view.film;
    const { one, height } = strip(width, sought.length, frames.length);
    const column = inRange((x - STEPS) / one, sought.length);
    return { token: columnsOf(view).order[column], snapshot: inRange((y - HEAD) / height, frames.length) };
  }
  function inSorted(event) {
    const { x, width } = pointed(sorted, event), n = view.film.sought.length;
    return { token: view.film.plans[view.at][place.round].order[inRange(((x - STEPS) * n) / (width - STEPS - 2), n)] };
  }
  function inPairs(event) {
    const { y, width } = pointed(pairs, event), n = view.film.sought.length;
    return { token: inRange((y - 1) / squareOf(width - 2, n).unit, n) };
  }
  for (const [canvas, placeAt] of [[strips, inFilm], [sorted, inSorted], [pairs, inPairs]]) {
    canvas.onpointermove = event => {
      const { token, snapshot } = placeAt(event);
      go(event.buttons && snapshot !== undefined ? { token, snapshot } : { token }, true);
    };
    canvas.onpointerleave = () => go({ token: kept });
    canvas.onclick = event => {
      const at = placeAt(event), same = kept === at.token && (at.snapshot ?? view.at) === view.at;
      go(same ? { token: null } : at);
    };
  }
  strips.onkeydown = event => {
    const move = moveOf(event.key, view, columnsOf(view));
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    go(move);
  };

  function cells() { // where the film's cells are, for whoever looks at what was drawn
    const { frames, sought } = view.film, { one, height } = strip(strips.clientWidth, sought.length, frames.length);
    const middle = k => Math.floor(STEPS + (k + 0.4) * one);
    return frames.map((_, row) => sought.map((_, k) => [middle(k), Math.floor(HEAD + (row + 0.4) * height)]));
  }

  const canvases = [strips, curves, sorted, pairs], rows = () => rowsOf(view);
  const more = () => (view.data.film ? tokenRowsOf(view) : []);
  return { nodes, canvases, place, update, go, redraw, rows, more, cells };
}
