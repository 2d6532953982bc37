# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Hashing: when do two vectors share a bucket?
#
# [Open in Colab](https://colab.research.google.com/github/reformer-notebooks/reformer-notebooks/blob/main/notebooks/02_hashing.ipynb)
#
# The keys that matter are those that point where the query points. To find them without comparing every
# key to every query, the Reformer gives each vector a number, its **bucket**, such that vectors which point
# the same way often get the same number. Such a function is a *locality-sensitive hash* (LSH). This lesson
# looks at the one that the paper uses, *angular LSH*: what it sees of a vector, why neighbours collide, how often,
# and how unequal the buckets become.
#
# After this lesson you can
# - hash vectors by hand, and say which of their properties the hash cannot see;
# - predict how likely two vectors at an angle share a bucket, and how several rounds change it;
# - explain why `-R` belongs to the formula, and what factored buckets save;
# - put a hash of your own in its place, and see what it finds.
#
# Needs: [why attention is quadratic](01_why_quadratic.ipynb). Words: [glossary](../docs/glossary.md).
#
# Paper: Sec. 2, "Locality sensitive hashing".
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
# ## 1. Which way does it point?
#
# Draw a few random directions, the columns of a matrix $R$. For a vector $x$ the product $xR$ says how far
# $x$ goes along each direction; $-xR$ says the same of the opposite directions. The bucket is the number of
# the direction that $x$ follows most (Sec. 2):
#
# $$h(x) = \operatorname{argmax}\,[\,xR;\; -xR\,]$$
#
# With $n_b/2$ directions there are $n_b$ buckets: $n_b$ is always even. The random matrix is called a *rotation*,
# although nothing keeps it from stretching as well. Here are the course's sixteen tokens in one round of
# eight buckets, by the package, and by the formula:

# %%
import torch

from reformer_core import draw_rotations, hash_vectors
from reformer_viz.lessons import WORDS, sixteen_tokens

qk = sixteen_tokens()  # batch, heads, length, d_head
generator = torch.Generator().manual_seed(0)
rotations = draw_rotations(n_hashes=1, n_heads=1, d_head=8, n_buckets=8, generator=generator)
buckets = hash_vectors(qk, rotations)

projected = qk[0, 0] @ rotations[0, 0]  # length, half of the buckets
by_formula = torch.cat([projected, -projected], dim=-1).argmax(-1)
print("the formula agrees:", torch.equal(buckets[0, 0, 0], by_formula))

for bucket in range(8):
    print(bucket, *(f"{WORDS[i]}{i}" for i in range(16) if by_formula[i] == bucket))

# %% [markdown]
# *What you see:* a word that comes back mostly falls into the bucket of its first time, and so do a few
# words that have nothing to do with each other. A hash promises neither more nor less.
#
# ## 2. Regions on the circle and the sphere
#
# With vectors of two or three numbers one can see it. Every bucket is a *region*: all points that follow
# its direction most. Neighbours share a bucket unless a border runs between them.
#
# > **Predict, then move.** The marked pair is 30 degrees apart. Widen the angle to 90, and to 180. From where
# > on do the two *never* share a bucket? And with more buckets, do neighbours meet more often or less?

# %%
from reformer_viz import explore_geometry

sphere = explore_geometry(n_buckets=8, angle=30)
sphere

# %%
for angle in (90, 180):
    sphere.controls["angle"].value = angle
    print(sphere, "\n")

sphere.controls["angle"].value = 30
sphere.controls["n_buckets"].value = 16
print(sphere)

# %% [markdown]
# *What you see:* at 180 degrees the probability is zero, and nowhere before: at 90 degrees a pair still meets
# by chance. More buckets cut the sphere into smaller regions, so neighbours meet less often, in one round as in
# four.
#
# A vector and its opposite never share a bucket: if $x$ follows a direction most, $-x$ follows the opposite
# of it most. That is what $-R$ is for. Without it half of the buckets would be missing, and directions that
# no column is near to would be thrown together. The hash cannot see a vector's *length*, since a factor
# changes all products alike:

# %%
longer = hash_vectors(100 * qk, rotations)
opposite = hash_vectors(-qk, rotations)
print("a hundred times as long, the same buckets:", torch.equal(longer, buckets))
print("the other way, another bucket for all:", bool((opposite != buckets).all()))

# %% [markdown]
# ## 3. How likely do two vectors collide?
#
# It depends on their angle alone, not on how many numbers a vector has: the products of the two with a random
# direction are two normal numbers, correlated by the cosine of the angle. With two buckets the
# probability is $1 - \theta/180°$, with $\theta$ the angle. With more it falls off faster, and at a right angle it
# is $1/n_b$, no more than chance. Below, points are counted on random pairs, lines are theory:

# %%
from reformer_viz import collision_probability, measure_collisions, plot_collisions

collisions = measure_collisions(n_buckets=(2, 8, 32), n_hashes=(1, 2, 4, 8), n_pairs=300)
plot_collisions(collisions)

# %%
print("angle  one round of 8 buckets   4 rounds")
for angle in (10, 30, 60, 90, 150):
    one = collision_probability(angle, 8)
    print(f"{angle:4}°  {one:21.3f}  {1 - (1 - one) ** 4:10.3f}")

# %% [markdown]
# *What you see:* one round is a poor filter. At 30 degrees it misses many pairs; fewer buckets would find
# more, and let more strangers in. Several **rounds**, each with directions of its own, find more as well: a pair is
# found if *any* round finds it, with probability $1 - (1 - p)^n$, so near pairs are almost always found.
# Strangers profit, too: random vectors of many numbers stand nearly at right angles, and the row for 90
# degrees says how many of them four rounds let in. More buckets keep them out, and lesson 04 asks how many
# rounds are enough then.
#
# ## 4. Thousands of buckets from a few directions
#
# A text of 64 thousand tokens in chunks of 64 wants two thousand buckets, so a thousand directions for every
# token, head and round. **Factored buckets** are cheaper: split the directions into two parts, choose in each,
# and number the combinations. The sum of the directions' counts is what costs, the product of the bucket counts
# is what one gets.

# %%
for n_buckets in (2048, (32, 64)):
    drawn = draw_rotations(1, 1, 64, n_buckets, torch.Generator().manual_seed(0))
    vectors = torch.rand(1, 1, 4096, 64, generator=torch.Generator().manual_seed(1)) - 0.5
    numbers = hash_vectors(vectors, drawn, n_buckets)
    name = str(n_buckets)
    print(f"{name:>9}: {drawn.shape[-1]:5} directions, {numbers.unique().numel()} buckets in use")
    print(f"{'':>10} two at 30 degrees collide with probability ", end="")
    print(
        f"{collision_probability(30, n_buckets):.3f}, at 60 {collision_probability(60, n_buckets):.3f}"
    )

# %% [markdown]
# *What you see:* the factored count does with 48 directions instead of 1,024. The price is that two choices must
# agree, so that a near pair meets less often than in as many plain buckets.
#
# ## 5. Buckets are not equally long
#
# Random directions are not spread evenly, and neither are vectors. Some buckets stay empty, others are long; a
# long one will be cut into several chunks and lose pairs (next lesson). Left, how many tokens the buckets
# hold; in the middle, the longest ones with their pairs, seen and lost; right, for every bucket, which share
# of its pairs is lost.

# %%
from reformer_core import plan_chunks
from reformer_viz import measure_bucket_load, plot_bucket_load

many = torch.rand(1, 4, 1024, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
rule = {"n_buckets": 32, "chunk_length": 32}
drawn = draw_rotations(2, 4, 16, 32, torch.Generator().manual_seed(4))
load = measure_bucket_load(plan_chunks(hash_vectors(many, drawn), **rule, causal=True))
print(load.describe())
plot_bucket_load(load)

# %% [markdown]
# *What you see:* bucket sizes lie far to both sides of the even share. Up to the dotted line a bucket fits into
# the window whatever the borders do, and loses nothing; from there on, the longer a bucket, the larger the
# share that it loses.
#
# ## 6. Bring your own
#
# Nothing else in the Reformer knows how buckets came about, so you may replace the hash by any function from
# vectors to whole numbers. A common one in two lines: the signs along three axes, eight octants.
#
# > **Predict, then move.** Are its regions equally large? Which of the two hashes divides a pair at 30 degrees
# > more often, this one or eight buckets of random directions? And what can a second round add to it?


# %%
def octant(vectors):
    """Number the eight octants by the signs of a vector's first three numbers."""
    signs = vectors[..., :3] > 0
    return (signs * torch.tensor([1, 2, 4])[: signs.shape[-1]]).sum(-1)


mine = explore_geometry(hash=octant, angle=30)
mine

# %%
mine.controls["angle"].value = 90
print(mine)

# %% [markdown]
# *What you see:* regions of equal size, and always the same ones. At 30 degrees a pair meets less often than
# with random directions (section 2), and at a right angle never, for no octant is wider. But a pair that a border
# divides is lost for good: no second round could find it. Randomness is what lets rounds help each other.
#
# ## What surprised us
#
# - **Shared rotations.** One library draws one set of directions for all heads and all texts of a batch. Then
#   the borders lie in the same places for every head, and their misses are not independent. Here every head and
#   round has its own; the texts of a batch share them.
# - **A number per round, not per sequence.** Other implementations add `round * n_buckets` to the bucket to
#   sort all rounds at once. In the authors' code the keys of this sort are 32-bit numbers, and for a long text
#   they wrap around. Here buckets are numbered from 0 in each round.
# - **Bucket counts must not depend on the text.** If the number of buckets follows the length of the input, then
#   every generated token may change all hashes. Here it follows from the config.
# - **It is not hyperplane LSH.** Many tutorials explain the signs of a few products (as `octant`). The paper's
#   hash takes the *largest* product: with as many buckets its regions are rounder, and a near pair is less
#   often divided.
#
# ## Exercises
#
# ### 1. Number the buckets
#
# *Difficulty ●●○○○, importance ●●●●●, about 10 minutes.*
#
# Write `bucket_numbers(vectors, rotations)`: `vectors` is "batch heads length d_head", `rotations` "heads rounds
# d_head half_buckets"; the result is "batch heads rounds length".
#
# <details><summary>Hint 1</summary>
#
# `vectors[:, :, None] @ rotations` is "batch heads rounds length half_buckets". Why?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Put the opposite directions behind, along the last axis, and take the argmax over it.
#
# </details>

# %% tags=["exercise"]
from reformer_viz.lessons.checks import hashing as check


def bucket_numbers(vectors, rotations):
    """Return the bucket of every vector in every round."""
    raise NotImplementedError


check.bucket_numbers(bucket_numbers)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def bucket_numbers(vectors, rotations):
#     projected = vectors[:, :, None] @ rotations
#     return torch.cat([projected, -projected], dim=-1).argmax(-1)
# ```
#
# The package avoids the concatenation: the largest absolute value names the direction, its sign the half.
#
# </details>

# %% [markdown]
# ### 2. The opposite bucket
#
# *Difficulty ●●○○○, importance ●●○○○, about 5 minutes.*
#
# Write `opposite_bucket(buckets, n_buckets)`: if a vector is in bucket $k$, in which is its opposite?
#
# <details><summary>Hint 1</summary>
#
# In $[xR; -xR]$, where does the opposite of direction number 0 stand?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# And from the second half one comes back to the first: `%` helps.
#
# </details>


# %% tags=["exercise"]
def opposite_bucket(buckets, n_buckets):
    """Return the buckets of the opposite vectors."""
    raise NotImplementedError


check.opposite(opposite_bucket)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def opposite_bucket(buckets, n_buckets):
#     return (buckets + n_buckets // 2) % n_buckets
# ```
#
# </details>

# %% [markdown]
# ### 3. Found by any round
#
# *Difficulty ●●○○○, importance ●●●●○, about 10 minutes.*
#
# Write `found_by_rounds(angle, n_buckets, n_hashes)`: the probability that at least one of the rounds puts two
# vectors at this angle into one bucket. `collision_probability(angle, n_buckets)` gives that of one round.
#
# <details><summary>Hint 1</summary>
#
# When is a pair *not* found?
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Rounds are independent: the probabilities of missing it multiply.
#
# </details>


# %% tags=["exercise"]
def found_by_rounds(angle, n_buckets, n_hashes):
    """Return the probability that some round finds the pair."""
    raise NotImplementedError


check.found_by_rounds(found_by_rounds)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def found_by_rounds(angle, n_buckets, n_hashes):
#     missed = 1 - collision_probability(angle, n_buckets)
#     return 1 - missed**n_hashes
# ```
#
# </details>

# %% [markdown]
# ### 4. Factored buckets
#
# *Difficulty ●●●○○, importance ●●○○○, about 15 minutes.*
#
# Write `factored(vectors, rotations, factors)`, shapes as in exercise 1: cut the directions into parts of
# `factor // 2`, choose in each part as before, and number the combinations: a choice counts the product of the
# *earlier* factors.
#
# <details><summary>Hint 1</summary>
#
# `projected.split([2, 3], dim=-1)` cuts the last axis into parts of 2 and of 3.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Every part has opposites of its own: exercise 1, for each part.
#
# </details>


# %% tags=["exercise"]
def factored(vectors, rotations, factors):
    """Return the bucket of every vector in every round."""
    raise NotImplementedError


check.factored(factored)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def factored(vectors, rotations, factors):
#     projected = vectors[:, :, None] @ rotations
#     buckets, place = 0, 1
#     for part, factor in zip(projected.split([f // 2 for f in factors], dim=-1), factors):
#         buckets = buckets + place * torch.cat([part, -part], dim=-1).argmax(-1)
#         place = place * factor
#     return buckets
# ```
#
# </details>

# %% [markdown]
# ### 5. How many rounds?
#
# *Difficulty ●●○○○, importance ●●●○○, about 5 minutes.*
#
# How many rounds of 16 buckets find a pair 45 degrees apart with a probability of at least 0.9? Give a number.
#
# <details><summary>Hint 1</summary>
#
# Use exercise 3, and try.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# Or solve $(1 - p)^n \le 0.1$ for $n$.
#
# </details>

# %% tags=["exercise"]
answer = ...

check.rounds_needed(answer)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# answer = 1
# while (1 - collision_probability(45, 16)) ** answer > 0.1:
#     answer += 1
# ```
#
# Who needs pairs that far apart needs many rounds. Training moves the pairs that matter closer together.
#
# </details>

# %% [markdown]
# ## Questionnaire
#
# <details><summary>What of a vector can the hash not see?</summary>
#
# Its length.
#
# </details>
#
# <details><summary>Why is the number of buckets even?</summary>
#
# Every direction counts twice: forwards and backwards.
#
# </details>
#
# <details><summary>Can two opposite vectors share a bucket?</summary>
#
# Never: the direction that one follows most is the one that the other follows least.
#
# </details>
#
# <details><summary>How likely do two vectors at a right angle share one of $n_b$ buckets?</summary>
#
# With probability $1/n_b$: knowing one says nothing about the other.
#
# </details>
#
# <details><summary>Why are several rounds better than fewer buckets?</summary>
#
# Rounds raise the probability of near pairs to nearly one. That of far pairs rises as well, so one takes many
# buckets, which make it small in a single round, and then enough rounds to get the near pairs back.
#
# </details>
#
# <details><summary>What do factored buckets save?</summary>
#
# Directions: the sum of the factors, halved, instead of their product.
#
# </details>
#
# <details><summary>Why may a hash not be the same in every round?</summary>
#
# A pair that it divides would be divided in all of them.
#
# </details>
#
# ## Next
#
# Tokens have buckets now. [From buckets to attention](03_buckets_to_attention.ipynb): what is sorted, cut and
# compared? Further reading: Sec. 2 of the paper; Andoni and others, *Practical and Optimal LSH for Angular
# Distance* (2015), where this hash comes from.
