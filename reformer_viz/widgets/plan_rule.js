// The rule that a reader chose for the buckets of a plan: how many of its rounds are used, how long the
// chunks are, which window. Null in a place leaves what the plan was made with.

import { dial, make } from './plan_view.js';

export const AS_PLANNED = { rounds: null, chunk_length: null, window: null, within_bucket: null };
const CHANGED = Object.keys(AS_PLANNED);

export const between = (low, x, high) => Math.max(low, Math.min(high, x));
export const lengthOf = data => data.buckets[0].length;
export const isOwn = place => CHANGED.every(name => place[name] === null);
export const ruleKey = place => `${CHANGED.map(name => place[name])}`;

// Bring a place into what the data have, as `settle` in plan_rule.py does.
export function settle(data, place) {
  const n = lengthOf(data), own = { ...data, rounds: data.buckets.length };
  const inside = (name, low, high) => {
    if (place[name] !== null) place[name] = between(low, place[name], high);
  };
  inside('rounds', 1, own.rounds);
  inside('chunk_length', 1, Math.max(n, own.chunk_length));
  if (!(data.chunks_before + data.chunks_after)) place.window = null;
  for (const name of CHANGED) if (place[name] === own[name]) place[name] = null;
  inside('round', 0, (place.rounds ?? own.rounds) - 1);
  inside('token', 0, n - 1);
  return place;
}

// The rule in force, with the buckets of the rounds that are used.
export function ruleOf(data, place) {
  const rule = { ...data, buckets: data.buckets.slice(0, place.rounds ?? data.buckets.length) };
  for (const name of CHANGED.slice(1)) rule[name] = place[name] ?? data[name];
  return rule;
}

const showDial = ({ input, output }, min, max, value, words = value) => {
  Object.assign(input, { min, max, value });
  output.textContent = words;
};

// The controls of a round and of the rule, and what shows where they stand.
export function ruleControls(go) {
  const round = dial('round', round => go({ round })), rounds = dial('rounds used', rounds => go({ rounds }));
  const chunk = dial('chunk length', chunk_length => go({ chunk_length }));
  const options = ['chunks', 'sliding'].map(value => make('option', { value, textContent: value }));
  const window = make('select', { ariaLabel: 'window rule', onchange: () => go({ window: window.value }) }, ...options);
  const within = make('input', { type: 'checkbox', onchange: () => go({ within_bucket: within.checked }) });
  return {
    round: round.row, rounds: rounds.row, chunk: chunk.row,
    window: make('label', {}, 'window rule', window), within: make('label', {}, within, 'only its own bucket'),
    show(data, rule, place) {
      const used = rule.buckets.length;
      showDial(round, 0, used - 1, place.round, `${place.round} of 0–${used - 1}`);
      showDial(rounds, 1, data.buckets.length, used);
      showDial(chunk, 1, Math.max(4 * data.chunk_length, rule.chunk_length), rule.chunk_length);
      window.value = rule.window;
      window.disabled = !(data.chunks_before + data.chunks_after);
      within.checked = rule.within_bucket;
    },
  };
}
