"""How a run went: its curves, and how the buckets of one probe sequence organised themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from jaxtyping import Bool, Float, Int

from reformer_core.training import Evaluation, StepRecord, TrainingRun
from reformer_viz.measure.pairs import take_head
from reformer_viz.measure.recording import NOBODY, Recorder, Recording


@dataclass(frozen=True, kw_only=True, eq=False)
class Organisation:
    """What a recording says about buckets in numbers, snapshot by snapshot and layer by layer.

    The *sought pairs* are those of the last snapshot, where a query puts at least half of full
    attention's weight on one key. Asking at every snapshot for the same pairs says how the buckets
    came to hold what the model ended up looking for. Without such a pair a layer's shares are NaN.
    """

    largest_share: Float[np.ndarray, "snapshots layers heads rounds"]
    """The share of the tokens that the largest bucket holds; 1 / n_buckets is even."""
    n_sought: Int[np.ndarray, " layers"]
    """How many sought pairs there are, in all heads."""
    sought_together: Float[np.ndarray, "snapshots layers"]
    """The share of them that share a bucket, mean over the rounds."""
    sought_seen: Float[np.ndarray, "snapshots layers"]
    """The share of them that some round sees."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """A run's numbers: all that a picture of it needs. Losses in nats, norms before clipping."""

    steps: Int[np.ndarray, " steps"]
    """The number of every step, counted from 1."""
    loss: Float[np.ndarray, " steps"]
    """Before each update."""
    gradient_norm: Float[np.ndarray, " steps"]
    learning_rate: Float[np.ndarray, " steps"]
    evaluation_steps: Int[np.ndarray, " evaluations"]
    evaluation_loss: Float[np.ndarray, " evaluations"]
    measure: Float[np.ndarray, " evaluations"]
    """Held out; in the units of `measure_name`: a share for an accuracy, or bits per byte."""
    measure_name: str
    stopped: str
    recording: Recording | None
    organisation: Organisation | None

    def describe(self) -> str:
        """Say in a few sentences how the run went, and what the probe's buckets did."""
        said = [f"{_many(len(self.loss), 'step')}, {self.stopped}: {self._of_losses()}."]
        if self.recording is not None:
            said.append(self._of_probe())
            said += [self._of_layer(place) for place in range(len(self.recording.layers))]
        return " ".join(said)

    def _of_losses(self) -> str:
        parts = [f"the loss went from {self.loss[0]:.3f} to {self.loss[-1]:.3f} nats"]
        if len(self.measure):
            parts.append(f"held-out {self.words()} is {self.in_units(self.measure[-1])}")
        return ", ".join(parts)

    def words(self) -> str:
        """Name the measure in words."""
        return self.measure_name.replace("_", " ")

    def in_units(self, measure: float) -> str:
        """Write a value of the measure: an accuracy in percent, all else with three digits."""
        return f"{measure:.1%}" if self.measure_name == "accuracy" else f"{measure:.3g}"

    def _of_probe(self) -> str:
        steps, length = self.recording.steps, len(self.recording.tokens)
        between = f" between steps {steps[0]:,} and {steps[-1]:,}" if len(steps) > 1 else ""
        return (
            f"{_many(length, 'token')} of a probe were looked at "
            f"{_many(len(steps), 'time')}{between}."
        )

    def _of_layer(self, place: int) -> str:
        mass = self.recording.mass_found[:, place].mean(-1)
        share = self.organisation.largest_share[-1, place].mean()
        even = 1 / self.recording.rule["n_buckets"]
        return (
            f"Layer {self.recording.layers[place]}: its plans hold {mass[-1]:.0%} of full "
            f"attention's weight ({mass[0]:.0%} at first), and its largest bucket "
            f"{share:.0%} of the tokens ({even:.0%} would be even). {self._of_sought(place)}"
        )

    def _of_sought(self, place: int) -> str:
        organisation = self.organisation
        if not organisation.n_sought[place]:
            return "No query puts half of its weight on one key."
        together, seen = (
            share[[0, -1], place]
            for share in (organisation.sought_together, organisation.sought_seen)
        )
        return (
            f"Of {_many(int(organisation.n_sought[place]), 'pair')} in which a query puts half of "
            f"its weight on one key, {together[1]:.0%} share a bucket in a round "
            f"({together[0]:.0%} at first) and {seen[1]:.0%} are seen by some round "
            f"({seen[0]:.0%} at first)."
        )


def measure_training(run: TrainingRun, recorded: Recorder | Recording | None = None) -> Training:
    """Collect what a run recorded, and count what the probe's buckets did, if one was recorded.

    Raises ValueError for a run without a step, and for a recording that goes beyond the run.
    """
    recording = recorded.recording if isinstance(recorded, Recorder) else recorded
    return collect_training(run.history, run.evaluations, recording, run.stopped)


def collect_training(
    history: Sequence[StepRecord],
    evaluations: Sequence[Evaluation],
    recording: Recording | None,
    stopped: str,
) -> Training:
    """Collect the records of a run that may still go on."""
    if not history:
        raise ValueError("a run must have taken a step to be measured, got none: train longer")
    if recording is not None and recording.steps[-1] > history[-1].step:
        raise ValueError(
            f"a recording must be of the run, got one of step {recording.steps[-1]} for a run of "
            f"{_many(history[-1].step, 'step')}: give the recorder that watched it"
        )
    evaluations = [found for found in evaluations if found.step is not None]
    return Training(
        steps=np.array([record.step for record in history], dtype=np.int64),
        **{
            name: np.array([getattr(record, name) for record in history], dtype=np.float64)
            for name in ("loss", "gradient_norm", "learning_rate")
        },
        evaluation_steps=np.array([found.step for found in evaluations], dtype=np.int64),
        evaluation_loss=np.array([found.loss for found in evaluations], dtype=np.float64),
        measure=np.array([found.measure for found in evaluations], dtype=np.float64),
        measure_name=evaluations[0].measure_name if evaluations else "measure",
        stopped=stopped,
        recording=recording,
        organisation=None if recording is None else measure_organisation(recording),
    )


def describe_snapshot(
    recording: Recording, snapshot: int, layer: int, head: int, round: int, token: int | None = None
) -> str:
    """Say what one round made of the probe at a snapshot, or what it made of one token.

    `layer` counts the layers that were recorded. Raises ValueError for what was not recorded.
    """
    recording.check_place(layer, head, round, snapshot=snapshot, token=token)
    place = (
        f"After step {recording.steps[snapshot]:,}, layer {recording.layers[layer]}, head {head}, "
        f"round {round}"
    )
    if token is None:
        return f"{place}: {_of_round(recording, snapshot, (layer, head), round)}"
    return f"{place}: {_of_token(recording, snapshot, (layer, head), round, token)}"


def _seen(
    recording: Recording,
    snapshot: int,
    head: tuple[int, int],
    query: Int[np.ndarray, " pairs"],
    key: Int[np.ndarray, " pairs"],
) -> Bool[np.ndarray, "rounds pairs"]:
    """Say for every round which of some pairs it sees, from the runs of slots: never all pairs."""
    plan = take_head(recording.plan(snapshot, *head))
    own, of_key = plan.slot[:, query], plan.slot[:, key]
    first, last = (np.take_along_axis(end, own, axis=1) for end in (plan.first, plan.last))
    allowed = key < query if plan.causal else key != query
    return (first <= of_key) & (of_key <= last) & allowed


def _of_round(recording: Recording, snapshot: int, head: tuple[int, int], round: int) -> str:
    buckets = recording.buckets[:, *head, round]
    now, last = buckets[snapshot], buckets[-1]
    settled = int((now == last).sum())
    sought = recording.sought[-1, *head]
    query = np.flatnonzero(sought != NOBODY)
    together = int((now[query] == now[sought[query]]).sum())
    seen = int(_seen(recording, snapshot, head, query, sought[query]).any(0).sum())
    return (
        f"{settled:,} of {_many(len(now), 'token')} are in the bucket that they end in; the "
        f"largest of {recording.rule['n_buckets']:,} buckets holds {np.bincount(now).max():,}. "
        f"The rounds hold {in_per_cent(recording.mass_found[snapshot, *head])} of full attention's "
        f"weight. Of {_many(len(query), 'pair')} that the last snapshot seeks, {together:,} share "
        f"a bucket in this round, and {seen:,} are seen by some round."
    )


def _of_token(
    recording: Recording, snapshot: int, head: tuple[int, int], round: int, token: int
) -> str:
    keys = np.arange(len(recording.tokens))
    seen = _seen(recording, snapshot, head, np.full_like(keys, token), keys)
    by_round, by_any = seen[round], seen.any(0)
    sought = int(recording.sought[-1, *head, token])
    if sought == NOBODY:
        wish = "In the last snapshot it puts no half of its weight on one token."
    else:
        found = "this round" if by_round[sought] else "another round"
        wish = (
            f"In the last snapshot it seeks token {sought:,} “{recording.labels[sought]}”, which "
            f"{found if by_any[sought] else 'no round'} sees here."
        )
    return (
        f"token {token:,} “{recording.labels[token]}” is in bucket "
        f"{recording.buckets[snapshot, *head, round, token]:,} and sees "
        f"{_many(int(by_round.sum()), 'token')}, with the other rounds {int(by_any.sum()):,}. "
        f"{wish}"
    )


def in_per_cent(share: Real) -> str:
    """Write a share in percent, rounded once, to a thousandth: pages round the same way."""
    return f"{per_mille(share) / 10:.1f} %"


def per_mille(share: Real) -> int:
    """Round a share to a thousandth."""
    return round(float(share) * 1000)


def measure_organisation(recording: Recording) -> Organisation:
    """Count how even the buckets are, and how many of the sought pairs they hold."""
    n_layers, length = len(recording.layers), len(recording.tokens)
    layer, head, query = np.nonzero(recording.sought[-1] != NOBODY)
    key = recording.sought[-1, layer, head, query]
    together, seen = [], []
    for snapshot, buckets in enumerate(recording.buckets):
        same = buckets[layer, head, :, query] == buckets[layer, head, :, key]
        together.append(_mean_by_layer(same.mean(-1), layer, n_layers))
        shown = np.zeros(len(query), bool)
        for place in {*zip(layer.tolist(), head.tolist(), strict=True)}:
            here = (layer == place[0]) & (head == place[1])
            shown[here] = _seen(recording, snapshot, place, query[here], key[here]).any(0)
        seen.append(_mean_by_layer(shown, layer, n_layers))
    return Organisation(
        largest_share=_largest(recording.buckets) / length,
        n_sought=np.bincount(layer, minlength=n_layers),
        sought_together=np.stack(together),
        sought_seen=np.stack(seen),
    )


def _largest(
    buckets: Int[np.ndarray, "snapshots layers heads rounds length"],
) -> Int[np.ndarray, "snapshots layers heads rounds"]:
    """Count the tokens of every round's largest bucket."""
    return np.apply_along_axis(lambda row: np.bincount(row).max(), -1, buckets)


def _mean_by_layer(
    shares: np.ndarray, layer: Int[np.ndarray, " pairs"], n_layers: int
) -> Float[np.ndarray, " layers"]:
    """Average over the pairs of each layer; NaN where a layer has none."""
    count = np.bincount(layer, minlength=n_layers)
    total = np.bincount(layer, weights=shares, minlength=n_layers)
    return np.divide(total, count, out=np.full(n_layers, np.nan), where=count > 0)


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
