"""A training run, step by step: data, loss, update, and in between evaluations and checkpoints."""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice, takewhile
from typing import Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from reformer_core.checkpoints import Checkpoint, put_weights, read_checkpoint, save_checkpoint
from reformer_core.config import TrainConfig
from reformer_core.models import ReformerLM
from reformer_core.tasks.batch import Batch, Task, generator_of
from reformer_core.training.evaluation import evaluate_batches
from reformer_core.training.isolation import RandomState, beside_the_cpu, interruptible
from reformer_core.training.optimizers import (
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    put_optimizer_tensors,
)
from reformer_core.training.records import (
    Evaluation,
    Progress,
    StepRecord,
    TrainingRun,
    history_of,
    history_tensors,
)
from reformer_core.training.resuming import (
    check_same,
    grouped,
    training_facts,
    ungrouped,
    wants_to_resume,
)

OnStep = Callable[[Progress], None]

_RECENT = 20
"""Speed is the mean over that many steps."""


def train(
    model: ReformerLM, task: Task, config: TrainConfig, *, on_step: OnStep | None = None
) -> TrainingRun:
    """Teach a model a task, in place, and return what happened.

    Learns by `model.loss` alone. The data are a function of (seed, step, micro-batch). Dropout
    draws from a random state of the run's own, seeded by `seed`: what others draw between steps
    changes nothing, and the caller's random state is left as it was. `on_step` is called after
    every step and its evaluation, if one is due, in this thread.

    Ctrl-C, or a notebook's stop button, lets the present step finish, writes the checkpoint and
    returns the run so far; a second one raises KeyboardInterrupt at once. Raises ValueError when a
    loss or a gradient is not finite: the weights are then those of before that step.
    """
    _check_fit(model, task)
    device = _device_of(model, config)
    was_training = model.training
    aside = torch.random.fork_rng(beside_the_cpu(device))
    with aside, torch.enable_grad(), interruptible() as interrupt:
        loop = _Loop(model.to(device), task, config, device)
        try:
            loop.run(interrupt, on_step)
        finally:
            model.train(was_training)
            model.zero_grad(set_to_none=True)
    return loop.result("interrupted" if interrupt.is_set() else "finished")


class _Loop:
    """Keep what changes from step to step: weights, optimiser, random state, and the record."""

    def __init__(
        self, model: ReformerLM, task: Task, config: TrainConfig, device: torch.device
    ) -> None:
        self.model, self.task, self.config, self.device = model, task, config, device
        self.optimizer = make_optimizer(model, config)
        self.random = RandomState(config.seed, device)
        self.history: list[StepRecord] = []
        self.evaluations: list[Evaluation] = []
        self.seconds = 0.0
        self.saved_step = 0
        if wants_to_resume(config):
            self._restore(read_checkpoint(config.folder))

    @property
    def step(self) -> int:
        """Return how many steps are done."""
        return len(self.history)

    def run(self, interrupt: threading.Event, on_step: OnStep | None) -> None:
        """Take the steps that are left, evaluating and saving in between and at the end."""
        done = False
        # tqdm's bar for notebooks does not read its own TQDM_DISABLE.
        hidden = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
        total = self.config.steps
        with tqdm(total=total, initial=self.step, unit="step", disable=hidden) as bar:
            self._evaluate_if_due(interrupt)  # an interrupted run may owe one
            self._show(bar)
            while not done:
                done = self.step >= self.config.steps or interrupt.is_set()
                self._save_if(done or self.step % self.config.checkpoint_every == 0)
                if not done:
                    self._take_step()
                    bar.update()
                    self._evaluate_if_due(interrupt)
                    self._show(bar)
                    if on_step is not None:
                        on_step(self._progress())

    def result(self, stopped: Literal["finished", "interrupted"]) -> TrainingRun:
        """Return the run so far."""
        return TrainingRun(
            model=self.model,
            config=self.config,
            history=tuple(self.history),
            evaluations=tuple(self.evaluations),
            stopped=stopped,
            seconds=self.seconds,
            device=str(self.device),
        )

    def _take_step(self) -> None:
        """Update the weights once, unless the loss or its gradient is not finite."""
        started, rate = time.perf_counter(), learning_rate(self.config, self.step)
        loss, n_tokens = self._accumulate_gradients()
        norm = self._clip_gradients()
        self._check_finite(self.step + 1, loss=loss, gradient=norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        seconds = time.perf_counter() - started
        self.seconds += seconds
        self.history.append(
            StepRecord(
                step=self.step + 1,
                loss=loss,
                learning_rate=rate,
                gradient_norm=norm,
                tokens=n_tokens,
                seconds=seconds,
            )
        )

    def _accumulate_gradients(self) -> tuple[float, int]:
        """Add up the gradients of the step's micro-batches; return mean loss and tokens read."""
        losses, n_tokens = [], 0
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        for micro in range(self.config.accumulate):
            generator = generator_of(self.config.seed, self.step, micro)
            batch = self.task.batch(self.config.batch_size, generator).to(self.device)
            with self.random.in_use():
                loss = self._loss(batch) / self.config.accumulate
                loss.backward()
            losses.append(loss.item())
            n_tokens += batch.tokens.numel()
        return sum(losses), n_tokens

    def _loss(self, batch: Batch) -> Tensor:
        """Return the loss of one micro-batch; what goes wrong in it is told with the step."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocasts()):
            try:
                return self.model.loss(batch.tokens, batch.weights)
            except ValueError as error:
                raise ValueError(
                    f"training stopped in step {self.step + 1}: {error}; {self._way_out()}"
                ) from error

    def _autocasts(self) -> bool:
        """Say whether matrix products are in bfloat16."""
        if self.config.autocast is not None:
            return self.config.autocast
        # A T4 only emulates bfloat16, slower than float32.
        return self.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )

    def _clip_gradients(self) -> float:
        """Cut the gradient to its greatest length, and return how long it was."""
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()

    def _check_finite(self, step: int, **numbers: float) -> None:
        """Refuse to go on from numbers that no later step can repair."""
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise ValueError(
                    f"training stopped in step {step}: {name} must be finite, got {number}; "
                    f"{self._way_out()}"
                )

    def _way_out(self) -> str:
        """Say what to do about numbers that grow beyond all bounds."""
        config = self.config
        kept = "" if config.folder is None else "; a checkpoint written before is untouched"
        return (
            f"lower learning_rate ({config.learning_rate}) or clip_norm ({config.clip_norm}), or "
            f"raise warmup_steps ({config.warmup_steps}){kept}"
        )

    def _evaluate_if_due(self, interrupt: threading.Event) -> None:
        """Evaluate where the config says so, once; an interruption drops what is unfinished."""
        every, last = self.config.evaluate_every, self.step == self.config.steps
        due = last or bool(every and self.step and self.step % every == 0)
        known = any(found.step == self.step for found in self.evaluations)
        if not due or known or interrupt.is_set():
            return
        batches = islice(self.task.held_out(self.config.batch_size), self.config.evaluation_batches)
        wanted = takewhile(lambda _: not interrupt.is_set(), batches)
        with self._timed():
            found = evaluate_batches(self.model, self.task, wanted, self.step)
        if not interrupt.is_set():
            self.evaluations.append(found)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Count the time that something takes."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    def _progress(self) -> Progress:
        """Describe where the run is."""
        recent = self.history[-_RECENT:]
        seconds = sum(record.seconds for record in recent)
        return Progress(
            steps=self.config.steps,
            latest=recent[-1],
            tokens_per_second=sum(record.tokens for record in recent) / seconds,
            seconds_left=(self.config.steps - self.step) * seconds / len(recent),
            evaluation=self.evaluations[-1] if self.evaluations else None,
        )

    def _show(self, bar: tqdm) -> None:
        """Write the latest numbers beside the bar, which itself shows the remaining time."""
        if not self.history:
            return
        progress, name = self._progress(), self.task.measure_name.replace("_", " ")
        numbers = {"loss": f"{progress.latest.loss:.3f}"}
        own = self.task.measure_of_loss(progress.latest.loss)
        if own is not None:
            numbers[name] = f"{own:.3f}"
        if progress.evaluation is not None:
            numbers[f"held-out {name}"] = f"{progress.evaluation.measure:.3f}"
        numbers["tokens/s"] = f"{progress.tokens_per_second:,.0f}"
        bar.set_postfix(numbers, refresh=False)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the moment when a checkpoint was written."""
        check_same(checkpoint, self.model.config, training_facts(self.task, self.config))
        put_weights(self.model, checkpoint.weights)
        groups = grouped(checkpoint.tensors)
        put_optimizer_tensors(self.optimizer, self.model, groups["optimizer"])
        self.random.states |= groups["random"]
        self.history = history_of(groups["history"])
        self.evaluations = [Evaluation(**said) for said in checkpoint.facts["evaluations"]]
        self.seconds = checkpoint.facts["seconds"]
        self.saved_step = self.step

    def _save_if(self, due: bool) -> None:
        """Write the checkpoint where one is wanted and the last one is of an earlier step."""
        if not due or self.config.folder is None or self.saved_step == self.step:
            return
        finite = all(weight.isfinite().all() for weight in self.model.parameters())
        self._check_finite(self.step, weights=0.0 if finite else math.nan)
        groups = {
            "optimizer": optimizer_tensors(self.optimizer, self.model),
            "random": self.random.states,
            "history": history_tensors(self.history),
        }
        facts = training_facts(self.task, self.config) | {
            "evaluations": [asdict(evaluation) for evaluation in self.evaluations],
            "seconds": self.seconds,
        }
        save_checkpoint(self.config.folder, self.model, tensors=ungrouped(groups), facts=facts)
        self.saved_step = self.step


def _check_fit(model: ReformerLM, task: Task) -> None:
    """Refuse a task that the model cannot hold."""
    for needed, name in ((task.vocab_size, "vocab_size"), (task.length, "max_length")):
        has = getattr(model.config, name)
        if needed > has:
            raise ValueError(
                f"the model's {name} must be at least the task's, {needed}, got {has}: make the "
                f"model with {name}={needed}"
            )


def _device_of(model: ReformerLM, config: TrainConfig) -> torch.device:
    """Choose where to train, and check that it can be used."""
    if config.device is None:
        there = next(model.parameters()).device
        return torch.device("cuda") if torch.cuda.is_available() else there
    try:
        return torch.empty(0, device=config.device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device must be one that this machine has, got {config.device!r} ({reason}): say "
            f'"cpu" or None'
        ) from error
