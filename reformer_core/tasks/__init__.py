"""What a model can be taught here: batches, what is held out, and each task's own measure."""

from reformer_core.tasks.batch import Batch, Task
from reformer_core.tasks.download import ENWIK8, Archive
from reformer_core.tasks.duplicate import Duplicate
from reformer_core.tasks.text import TextBytes

__all__ = ["ENWIK8", "Archive", "Batch", "Duplicate", "Task", "TextBytes"]
