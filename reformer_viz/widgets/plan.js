// Who sees whom, from the buckets alone: the rule of `plan_chunks`, for every view that draws a plan.
// Integers only: hashing and softmax stay in Python. `data` carries the buckets of every round and the
// rule under the names that Python gives them.

export * from './page.js';

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

// Numbers in words, as `measure/words.py` writes them.
export const num = x => x.toLocaleString('en-US');
export const many = (x, what) => `${num(x)} ${what}${x === 1 ? '' : 's'}`;
