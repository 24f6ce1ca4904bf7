import re

import pytest
from rich.cells import cell_len

from snip_tf.reports.costs import LayerRow
from snip_tf.reports.groups import group
from snip_tf.reports.tables import layer_table, table_lines

LARGE = LayerRow(
    "backbone/block_3/attention_output",
    "EinsumDense",
    parameters=1_234_567_890,
    non_zero=12_345,
    multiply_adds=98_765_432_100,
    effective=98_765_432_099,
    compacted_parameters=1_134_567_890,
    compacted_multiply_adds=88_765_432_100,
    units=12_800,
    compacted_units=11_900,
)
SMALL = LayerRow("in", "Dense", 20, 20, 16, 16, 20, 16, 4, 4)
EXACT = ["1,234,567,890", "<0.01%", "91.9%", "98,765,432,100", ">99.99%", "89.9%"]
SHORT = ["1.23G", "<0.01%", "91.9%", "98.8G", ">99.99%", "89.9%"]


def numbers_of(lines, count):
    """What is beside the names, in the lines that have as much."""
    found = [line.split()[-count:] for line in lines]
    return [cells for cells in found if len(cells) == count]


@pytest.mark.parametrize(
    ("width", "expected"), [(200, EXACT), (100, EXACT), (80, SHORT), (78, SHORT)]
)
def test_numbers_are_exact_while_they_fit(width, expected):
    lines = layer_table([SMALL, LARGE, LARGE], width)
    assert expected in numbers_of(lines, 6)
    assert max(map(len, lines)) <= width
    assert sum(LARGE.layer in line for line in lines) == 2


@pytest.mark.parametrize("width", [75, 60, 50])
def test_narrow_terminals_get_two_tables(width):
    lines = layer_table([SMALL, LARGE, LARGE], width)
    assert SHORT[:3] in numbers_of(lines, 3)
    assert SHORT[3:] in numbers_of(lines, 3)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [40, 20, 1])
def test_what_is_too_narrow_for_numbers_does_not_cut_them(width):
    lines = layer_table([SMALL, LARGE, LARGE], width)
    assert SHORT[:3] in numbers_of(lines, 3)
    assert SHORT[3:] in numbers_of(lines, 3)
    assert LARGE.layer in lines


def test_a_long_name_stands_above_its_numbers():
    rows = [("short", ["1"]), ("a_name_of_some_length", ["22"]), ("Total", ["23"])]
    lines = table_lines(["Name", "n"], rows, width=12)
    assert lines[2] == "short      1"
    assert lines[3:5] == ["a_name_of_some_length", "          22"]
    assert {len(lines[1]), len(lines[-2])} == {12}


def test_wide_letters_are_counted_as_wide():
    rows = [("\u65e5\u672c", ["1"]), ("abcd", ["2"]), ("Total", ["3"])]
    lines = table_lines(["Name", "n"], rows, width=80)
    assert len({cell_len(line) for line in lines}) == 1


def test_a_table_of_groups_counts_layers():
    rows = [group("a", [SMALL, SMALL]), group("Total", [SMALL, SMALL])]
    lines = layer_table(rows, 80)
    assert re.fullmatch(r"a +2 +40 +100% +100% +32 +100% +100%", lines[3])


def test_unknown_numbers_are_blank():
    unknown = LayerRow("own", "Dense", 20, 5)
    lines = layer_table([unknown, unknown], 80)
    assert re.fullmatch(r"own +20 +25%", lines[3])
