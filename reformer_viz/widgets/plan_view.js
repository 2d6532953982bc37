// Who sees whom, from the buckets alone: the rule of `plan_chunks` and its counts, for every view
// that draws a plan. Integers only: hashing and softmax stay in Python. `data` carries the buckets of
// every round and the rule under the names that Python gives them.

export * from './page.js';

// ---- The plan --------------------------------------------------------------------------------

export const HIDDEN = 0, SEEN = 1, LOST = 2, ELSEWHERE = 3, FOUND = 4; // as in measure/bucketing.py

export function planRound(buckets, rule) {
  const { n_buckets, chunk_length, chunks_before, chunks_after, causal, padding } = rule;
  const n = buckets.length, sliding = rule.window === 'sliding';
  const key = i => (padding?.[i] ? n_buckets : buckets[i]); // padding is sorted last
  const start = new Int32Array(n_buckets + 2);
  for (let i = 0; i < n; i++) start[key(i) + 1]++;
  for (let b = 0; b <= n_buckets; b++) start[b + 1] += start[b];
  const order = new Int32Array(n), slot = new Int32Array(n), next = start.slice();
  for (let i = 0; i < n; i++) order[(slot[i] = next[key(i)]++)] = i;
  const first = new Int32Array(n), last = new Int32Array(n), real = start[n_buckets];
  for (let s = 0; s < n; s++) {
    const chunk = Math.floor(s / chunk_length), b = key(order[s]);
    let lo = sliding ? s - chunk_length * chunks_before : (chunk - chunks_before) * chunk_length;
    let hi = sliding ? s + chunk_length * chunks_after : (chunk + 1 + chunks_after) * chunk_length - 1;
    if (causal && (sliding || rule.within_bucket)) hi = Math.min(hi, s - 1);
    if (rule.within_bucket) { lo = Math.max(lo, start[b]); hi = Math.min(hi, start[b + 1] - 1); }
    first[s] = Math.max(lo, 0);
    last[s] = s < real ? Math.min(hi, real - 1) : first[s] - 1;
  }
  return { order, slot, first, last };
}

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

export const num = x => x.toLocaleString('en-US');
export const many = (x, what) => `${num(x)} ${what}${x === 1 ? '' : 's'}`;
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
  const n = data.buckets[round].length;
  if (data.padding?.[token])
    return `Token ${num(token)}${nameOf(data, token)} is padding: it sees nobody, and nobody sees it.`;
  return tokenInWords(plans[round], data, kinds.subarray(token * n, token * n + n), round, token);
}

export const nameOf = (data, token) => (data.labels ? ` “${data.labels[token]}”` : '');

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
