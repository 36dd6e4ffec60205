"""Whatever happens to other rows, a row keeps what it holds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streamllm.cpu.blocks import FIRST, STEP, Blocks

ROWS, HEADS, WIDTH = 5, 2, 3
row_numbers = st.integers(0, ROWS - 1)


class Rows(RuleBasedStateMachine):
    """Rows that grow, are closed and change places; beside them, what each must hold."""

    @initialize()
    def empty(self) -> None:
        self.blocks = Blocks(2, HEADS, WIDTH, ROWS)
        self.held: list[list[float]] = [[] for _ in range(ROWS)]
        self.written = 0

    @rule(rows=st.lists(row_numbers, min_size=1, max_size=ROWS, unique=True), more=st.integers(1, 3 * STEP))
    def write(self, rows: list[int], more: int) -> None:
        lengths = [len(self.held[row]) + more for row in rows]
        self.blocks.fit(np.array(rows), np.array(lengths))
        for row in rows:
            columns = np.arange(len(self.held[row]), len(self.held[row]) + more)
            new = [float(self.written + i) for i in range(more)]
            self.written += more
            at = self.blocks.at(np.full(more, row), columns)  # (more, HEADS)
            for layer in range(2):
                numbers = np.add.outer(np.array(new), np.arange(HEADS) / 4)[..., None] + layer / 8
                self.blocks.keys[layer][at.reshape(-1)] = numbers.reshape(-1, 1)
                self.blocks.values[layer][at.reshape(-1)] = -numbers.reshape(-1, 1)
            self.held[row] += new

    @rule(row=row_numbers)
    def close(self, row: int) -> None:
        self.blocks.free(row)
        self.held[row] = []

    @rule(rows=st.lists(row_numbers, max_size=ROWS, unique=True))
    def keep(self, rows: list[int]) -> None:
        self.blocks.keep(rows)
        self.held = [self.held[row] for row in rows] + [[] for _ in range(ROWS - len(rows))]

    @invariant()
    def each_holds_its_own(self) -> None:
        for row, expected in enumerate(self.held if hasattr(self, "held") else []):
            for layer in range(2):
                keys = self.blocks.held(self.blocks.keys[layer], row)[:, : len(expected)]
                values = self.blocks.held(self.blocks.values[layer], row)[:, : len(expected)]
                wanted = np.add.outer(np.arange(HEADS) / 4, np.array(expected)) + layer / 8
                np.testing.assert_array_equal(keys, np.broadcast_to(wanted[..., None], keys.shape))
                np.testing.assert_array_equal(values, -keys)


Rows.TestCase.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
test_rows_keep_what_they_hold = Rows.TestCase


@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_memory_is_near_the_sum_of_the_lengths(lengths: list[int]) -> None:
    """One long row costs itself, not its length times the rows."""
    blocks = Blocks(1, HEADS, WIDTH, len(lengths))
    for row, length in enumerate(lengths):
        blocks.fit(np.array([row]), np.array([length]))
    of_a_token = 2 * HEADS * WIDTH * 4
    assert blocks.sizes.sum() < sum(lengths) + FIRST * len(lengths)
    assert blocks.nbytes <= 2 * of_a_token * blocks.sizes.sum()
