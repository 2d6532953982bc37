# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does it peek?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/05_does_it_peek.ipynb)
#
# A language model must predict each token from the earlier ones alone. In LSH attention that is less
# obvious than it looks: tokens are sorted, so "earlier" and "to the left" become two things; chunks are
# cut from all tokens together, the later ones included; and every token's best match is itself. This
# lesson takes the masks apart one by one, finds a leak in the paper's own rule by changing the future
# and watching the past, and closes it.
#
# After this lesson you can
# - write the causal mask of a sorted sequence, and the window of a chunk, without the two usual mistakes;
# - explain why a token sees itself last, and why that is better decided by logic than by a large number;
# - test any attention for leaks, and say which of its rules are strictly causal;
# - say what a leak means for decoding, for perplexity, and for padding.
#
# Needs: [from buckets to attention](03_buckets_to_attention.ipynb), and the union of rounds from
# [how many rounds](04_how_many_rounds.ipynb). Words: [glossary](../docs/glossary.md).
#
# Paper: Sec. 2, "LSH attention" (Eq. 3-5) and "Causal masking for shared-QK attention"; Eq. 16.
#
# *Runs in about 10 s on two cores.*

# %% tags=["setup"]
import importlib.util
import os
import subprocess
import sys

REPOSITORY = "https://github.com/reformer-notebooks/reformer-notebooks"
IN_COLAB = "google.colab" in sys.modules or "COLAB_RELEASE_TAG" in os.environ
if IN_COLAB and importlib.util.find_spec("reformer_viz") is None:
    project = f"reformer-notebooks @ git+{REPOSITORY}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", project], check=True)
if IN_COLAB:
    from google.colab import output

    output.enable_custom_widget_manager()

from reformer_viz import lessons

lessons.begin()

# %% [markdown]
# ## 1. Earlier in the text, not in the sorted order
#
# Attention with a mask is Eq. 3 of the paper: $m(j, P_i)$ is infinite for every key $j$ that query $i$ may
# not see, and $\exp(-\infty)$ is no weight at all. In a causal model these are the keys that stand
# *later in the text*. After sorting, a token's **slot** says nothing about that. So each token keeps its
# **position**, the positions are sorted along with the vectors, and positions are compared.
#
# The sixteen tokens, sorted by one round with four buckets:

# %%
import torch

from reformer_core import draw_rotations, hash_vectors, plan_chunks
from reformer_viz.lessons import WORDS, sixteen_tokens

qk = sixteen_tokens()
rotations = draw_rotations(2, 1, 8, n_buckets=4, generator=torch.Generator().manual_seed(46))
buckets = hash_vectors(qk, rotations)
rule = {"n_buckets": 4, "chunk_length": 4}
plan = plan_chunks(buckets, causal=True, **rule)

order = plan.order[0, 0, 0]  # the position in every slot
print("sorted:", " ".join(f"{WORDS[i]}{i}" for i in order))

slot = torch.arange(16)
left = slot[:, None] > slot  # the wrong question
earlier = order[:, None] > order  # the right one
print(
    f"of {int(left.sum())} keys to the left of a query, {int((left & ~earlier).sum())} stand later"
)

# %% [markdown]
# Within one bucket the two questions have the same answer, because equal buckets keep their reading
# order. That is why the mistake is easily missed: it does no harm until a query may look *across*
# buckets (`within_bucket=False`), or until somebody sorts with a sort that is not stable.

# %%
across = plan_chunks(buckets, causal=True, within_bucket=False, **rule)
for name, made in (("within buckets", plan), ("across buckets", across)):
    later = made.visible()[0, 0].triu().sum()  # on the diagonal and above
    print(f"{name}: {int(made.visible().sum())} pairs in two rounds, not earlier: {int(later)}")

# %%
from reformer_viz.figures.bucketing import plot_bucketing
from reformer_viz.measure.bucketing import measure_bucketing

plot_bucketing(measure_bucketing(plan, labels=WORDS))

# %% [markdown]
# What you see: on the right, in reading order, everything lies below the diagonal. On the left, in sorted
# order, it lies near it.

# %% [markdown]
# ## 2. Nothing wraps around, and no round looks into another
#
# A query looks at its own chunk and the one before (Eq. 5; $s_i$ is the slot of $i$, $m$ the chunk length):
#
# $$\tilde P_i = \left\{\, j : \left\lfloor \tfrac{s_i}{m} \right\rfloor - 1 \le
# \left\lfloor \tfrac{s_j}{m} \right\rfloor \le \left\lfloor \tfrac{s_i}{m} \right\rfloor \right\}$$
#
# And the first chunk? By Eq. 5 there is nobody before it. But the shortest code lays the chunks of all
# rounds in one long list and shifts it by one, and then the first chunk looks back to the *last* one:

# %%
chunks = plan.order[0, 0].reshape(-1, 4)  # two rounds of four chunks, one list
shifted = chunks.roll(1, dims=0)  # "the chunk before", the short way
for chunk in (0, 4):
    own, before = ([f"{WORDS[i]}{i}" for i in row] for row in (chunks[chunk], shifted[chunk]))
    print(f"chunk 0 of round {chunk // 4}: {' '.join(own)}")
    print(f"  looks back to {' '.join(before)}; in both: {' '.join(w for w in own if w in before)}")

# %% [markdown]
# What you see: the "chunk before" was sorted by another round's directions. That is not a peek, for
# positions are compared all the same. But it shows a query strangers, it can show the same key twice in
# one softmax, and it lets padding, which is sorted last, stand right before the first chunk. Our plan cuts
# the window at the start of every round:

# %%
first = across.first[0, 0]
print("the first slot that the first chunk's slots see, in each round:", first[:, :4].tolist())

# %% [markdown]
# ## 3. Oneself last
#
# Queries and keys are one vector here: the key is the query at unit length. So nobody's key is nearer to
# a query than its own:

# %%
from reformer_core import keys_from, lsh_attention

scores = (qk @ keys_from(qk).mT)[0, 0]
nearest = scores.argmax(-1)
print("every token's best match is itself:", bool((nearest == slot).all()))

causal = torch.ones(16, 16, dtype=torch.bool).tril()
own = scores.masked_fill(~causal, -torch.inf).softmax(-1).diagonal()[1:].mean()
print(f"if it could see itself, a token would give itself {own:.0%} of its weight on average")

# %% [markdown]
# The paper forbids it, "except in situations where a token has no other valid attention targets" (Sec. 2).
# A token without targets is no rarity: the first one, and whoever is alone in its bucket in every round.
# Such a token returns its own value:

# %%
values = torch.rand(1, 1, 16, 4, generator=torch.Generator().manual_seed(1))
out = lsh_attention(qk, values, plan)
alone = (plan.times_seen() == 0).all(-1)[0, 0]
print("alone:", [f"{WORDS[i]}{i}" for i in alone.nonzero()[:, 0]])
print("they return their own value:", torch.equal(out[0, 0, alone], values[0, 0, alone]))

# %% [markdown]
# How to say "last" in code? Eq. 16 subtracts $10^5$ from the score with oneself: far below every real
# score, and finite, so that it wins where all others are infinite. It works as a mask, but the number
# that comes out is no longer a score. In 32 bits, numbers near $10^5$ are spaced by

# %%
spacing = torch.nextafter(torch.tensor(1e5), torch.tensor(2e5)) - 1e5
score = torch.tensor(3.1416)
print(f"{spacing.item():.4f}; so 3.1416 comes back as {((score - 1e5) + 1e5).item():.4f}")

# %% [markdown]
# which does no harm here: where another round shows somebody, this one gets weight 0, and where none does,
# every round returns the token's own value. But such a total is no longer the log of a sum of scores, and the
# number has to fit the type: in 16 bits (float16) $10^5$ is infinite. Worse is the row where *everything* is masked by the same large number: softmax then spreads the weight over all of
# it, future and padding included. So here it is decided by logic: where no round shows anybody
# (`log_total` is minus infinity), the output is the token's own value.

# %% [markdown]
# ## 4. The leak
#
# So no later token ever gets weight. Can it change an earlier token's output? There is one honest test:
# **change the future, watch the past.** Turn the vectors of the last four words around (this sends
# them to other buckets) and sort again. Words of the future are shown as dots; chunks are of two here.

# %%
CUT = 12  # the future begins here
changed = qk.clone()
changed[:, :, CUT:] *= -1


def sort_again(vectors):
    """Return one round's sorted order in words, a bar between chunks, and who sees whom."""
    plan = plan_chunks(
        hash_vectors(vectors, rotations[:, :1]), n_buckets=4, chunk_length=2, causal=True
    )
    words = [f"{WORDS[i]}{i}" if i < CUT else "·" for i in plan.order[0, 0, 0]]
    chunks = [" ".join(words[start : start + 2]) for start in range(0, 16, 2)]
    return " | ".join(chunks), plan.visible()[0, 0, 0]


(chunks_before, seen_before), (chunks_after, seen_after) = sort_again(qk), sort_again(changed)
print("before:", chunks_before)
print("after: ", chunks_after)
for i, j in (seen_before ^ seen_after)[:CUT].nonzero().tolist():
    when = "only before" if seen_before[i, j] else "only after"
    print(f"{WORDS[i]}{i} sees {WORDS[j]}{j} {when}")

# %% [markdown]
# What you see: the earlier words keep their order. But each dot that goes to another bucket pushes the
# words behind it along by a slot, and the *bars* do not move with them. So a bucket is cut at another place,
# and a word loses or gains a bucket-mate, without any later token having been looked at.
#
# > **Predict.** 256 tokens; all from position 128 on are replaced. How many of the 128 earlier outputs
# > change? With 16 buckets, about half as long as a window; with 4, longer than it; and across buckets, where a
# > query sees its whole window? And with 16 buckets, if fewer tokens at the end are replaced: fewer rows?

# %%
from reformer_viz import measure_leak, plot_leak

generator = torch.Generator().manual_seed(7)
text = torch.rand(1, 1, 256, 16, generator=generator) * 2 - 1
text_values = torch.rand(1, 1, 256, 8, generator=generator)
future = torch.rand(1, 1, 128, 16, generator=generator) * 2 - 1


def plan_of(vectors, n_buckets=16, **rule):
    directions = draw_rotations(2, 1, 16, n_buckets, torch.Generator().manual_seed(3))
    buckets = hash_vectors(vectors, directions)
    return plan_chunks(buckets, n_buckets=n_buckets, chunk_length=16, causal=True, **rule)


def rows_that_change(cut=128, **rule):
    """Count the outputs before `cut` that other vectors from there on change."""
    other_text = torch.cat([text[:, :, :cut], future[:, :, cut - 128 :]], dim=2)
    before, after = (lsh_attention(x, text_values, plan_of(x, **rule)) for x in (text, other_text))
    return int(((before - after)[0, 0, :cut].abs() > 1e-5).any(-1).sum())


print("16 buckets:", rows_that_change(), "of 128 rows change")
print(" 4 buckets:", rows_that_change(n_buckets=4))
print("16 buckets, across:", rows_that_change(within_bucket=False))
for cut in (192, 240, 255):
    print(f"16 buckets, others from {cut} on:", rows_that_change(cut), f"of {cut} rows change")
largest = max(plan_of(text).buckets[0, 0, round].bincount().max().item() for round in range(2))
print(f"the largest of 16 buckets holds {largest} tokens; safe are {16 + 1}")

# %% [markdown]
# The tokens' own buckets are untouched, and nobody sees the future; the borders did it. Where the part of a
# bucket up to the query fits into one chunk length and one, no border can take anything away, and the paper's
# restriction to one's own bucket (Eq. 4) keeps the leak shut. With 16 buckets that holds for the first half,
# where the early tokens of each bucket are still few, and not later: no row changed at 128, and that was not
# safety. A longer bucket opens the leak, and across buckets it is wide open.
#
# The cure is to count from the query instead of from the start: `window="sliding"` shows a query the
# `chunk_length` slots before its own, within its bucket. Those are earlier tokens of the same bucket
# (equal buckets keep reading order), and how *many* slots lie before them does not matter.

# %%
print(" 4 buckets, sliding:", rows_that_change(n_buckets=4, window="sliding"), "of 128 rows change")

leak = measure_leak(plan_of(text, n_buckets=4))
print(leak.describe())
plot_leak(leak)

# %% [markdown]
# What you see: the same buckets, cut by two rules. Under the chunk rule pairs come and go; under the
# sliding rule every pair of earlier tokens is seen before and after, or neither.
#
# In the explorer below, *cut* is the first position that gets another token, and *other tokens* says
# which ones.
#
# > **Predict, then move.** Only the very last of 256 tokens becomes another: *cut* at its end. How many
# > of the 255 rows before it change: none, one, or dozens? Then put *cut* back to the middle. What shuts
# > more of the leak, twice as many buckets or chunks twice as long?

# %%
from reformer_viz import explore_bucket_load, explore_leak

later = explore_leak(n_tokens=256, n_hashes=2)
later

# %%
later.controls["cut"].value = 255
print(later)
for n_buckets, chunk_length in ((4, 16), (8, 16), (4, 32)):
    rule = {"n_buckets": n_buckets, "chunk_length": chunk_length}
    later.state = {"cut": 128, **rule}
    print(f"{n_buckets} buckets: {later}")
    load = explore_bucket_load(n_tokens=256, n_hashes=2, **rule).data
    print(f"  {load.lost.sum() / load.pairs.sum():.0%} of the pairs in one bucket are cut off")

# %% [markdown]
# *What you see:* a single token is enough for dozens. Where it goes to another bucket, everything that is
# sorted between its old slot and its new one moves by a slot, while the borders stay. Both ways out let the
# windows cover more of their buckets, so that borders cut off fewer pairs, and here the longer chunks cover
# more. Neither is a cure, and no setting moves the sliding rule.
#
# The explorer of sparsity shows both rules at work: *window* switches between them, and *order* shows the
# pairs as a round sorted them. (The last number of its sentence is the cost: scores are computed in *tiles*,
# blocks of queries and keys, of which some entries are not visible and thrown away.
# [Lesson 11](11_fast.ipynb) counts them.)
#
# > **Predict, then move.** Does the sliding window see more pairs than the chunks do, or fewer? (How far
# > back does a query see that stands first in its chunk, and one that stands last?)

# %%
from reformer_viz import explore_sparsity

explorer = explore_sparsity(n_tokens=64, n_buckets=4, n_hashes=1, chunk_length=8)
explorer

# %% [markdown]
# By code: what asks for new buckets or vectors is a *control* (`explorer.controls`, as in the lessons before). What
# the page answers for by itself, such as the window, is the reader's *place*, and is set by name:

# %%
print(explorer)
explorer.place = {"window": "sliding"}
print(explorer)

# %% [markdown]
# *What you see:* the sliding window sees fewer. It shows every query one chunk length back; chunks show the first
# query of a chunk one chunk length back as well, and the last one nearly two.
#
# ## 5. What a leak means
#
# *Training and perplexity.* A language model is trained and measured on whole sequences, each token
# predicted from the tokens before it, all at once. With the chunk rule those predictions were made with
# other windows than the model has when it writes. No later token's value is in them, and no gradient flows
# through buckets, so a model cannot learn this way directly. But which earlier keys are seen depends on what
# comes later, and how much a trained model gains from that we did not measure. The perplexity of a paper is then
# not, exactly, the perplexity of the model that writes.
#
# *Decoding.* When it writes, the tokens after the present one do not exist yet. So we can compare, for
# every position: the prediction from the prefix alone, and that of the full pass.

# %%
from reformer_core import ReformerConfig, ReformerLM

tokens = torch.randint(32, (1, 64), generator=torch.Generator().manual_seed(8))
for window in ("chunks", "sliding"):
    torch.manual_seed(0)
    config = ReformerConfig(
        vocab_size=32, d_model=32, n_layers=2, n_heads=2, attention=("lsh",), n_hashes=2,
        chunk_length=8, max_length=64, window=window,
    )  # fmt: skip
    model = ReformerLM(config).eval()
    with torch.no_grad():
        whole = model(tokens)[0]
        as_written = torch.stack([model(tokens[:, : t + 1])[0, -1] for t in range(64)])
    differ = ((whole - as_written).abs() > 1e-3).any(-1)
    print(f"{window}: {int(differ.sum())} of 64 predictions differ from those of the full pass")

# %% [markdown]
# The model is untrained, which does not matter: what is tested is its wiring. With the sliding rule, the
# full pass gives exactly what the model says as it writes. A cache of earlier keys is then exact too; with
# the chunk rule it is an approximation, whoever wrote it, for the full pass itself would sort again.
#
# The price of `window="sliding"`: a query sees one chunk length back, where chunks show it one to two, so at
# the same `chunk_length` it sees fewer pairs. And it is not the paper's rule: a model that was trained with
# chunks is used to other windows, and numbers that are compared with the paper's should use the paper's.

# %% [markdown]
# ## 6. Across buckets, and padding
#
# `within_bucket=True`, our default, is Eq. 4: strangers in the window are masked. The authors' later
# configurations look at the whole window, strangers too. More pairs are then seen for the same cost:

# %%
for name, within_bucket in (("within", True), ("across", False)):
    times_seen = plan_of(text, within_bucket=within_bucket).times_seen()
    print(f"{name}: {int((times_seen > 0).sum()):,} pairs seen")

# %% [markdown]
# What that does to the leak under the sliding rule is the last exercise.
#
# **Padding** fills short sequences up, and must change nothing. Our plan sorts it behind everybody, shows
# it to nobody, and lets it see nobody: its outputs are zeros. Because nothing wraps around, the amount of it does
# not matter either, under both rules:


# %%
def with_padding(n, window):
    """Attend with n tokens of padding, which hold large random numbers; return both parts."""
    junk = 100 * torch.rand(1, 1, n, 16, generator=torch.Generator().manual_seed(n))
    padded, padded_values = torch.cat([text, junk], 2), torch.cat([text_values, junk[..., :8]], 2)
    padding = torch.arange(256 + n)[None] >= 256
    plan = plan_of(padded, window=window, padding=padding)
    return lsh_attention(padded, padded_values, plan).split([256, n], dim=2)


for window in ("chunks", "sliding"):
    without, _ = with_padding(0, window)
    for n in (1, 100):
        real, filled = with_padding(n, window)
        same = torch.allclose(real, without, atol=1e-5)
        print(f"{window}, {n:3} of padding: outputs unchanged {same}, zeros {not filled.any()}")

# %% [markdown]
# What you see: neither the amount nor the content of padding reaches a real token.

# %% [markdown]
# ## What surprised us
#
# - **Published causal LSH attention leaks.** We changed the second half of a sequence in two well-known
#   implementations, which look across buckets, and most outputs of the first half changed; the authors' later
#   code is built the same way. The paper does not mention it.
# - **A row in which everything is masked is not harmless.** With finite masks, in 32 bits, the log of the
#   sum rounds to the mask itself, every weight comes out as 1, and a padded query gets the *sum* of all
#   values. Layer by layer it blows up.
# - **The amount of padding changed real outputs** in one library. The cause was section 2: the first chunk
#   looked around the end, where the padding is.
# - **A library that hashes padding with the rest** lets the padding's content move the borders of chunks: other
#   padding symbols, other outputs.

# %% [markdown]
# ## Exercises
#
# ### 1. Earlier, in sorted order
#
# *Difficulty ●●○○○, importance ●●●●○, about 5 minutes.*
#
# `order` holds the position in every slot of one round. Return True or False, "length length": may the
# query in the slot of this row see the key in the slot of this column, as far as causality goes?
#
# <details><summary>Hint 1</summary>
#
# What decides is where the two tokens stand in the text. Which tensor says that of a slot?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Compare a column with a row: `order[:, None]` with `order`.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import causality as check


def is_earlier(order):
    """Say for every slot (rows) which slots (columns) hold an earlier token."""
    raise NotImplementedError


check.earlier(is_earlier)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def is_earlier(order):
#     return order[:, None] > order
# ```
#
# Rows are queries. A strict comparison leaves the token itself out.
#
# </details>

# %% [markdown]
# ### 2. The window of a chunk
#
# *Difficulty ●●○○○, importance ●●●○○, about 10 minutes.*
#
# Return, "length length", which slots (columns) lie in the window of each slot (rows) by Eq. 5, whatever
# the buckets and positions. The last chunk may be short.
#
# <details><summary>Hint 1</summary>
#
# Give every slot the number of its chunk, and compare those numbers.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Two inequalities, as in Eq. 5. If you find yourself writing `roll` or `%`, look at the first chunk.
#
# </details>


# %% tags=["exercise"]
def own_and_previous(length, chunk_length):
    """Say for every slot (rows) which slots (columns) its window covers."""
    raise NotImplementedError


check.own_and_previous(own_and_previous)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def own_and_previous(length, chunk_length):
#     chunk = torch.arange(length) // chunk_length
#     return (chunk[:, None] - 1 <= chunk) & (chunk <= chunk[:, None])
# ```
#
# For the first chunk the left inequality asks for a chunk number of at least -1, and that holds for all.
#
# </details>

# %% [markdown]
# ### 3. Oneself last
#
# *Difficulty ●●●○○, importance ●●●●●, about 15 minutes.*
#
# Given `scores` and `visible`, "length length" each, return the weights: a softmax over what is visible, and
# for a query that sees nobody, all weight on itself. (`visible` never holds the diagonal.)
#
# <details><summary>Hint 1</summary>
#
# First find out which queries see nobody: `visible.any(-1)`.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Make their own key visible to those, and only to those; then one softmax does it all.
#
# </details>


# %% tags=["exercise"]
def weights(scores, visible):
    """Return the attention weights; a query that sees nobody sees itself."""
    raise NotImplementedError


check.weights(weights)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def weights(scores, visible):
#     alone = ~visible.any(-1, keepdim=True)
#     itself = torch.eye(len(scores), dtype=torch.bool)
#     return scores.masked_fill(~(visible | (alone & itself)), -torch.inf).softmax(-1)
# ```
#
# Every row has now at least one key, so that no softmax is empty.
#
# </details>

# %% [markdown]
# ### 4. The sliding window
#
# *Difficulty ●●●●○, importance ●●●●○, about 20 minutes.*
#
# `buckets` are those of one round in sorted order. Return two tensors, the `first` and the `last` slot that
# each slot sees by the causal sliding rule: its bucket-mates among the `chunk_length` slots before its own.
# Where there are none, `first` is one more than `last`.
#
# <details><summary>Hint 1</summary>
#
# Without buckets, the slots before slot s are s - chunk_length to s - 1, cut at 0.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The run must not begin before the query's bucket does. `torch.searchsorted(buckets, buckets)` gives the
# first slot of every slot's bucket.
#
# </details>


# %% tags=["exercise"]
def sliding_runs(buckets, chunk_length):
    """Return the first and the last slot that each slot sees."""
    raise NotImplementedError


check.sliding_runs(sliding_runs)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def sliding_runs(buckets, chunk_length):
#     slot = torch.arange(len(buckets))
#     bucket_starts = torch.searchsorted(buckets, buckets)
#     return torch.maximum(slot - chunk_length, bucket_starts), slot - 1
# ```
#
# Counted from its bucket's start, a slot's run depends on how many tokens of the bucket come before it,
# and on nothing that comes later.
#
# </details>

# %% [markdown]
# ### 5. Which rules leak?
#
# *Difficulty ●●●○○, importance ●●●●●, about 10 minutes.*
#
# Four rules, in this order: chunks within buckets, chunks across buckets, sliding within buckets, sliding
# across buckets. Say for each whether there is a text in which later tokens change an earlier output. Decide
# first, then try `rows_that_change(window=..., within_bucket=..., n_buckets=...)`.
#
# <details><summary>Hint 1</summary>
#
# What lies between an earlier token and the start of its window, in slots, and who can move in there?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# A later token can be sorted *before* an earlier one: into a lower bucket. Across buckets it can then take
# one of the slots that the sliding window counts.
#
# </details>

# %% tags=["exercise"]
answer = ...  # four times True or False, such as (True, True, True, True)

check.leaks(answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# answer = (True, True, False, True)
# ```
#
# Chunks are cut from everybody, so later tokens move their borders. Across buckets the slots just before
# a query may hold later tokens of a lower bucket: they are masked, but take places. Only the sliding window
# within buckets counts nothing but earlier tokens.
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>What is compared in the causal mask of a sorted sequence?</summary>
#
# Positions in the text, which were sorted along with the vectors. Not slots.
#
# </details>
#
# <details><summary>Why is comparing slots right within a bucket?</summary>
#
# The sort is stable: tokens of one bucket keep their reading order.
#
# </details>
#
# <details><summary>What does the first chunk look back to?</summary>
#
# To nothing. Where chunks of all rounds lie in one list that is shifted by one, it looks at the last chunk of
# another round: strangers, repeats, padding.
#
# </details>
#
# <details><summary>Why would a token with shared query-key attend mostly to itself?</summary>
#
# Its key is its query at unit length, and no other unit vector has a larger product with the query.
#
# </details>
#
# <details><summary>When does it attend to itself after all?</summary>
#
# When no round shows it anybody else: the first token always, others by chance.
#
# </details>
#
# <details><summary>How can later tokens change an earlier output without being seen?</summary>
#
# They change how many slots lie before the earlier tokens, hence where the borders of chunks fall, hence
# which earlier keys share a window.
#
# </details>
#
# <details><summary>How does one test an attention for leaks?</summary>
#
# Change everything after a position, and compare the outputs before it.
#
# </details>
#
# <details><summary>Which rule is strictly causal, and what else becomes exact with it?</summary>
#
# The sliding window within buckets. The full pass then agrees with token-by-token decoding, and a cache of
# keys can be exact.
#
# </details>

# %% [markdown]
# ## Next
#
# [Shared query-key: what does it cost?](06_shared_qk.ipynb) All this trouble with oneself comes from keys that
# are queries. What else does that do, and why is it done?
#
# Further reading: the paper's Sec. 2, "Causal masking for shared-QK attention"; its appendix, Eq. 11 and 16.
