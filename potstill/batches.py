"""Which rows make up a step, and how they are padded.

The order follows from the rows' lengths, the seed and the epoch alone, never from the state of a random generator: a
run that is taken up in its third epoch sees the rows that it would have seen, and two processes see what one would see
with twice the batch.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from potstill.rows import IGNORED

# a new width costs a CPU's matrix library a new kernel: few widths are worth a little padding
WIDTH = 16
# steps whose rows are sorted by length together: enough for hardly any padding; and of an epoch at most a quarter, so
# that chance decides which rows meet
SORTED_STEPS = 50
# the share of padding up to which that is done, in batches of so many rows, or of a step's where those are fewer. It
# does not follow the batch, so that a run whose batch is halved for memory goes on with the same rows to a step
MOST_PADDING, COUNTED_BATCH = 0.05, 16
# tokens that fill a CPU's matrix products; more at once is not faster
PIECE = 512


def epoch_order(lengths: Sequence[int], rows_per_step: int, seed: int, epoch: int) -> list[int]:
    """Positions of all rows, each once, those of like length next to each other and the longest in the first step.

    Rows are shuffled, cut into runs of up to SORTED_STEPS steps, and each run is sorted by length, longest first: the
    order of transformers' group_by_length in the first epoch, which in a later one depends on what was drawn before.
    Where that leaves too much padding, as it does in a small set of very unlike rows, the whole epoch is sorted and cut
    into steps, and the steps are shuffled.
    """
    import torch

    draw = torch.Generator().manual_seed(seed + epoch)
    # transformers' data loader draws its workers' seed first, and so did the runs before this order had its own
    torch.empty((), dtype=torch.int64).random_(generator=draw)
    shuffled = torch.randperm(len(lengths), generator=draw).tolist()
    size = max(1, min(SORTED_STEPS, len(lengths) // (4 * rows_per_step))) * rows_per_step
    order = longest_first(sorted_runs(shuffled, lengths, size), lengths, size)
    if padding_share(lengths, order, min(rows_per_step, COUNTED_BATCH)) < MOST_PADDING:
        return order
    ordered = sorted_runs(shuffled, lengths, len(shuffled))
    first, *others = [ordered[start : start + rows_per_step] for start in range(0, len(ordered), rows_per_step)]
    # the rows that fill no step stay last, so that all others keep their places in one
    last = [others.pop()] if others and len(others[-1]) < rows_per_step else []
    places = torch.randperm(len(others), generator=draw).tolist()
    return list(itertools.chain(first, *(others[place] for place in places), *last))


def sorted_runs(rows: Sequence[int], lengths: Sequence[int], size: int) -> list[int]:
    runs = (rows[start : start + size] for start in range(0, len(rows), size))
    return [row for run in runs for row in sorted(run, key=lambda i: lengths[i], reverse=True)]


def longest_first(order: list[int], lengths: Sequence[int], size: int) -> list[int]:
    """Exchanges the longest row of all with the first: memory that does not suffice shows at once."""
    if order:
        longest = max(range(0, len(order), size), key=lambda start: lengths[order[start]])
        order[0], order[longest] = order[longest], order[0]
    return order


class RowOrder:
    """A torch sampler over `epoch_order`; the trainer sets `epoch` before each."""

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int):
        self.lengths, self.rows_per_step, self.seed, self.epoch = lengths, rows_per_step, seed, 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.lengths, self.rows_per_step, self.seed, self.epoch))


def padded(longest: int) -> int:
    """The width of a batch whose longest row has so many tokens."""
    return -(-longest // WIDTH) * WIDTH


def padding(lengths: Sequence[int], batch: int, rows_per_step: int, seed: int) -> float:
    """The share of padding among the tokens of the first epoch, rounding to WIDTH included."""
    return padding_share(lengths, epoch_order(lengths, rows_per_step, seed, 0), batch)


def padding_share(lengths: Sequence[int], order: Sequence[int], batch: int) -> float:
    """The share of padding where rows are read in this order."""
    batches = (order[start : start + batch] for start in range(0, len(order), batch))
    computed = sum(padded(max(lengths[row] for row in rows)) * len(rows) for rows in batches)
    return 1 - sum(lengths) / computed if computed else 0.0


def collator(pad_token_id: int) -> Any:
    """Pads rows on the right. Padding is neither attended to nor trained on.

    A batch has `input_ids`, `labels`, `attention_mask` (rows, width); where the rows have them, also `line` (rows,),
    their lines in the snapshot, and `weights` (rows, width), how much each label counts.
    """
    import torch

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        shape = (len(features), padded(max(len(f["input_ids"]) for f in features)))
        batch = {
            "input_ids": torch.full(shape, pad_token_id),
            "labels": torch.full(shape, IGNORED),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
        }
        if "weights" in features[0]:
            batch["weights"] = torch.zeros(shape)
        for row, feature in enumerate(features):
            n = len(feature["input_ids"])
            batch["attention_mask"][row, :n] = 1
            for name in batch.keys() - {"attention_mask"}:
                batch[name][row, :n] = torch.tensor(feature[name])
        if "line" in features[0]:
            batch["line"] = torch.tensor([f["line"] for f in features])
        return batch

    return collate


def in_halves(trainer_class: Any) -> Any:
    """The trainer class for a CPU: it learns from the two halves of a batch at once, each with half of torch's threads.

    Small operations gain little from many threads, and wait for all of them: next to another busy program a step takes
    ten times as long. The gradient is that of the whole batch, and the same in every run: of two summands the order
    does not matter.
    """

    class InHalves(trainer_class):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            step, rows = super().training_step, len(inputs["labels"])
            if rows < 2 or num_items_in_batch is None:
                return step(model, inputs, num_items_in_batch)
            halves = [
                {name: value[cut] for name, value in inputs.items()}
                for cut in (slice(rows // 2), slice(rows // 2, None))
            ]
            with ThreadPoolExecutor(2) as pool:
                # each loss is divided by the tokens of the whole batch
                return sum(pool.map(lambda half: step(model, half, num_items_in_batch), halves))

    return InHalves


def pieces(widths: Sequence[int], most: int) -> list[slice]:
    """Neighbouring rows that together have at most `most` tokens with padding; a longer row is a piece by itself."""
    found: list[slice] = []
    start = 0
    for end in range(1, len(widths) + 1):
        if end == len(widths) or (end + 1 - start) * padded(max(widths[start : end + 1])) > most:
            found.append(slice(start, end))
            start = end
    return found


def in_pieces(trainer_class: Any, before: Callable[[int], None]) -> Any:
    """The trainer class that learns from a batch piece by piece: memory is that of PIECE tokens, or of one longer row.

    `before` is called with the tokens of each piece. The gradient is that of the whole batch. For one process alone:
    TRL gathers numbers from all processes with every loss, and these would have different numbers of pieces.
    """

    class InPieces(trainer_class):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            step, total = super().training_step, 0.0
            widths = inputs["attention_mask"].sum(1).tolist()
            # without the tokens of the whole batch, by which each loss is divided, it stays whole
            cuts = [slice(0, len(widths))] if num_items_in_batch is None else pieces(widths, PIECE)
            for rows in cuts:
                width = padded(max(widths[rows]))
                before((rows.stop - rows.start) * width)
                piece = {
                    name: value[rows] if value.ndim == 1 else value[rows, :width] for name, value in inputs.items()
                }
                total = total + step(model, piece, num_items_in_batch)
            return total

    return InPieces
