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

// What a round makes of every pair, at [query * length + key].
export function kindsOf(plans, data, round) {
  const buckets = data.buckets[round], n = buckets.length, kinds = new Uint8Array(n * n);
  const real = i => !data.padding?.[i];
  for (let i = 0; i < n; i++)
    for (let j = 0; j < (data.causal ? i : n); j++)
      if (j !== i && buckets[i] === buckets[j] && real(i) && real(j)) kinds[i * n + j] = LOST;
  for (const plan of plans)
    eachSeen(plan, data.causal, (i, j) => {
      kinds[i * n + j] = kinds[i * n + j] === LOST || kinds[i * n + j] === FOUND ? FOUND : ELSEWHERE;
    });
  eachSeen(plans[round], data.causal, (i, j) => { kinds[i * n + j] = SEEN; });
  return kinds;
}

// ---- In words: the same sentences as Bucketing.describe ------------------------------------------

export const listed = xs =>
  xs.length ? ` (${xs.slice(0, 8).map(num).join(', ')}${xs.length > 8 ? ', …' : ''})` : '';

export function describe(plans, data, kinds, round, token) {
  return token === null ? ofRound(data, kinds, round) : ofToken(plans, data, kinds, round, token);
}

function ofRound(data, kinds, round) {
  const buckets = data.buckets[round], n = buckets.length, sizes = new Int32Array(data.n_buckets);
  buckets.forEach((b, i) => { if (!data.padding?.[i]) sizes[b]++; });
  const real = sizes.reduce((a, b) => a + b, 0), count = [0, 0, 0, 0, 0];
  let matesSeen = 0;
  kinds.forEach((kind, at) => {
    count[kind]++;
    if (kind === SEEN && buckets[Math.floor(at / n)] === buckets[at % n]) matesSeen++;
  });
  const lost = count[LOST] + count[FOUND];
  const reach = data.chunk_length * (data.chunks_before + data.chunks_after);
  const sliding = data.window === 'sliding';
  return `${many(n, 'token')}${real < n ? ` (${num(n - real)} of them padding)` : ''}, ` +
    `${many(data.n_buckets, 'bucket')}, ${many(data.buckets.length, 'round')}, ` +
    `${sliding ? `a sliding window of ${many(reach, 'slot')}` : `chunks of ${num(data.chunk_length)}`}. ` +
    `Round ${round}: buckets hold ${num(Math.min(...sizes))} to ${many(Math.max(...sizes), 'token')}. ` +
    `Of ${many(matesSeen + lost, 'pair')} in one bucket, the round sees ${num(matesSeen)} and loses ` +
    `${num(lost)} to the window; other rounds see ${num(count[FOUND])} of those.` +
    (data.within_bucket ? '' : ` It sees ${num(count[SEEN])} across buckets.`) +
    ` Together the rounds see ${num(count[SEEN] + count[ELSEWHERE] + count[FOUND])} of ` +
    `${many(Math.max(0, real * (real - 1)) / (data.causal ? 2 : 1), 'pair')}.`;
}

function ofToken(plans, data, kinds, round, token) {
  const n = data.buckets[round].length, name = data.labels ? ` “${data.labels[token]}”` : '';
  if (data.padding?.[token])
    return `Token ${num(token)}${name} is padding: it sees nobody, and nobody sees it.`;
  const slot = plans[round].slot[token], of = [[], [], [], [], []];
  for (let j = 0; j < n; j++) of[kinds[token * n + j]].push(j);
  const lost = [...of[LOST], ...of[FOUND]].sort((a, b) => a - b), seen = of[SEEN];
  return `Round ${round}: token ${num(token)}${name} is in bucket ${num(data.buckets[round][token])}, ` +
    `slot ${num(slot)}, chunk ${num(Math.floor(slot / data.chunk_length))}. ` +
    `It ${seen.length ? `sees ${many(seen.length, 'token')}${listed(seen)}` : 'sees nobody'}, ` +
    `and loses ${num(lost.length)} of its bucket to the window${listed(lost)}. ` +
    `Other rounds see ${num(of[FOUND].length)} of the lost, ` +
    `and ${num(of[ELSEWHERE].length)} of other buckets.`;
}
