"""The Reformer (Kitaev, Kaiser and Levskaya, ICLR 2020) in PyTorch, to read and to build on."""

from reformer_core.attention import (
    dense_lsh_attention,
    full_attention,
    keys_from,
    lsh_attention,
)
from reformer_core.bucketing import BucketPlan, plan_chunks
from reformer_core.config import ReformerConfig, TrainConfig
from reformer_core.generation import sample
from reformer_core.hashing import draw_rotations, hash_generator, hash_vectors
from reformer_core.local import local_attention
from reformer_core.models import ReformerLM, Trace
from reformer_core.training import TrainingRun, evaluate, load_checkpoint, train

__all__ = [
    "BucketPlan",
    "ReformerConfig",
    "ReformerLM",
    "Trace",
    "TrainConfig",
    "TrainingRun",
    "dense_lsh_attention",
    "draw_rotations",
    "evaluate",
    "full_attention",
    "hash_generator",
    "hash_vectors",
    "keys_from",
    "load_checkpoint",
    "local_attention",
    "lsh_attention",
    "plan_chunks",
    "sample",
    "train",
]
