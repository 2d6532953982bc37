"""Train a Reformer and sample from it in a shell: python -m reformer_core train | sample."""

import argparse
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reformer_core.checkpoints import Checkpoint, model_of, read_checkpoint
from reformer_core.config import ReformerConfig, TrainConfig
from reformer_core.generation import sample
from reformer_core.models import ReformerLM
from reformer_core.tasks import Duplicate, Task, TextBytes
from reformer_core.training import TrainingRun, train

DUPLICATE = {
    "vocab_size": 64,
    "length": 64,
    "d_model": 64,
    "n_layers": 1,
    "chunk_length": 16,
    "steps": 300,
    "batch_size": 32,
    "evaluate_every": 50,
}
"""Learns to repeat within a minute on two cores; what is not said here is the configs' default."""

TEXT = {
    "vocab_size": TextBytes.vocab_size,
    "length": 256,
    "d_model": 128,
    "attention": ("local", "lsh"),
    "chunk_length": 32,
    "steps": 500,
    "learning_rate": 3e-3,
    "evaluate_every": 100,
}
"""Learns what words look like in a few minutes on two cores."""

_USAGE = "%(prog)s [options]"

_XZ_TAKES_SECONDS = 20_000_000
"""xz is not run over a text of more bytes than that."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say and return the exit code: 2, with one line, where that fails."""
    asked = _parser().parse_args(arguments)
    try:
        asked.do(asked)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _train_duplicate(asked: argparse.Namespace) -> None:
    _train(asked, lambda: Duplicate(asked.vocab_size, asked.length))


def _train_text(asked: argparse.Namespace) -> None:
    if asked.enwik8:
        _train(asked, lambda: TextBytes.enwik8(asked.length, asked.data))
    elif asked.file is not None:
        _train(asked, lambda: TextBytes.from_file(asked.file, asked.length))
    else:
        _train(asked, lambda: TextBytes(asked.length))


def _train(asked: argparse.Namespace, make_task: Callable[[], Task]) -> None:
    """Train a new model, or go on with one, and say what came out."""
    said = vars(asked)
    config = ReformerConfig(
        **_of(ReformerConfig, said), vocab_size=asked.vocab_size, max_length=asked.length
    )
    how = TrainConfig(**_of(TrainConfig, said))
    task = make_task()
    torch.manual_seed(asked.seed)
    run = train(ReformerLM(config), task, how)
    print(_summary(run, task))


def _of(config: type, said: dict[str, Any]) -> dict[str, Any]:
    """Pick what belongs to a config; vocabulary and greatest length are the task's to say."""
    names = {field.name for field in fields(config)} - {"vocab_size", "max_length"}
    return {name: value for name, value in said.items() if name in names}


def _summary(run: TrainingRun, task: Task) -> str:
    """Say in a few lines what a run has reached."""
    lines = [f"{run.stopped} after {len(run.history)} steps, {run.seconds:.0f} s on {run.device}"]
    for found in run.evaluations[-1:]:
        name = found.measure_name.replace("_", " ")
        lines.append(f"held out, after step {found.step}: {name} {found.measure:.3f}")
    if isinstance(task, TextBytes) and len(task.text.training) <= _XZ_TAKES_SECONDS:
        lines.append(f"xz, for comparison: {task.xz_bits_per_byte():.3f}")
    if run.config.folder is not None:
        lines.append(
            f"to try it: python -m reformer_core sample --folder {run.config.folder} --prompt ..."
        )
    return "\n".join(lines)


def _sample(asked: argparse.Namespace) -> None:
    """Continue the prompt and print both."""
    checkpoint = read_checkpoint(asked.folder)
    model, (encode, decode) = model_of(checkpoint), _language(checkpoint)
    prompt = encode(asked.prompt)
    room = checkpoint.config.max_length - len(prompt)
    continued = sample(
        model,
        prompt[None],
        max(0, min(200, room)) if asked.tokens is None else asked.tokens,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        generator=torch.Generator().manual_seed(asked.seed),
    )
    print(decode(continued[0]))


def _language(
    checkpoint: Checkpoint,
) -> tuple[Callable[[str], Tensor], Callable[[Tensor], str]]:
    """Return how the checkpoint's task turns words into tokens, and tokens into words."""
    if checkpoint.facts.get("task", {}).get("name") == Duplicate.name:
        return _numbers, lambda tokens: " ".join(map(str, tokens.tolist()))
    return TextBytes.encode, TextBytes.decode


def _numbers(words: str) -> Tensor:
    """Read a Duplicate prompt, such as "0 5 3 0"."""
    try:
        return torch.tensor([int(word) for word in words.split()], dtype=torch.int64)
    except ValueError as error:
        raise ValueError(
            f'this model reads numbers, such as --prompt "0 5 3 0", got {words!r}'
        ) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reformer_core", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="train | sample")
    tasks = commands.add_parser("train", help="teach a model a task").add_subparsers(
        required=True, metavar="duplicate | text"
    )
    duplicate = tasks.add_parser(
        "duplicate", usage=_USAGE, help="repeat what was read, the paper's 0w0w"
    )
    _add_training_options(duplicate, _train_duplicate, DUPLICATE)
    _add_option(duplicate, "vocab_size", int, DUPLICATE["vocab_size"])
    text = tasks.add_parser(
        "text", usage=_USAGE, help="continue a text by bytes, Python's help by default"
    )
    _add_training_options(text, _train_text, TEXT)
    source = text.add_mutually_exclusive_group()
    source.add_argument("--file", help="a text of your own, the last tenth held out")
    source.add_argument(
        "--enwik8", action="store_true", help="100 MB of Wikipedia, downloaded once"
    )
    text.add_argument("--data", metavar="FOLDER", help="where enwik8 is, or goes")
    _add_sampling_options(commands.add_parser("sample", help="continue a prompt"))
    return parser


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(do=_sample)
    parser.add_argument("--folder", required=True, help="where the checkpoint is")
    parser.add_argument("--prompt", required=True, help='text, or numbers as in "0 5 3 0"')
    parser.add_argument("--tokens", type=int, help="how many; default: 200, or as many as fit")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--seed", type=int, default=0)


def _add_training_options(
    parser: argparse.ArgumentParser, do: Callable, defaults: dict[str, Any]
) -> None:
    """Add the length, and an option for every field of both configs but those of the task."""
    parser.set_defaults(do=do, vocab_size=defaults["vocab_size"])
    _add_option(parser, "length", int, defaults["length"])
    for config in (ReformerConfig, TrainConfig):
        group = parser.add_argument_group(config.__name__)
        own = _of(config, {field.name: field for field in fields(config)})
        for name, field in own.items():
            _add_option(group, name, field.type, defaults.get(name, field.default))


def _add_option(parser: Any, name: str, kind: Any, default: Any) -> None:
    """Add an option that accepts what a field's type accepts."""
    about = {"dest": name, "default": default, "help": f"default: {_shown(default)}"}
    if bool in _alternatives(kind):
        about["action"] = argparse.BooleanOptionalAction
    else:
        about |= {"type": partial(_read, kind), "metavar": "VALUE"}
        about["help"] = f"{_named(kind)}; {about['help']}"
    parser.add_argument(f"--{name.replace('_', '-')}", **about)


def _read(kind: Any, word: str) -> Any:
    """Turn a word into the first of a type's alternatives that it can be; lists have commas."""
    for one in _alternatives(kind):
        try:
            return _read_one(one, word)
        except ValueError:
            continue
    raise argparse.ArgumentTypeError(f"must be {_named(kind)}, got {word!r}")


def _read_one(kind: Any, word: str) -> Any:
    """Turn a word into what a type without alternatives says, or raise ValueError."""
    if kind is types.NoneType or typing.get_origin(kind) is typing.Literal:
        words = {"none": None} if kind is types.NoneType else {w: w for w in typing.get_args(kind)}
        if word not in words:
            raise ValueError
        return words[word]
    if typing.get_origin(kind) is tuple:
        return tuple(_read_one(typing.get_args(kind)[0], part) for part in word.split(","))
    return kind(word)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the types that a type allows."""
    is_union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if is_union else (kind,)


def _named(kind: Any) -> str:
    """Name a type as a person would type it."""
    names = []
    for one in _alternatives(kind):
        inner = typing.get_args(one)
        if one is types.NoneType:
            names.append("none")
        elif typing.get_origin(one) is typing.Literal:
            names.extend(inner)
        elif typing.get_origin(one) is tuple:
            names.append(f"{_named(inner[0])} with commas between")
        else:
            names.append(one.__name__)
    return " or ".join(names)


def _shown(default: Any) -> str:
    """Write a default as a person would type it."""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return "none" if default is None else str(default)


if __name__ == "__main__":
    sys.exit(main())
