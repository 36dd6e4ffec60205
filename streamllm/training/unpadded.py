"""A batch without its padding: the tokens of both streams side by side, and what each of them attends to."""

import numpy as np

from streamllm.cpu.learner import Spans, Streams
from streamllm.training.batch import PADDING, Batch
from streamllm.training.masks import arrival_order


def streams(batch: Batch, target_start: int, paradigm: str) -> Streams:
    """As `streamllm.training.loss.forward` lays them out, row after row, the source before the target."""
    rows, width = batch.source.shape
    source = (batch.source_units != PADDING).sum(axis=1)
    target = batch.target.shape[1] - (batch.labels[:, ::-1] >= 0).argmax(axis=1)
    lengths = source + target
    starts = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(rows), lengths)
    place = np.arange(len(row)) - starts[row]  # in its row
    is_target = place >= source[row]
    column = np.where(is_target, place - source[row] + width, place)  # in source and target side by side
    tokens = np.concatenate([batch.source, batch.target], axis=1)
    labels = np.concatenate([np.full_like(batch.source, -1), batch.labels], axis=1)
    if paradigm == "interleaved":
        column = arrival_order(batch)[0][row, place]
    labelled = labels[row, column] >= 0
    if paradigm == "interleaved":
        spans, every = [_causal(starts, lengths)], np.arange(len(row))
        drawn = [((rows, tokens.shape[1]), every, row * tokens.shape[1] + place)]
        return Streams(tokens[row, column], place, spans, every, spans, np.flatnonzero(labelled), drawn)
    asked = np.flatnonzero(is_target)
    positions = np.where(is_target, place - source[row] + target_start, place)
    written = Spans(starts + source, target, starts, lengths, ~_sees(batch, source, target))
    of_source = np.flatnonzero(~is_target)
    drawn = [
        ((rows, width), of_source, row[of_source] * width + place[of_source]),
        (batch.target.shape, asked, row[asked] * batch.target.shape[1] + column[asked] - width),
    ]
    spans = [_causal(starts, source), written]
    return Streams(tokens[row, column], positions, spans, asked, [written], np.flatnonzero(labelled[asked]), drawn)


def _causal(starts: np.ndarray, lengths: np.ndarray) -> Spans:
    own = np.concatenate([np.arange(length) for length in lengths])
    return Spans(starts, lengths, starts, lengths, np.arange(lengths.max()) > own[:, None])


def _sees(batch: Batch, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Which tokens of its row each target token sees, source before target, as `masks.visible` says."""
    row = np.repeat(np.arange(len(target)), target)
    own = np.arange(len(row)) - (np.cumsum(target) - target)[row]
    column = np.arange((source + target).max())
    units = np.full((len(source), len(column)), PADDING, np.int32)
    units[:, : batch.source.shape[1]] = batch.source_units[:, : len(column)]
    visible = units[row] < (batch.k[:, None] + batch.target_units)[row, own][:, None]
    written = column - source[row, None]
    sees: np.ndarray = np.where(written < 0, visible, written <= own[:, None])
    return sees
