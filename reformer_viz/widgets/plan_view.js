// What a round makes of every pair, as `measure/bucketing.py` counts it, and in the same words. For
// views that draw one round at a time.

import { many, num } from './plan.js';
export * from './plan.js';

// ---- Pairs -----------------------------------------------------------------------------------

export const HIDDEN = 0, SEEN = 1, LOST = 2, ELSEWHERE = 3, FOUND = 4; // as in measure/bucketing.py

export function eachSeen(plan, causal, visit) {
  plan.order.forEach((i, s) => {
    for (let t = plan.first[s]; t <= plan.last[s]; t++) {
      const j = plan.order[t];
      if (causal ? j < i : j !== i) visit(i, j);
    }
  });
}

// Whether a round sees a pair that is in the right order.
export function sees({ slot, first, last }, i, j) {
  const s = slot[i], t = slot[j];
  return first[s] <= t && t <= last[s];
}

// What a round makes of every pair of one query, at [key]: first its bucket-mates, then the runs of
// slots that the rounds show it. In time linear in the length.
export function kindsFor(plans, { buckets: of, causal, padding }, round, i, kinds = new Uint8Array(of[round].length)) {
  const buckets = of[round], end = causal ? i : buckets.length, own = padding?.[i] ? -1 : buckets[i];
  for (let j = 0; j < end; j++) if (buckets[j] === own && !padding?.[j] && j !== i) kinds[j] = LOST;
  for (let r = 0; r < plans.length; r++) {
    const { order, slot, first, last } = plans[r], s = slot[i];
    for (let t = first[s]; t <= last[s]; t++) {
      const j = order[t];
      if (j === i || j >= end) continue;
      if (r === round) kinds[j] = SEEN;
      else if (kinds[j] === LOST) kinds[j] = FOUND;
      else if (kinds[j] === HIDDEN) kinds[j] = ELSEWHERE;
    }
  }
  return kinds;
}

// The same of every query, at [query * length + key]: for short sequences.
export function kindsOf(plans, data, round) {
  const n = data.buckets[round].length, kinds = new Uint8Array(n * n);
  for (let i = 0; i < n; i++) kindsFor(plans, data, round, i, kinds.subarray(i * n, i * n + n));
  return kinds;
}

// How many pairs a round sees, those of one bucket among them, how many of its bucket others find,
// and how many any round sees: from the runs alone, a pair in the first round that sees it.
export function countPairs(plans, data, round) {
  const buckets = data.buckets[round], count = { seen: 0, mates: 0, found: 0, byAny: 0 };
  plans.forEach((plan, r) => eachSeen(plan, data.causal, (i, j) => {
    const mates = buckets[i] === buckets[j];
    if (r === round) { count.seen++; count.mates += mates; }
    for (let earlier = 0; earlier < r; earlier++) if (sees(plans[earlier], i, j)) return;
    count.byAny++;
    if (mates && r !== round && !sees(plans[round], i, j)) count.found++;
  }));
  return count;
}

// ---- In words: the same sentences as Bucketing.describe ------------------------------------------

export const listed = xs =>
  xs.length ? ` (${xs.slice(0, 8).map(num).join(', ')}${xs.length > 8 ? ', …' : ''})` : '';

export function describe(plans, data, round, token) {
  return token === null ? ofRound(plans, data, round) : ofToken(plans, data, round, token);
}

function ofRound(plans, data, round) {
  const buckets = data.buckets[round], n = buckets.length, sizes = new Int32Array(data.n_buckets);
  buckets.forEach((b, i) => { if (!data.padding?.[i]) sizes[b]++; });
  const among = size => (size * (size - 1)) / (data.causal ? 2 : 1);
  const real = sizes.reduce((a, b) => a + b, 0), { seen, mates, found, byAny } = countPairs(plans, data, round);
  const pairs = sizes.reduce((sum, size) => sum + among(size), 0);
  const reach = data.chunk_length * (data.chunks_before + data.chunks_after);
  const sliding = data.window === 'sliding';
  return `${many(n, 'token')}${real < n ? ` (${num(n - real)} of them padding)` : ''}, ` +
    `${many(data.n_buckets, 'bucket')}, ${many(data.buckets.length, 'round')}, ` +
    `${sliding ? `a sliding window of ${many(reach, 'slot')}` : `chunks of ${num(data.chunk_length)}`}. ` +
    `Round ${round}: buckets hold ${num(Math.min(...sizes))} to ${many(Math.max(...sizes), 'token')}. ` +
    `Of ${many(pairs, 'pair')} in one bucket, the round sees ${num(mates)} and loses ` +
    `${num(pairs - mates)} to the window; other rounds see ${num(found)} of those.` +
    (data.within_bucket ? '' : ` It sees ${num(seen)} across buckets.`) +
    ` Together the rounds see ${num(byAny)} of ${many(among(real), 'pair')}.`;
}

function ofToken(plans, data, round, token) {
  if (data.padding?.[token]) return paddingInWords(data, token);
  return tokenInWords(plans[round], data, kindsFor(plans, data, round, token), round, token);
}

export const nameOf = (data, token) => (data.labels ? ` “${data.labels[token]}”` : '');
export const paddingInWords = (data, token) =>
  `Token ${num(token)}${nameOf(data, token)} is padding: it sees nobody, and nobody sees it.`;

// Where a token is, and what a round makes of its pairs: `kinds`, a code for every key.
export function tokenInWords(plan, data, kinds, round, token) {
  const slot = plan.slot[token], of = [[], [], [], [], []];
  kinds.forEach((kind, j) => of[kind].push(j));
  const lost = [...of[LOST], ...of[FOUND]].sort((a, b) => a - b), seen = of[SEEN];
  return `Round ${round}: token ${num(token)}${nameOf(data, token)} is in bucket ` +
    `${num(data.buckets[round][token])}, slot ${num(slot)}, chunk ${num(Math.floor(slot / data.chunk_length))}. ` +
    `It ${seen.length ? `sees ${many(seen.length, 'token')}${listed(seen)}` : 'sees nobody'}, ` +
    `and loses ${num(lost.length)} of its bucket to the window${listed(lost)}. ` +
    `Other rounds see ${num(of[FOUND].length)} of the lost, ` +
    `and ${num(of[ELSEWHERE].length)} of other buckets.`;
}
