// Long plans: a round's pairs in a square of cells, for pictures that have no room for every pair.

import { eachSeen, sees } from './plan_view.js';

export const MOST_PAIRWISE = 1024, SEVERAL = -1; // as in measure/bucketing.py

// A round's pairs in a square of cells x cells, by slot or by position: how many it sees in each,
// the bucket of those that see (or SEVERAL), and whether other rounds see there what it hides.
export function binned(plans, data, round, sorted, cells) {
  const buckets = data.buckets[round], n = buckets.length, { slot } = plans[round];
  const cell = Int32Array.from(buckets, (_, i) => Math.floor(((sorted ? slot[i] : i) * cells) / n));
  const seen = new Int32Array(cells * cells), bucket = new Int32Array(cells * cells).fill(SEVERAL);
  const elsewhere = new Uint8Array(cells * cells);
  plans.forEach((plan, r) => eachSeen(plan, data.causal, (i, j) => {
    const at = cell[i] * cells + cell[j];
    if (r !== round) {
      if (!elsewhere[at] && !sees(plans[round], i, j)) elsewhere[at] = 1;
    } else if (!seen[at]++) bucket[at] = buckets[i];
    else if (bucket[at] !== buckets[i]) bucket[at] = SEVERAL;
  }));
  return { seen, bucket, elsewhere };
}
