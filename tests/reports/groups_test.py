import pytest

from snip_tf.reports.costs import LayerRow
from snip_tf.reports.groups import MOST_ROWS, grouped


def rows_of(names, multiply_adds=6):
    return [LayerRow(name, "Dense", 5, 4, multiply_adds, 3, 2, 1) for name in names]


PARTS = ("expand", "expand_BN", "depthwise", "depthwise_BN", "project", "project_BN")
MOBILE = [
    "Conv1",
    *(f"expanded_conv_{part}" for part in PARTS[2:]),
    *(f"block_{n}_{part}" for n in range(1, 17) for part in PARTS),
    "predictions",
]


def test_blocks_are_found_by_the_names():
    groups = grouped(rows_of(MOBILE))
    blocks = [f"block_{n}" for n in range(1, 17)]
    assert [g.layer for g in groups] == [
        "Conv1",
        "expanded_conv",
        *blocks,
        "predictions",
    ]
    assert [g.count for g in groups] == [1, 4, *[6] * 16, 1]


def test_more_blocks_than_rows_are_put_into_stages():
    names = [
        f"conv{s}_block{b}_{n}" for s in range(2, 8) for b in range(9) for n in "ab"
    ]
    assert [g.layer for g in grouped(rows_of(names))] == [
        f"conv{s}" for s in range(2, 8)
    ]


def test_blocks_of_models_inside():
    names = [f"bert/layer_{n}/{part}/kernel" for n in range(12) for part in "qkvo"]
    groups = grouped(rows_of(names))
    assert [g.layer for g in groups] == [f"bert/layer_{n}" for n in range(12)]


def test_names_without_blocks_form_runs():
    names = [f"{kind}_{n}" for n in range(150) for kind in ("dense", "norm")]
    rows = [
        row
        for pair in zip(rows_of(names[::2]), rows_of(names[1::2], 0), strict=True)
        for row in pair
    ]
    groups = grouped(rows)
    assert groups[0].layer == "dense_0 to dense_3"
    assert {g.count for g in groups[:-1]} == {8}
    [first, *_] = grouped(rows_of(f"dense_{n}" for n in range(100)))
    assert (first.layer, first.count) == ("dense_0 to dense_2", 3)


@pytest.mark.parametrize(
    "names",
    [
        MOBILE,
        ["=" * n for n in range(41)],
        ["same"] * 90,
        [f"a{n}" for n in range(999)],
    ],
)
def test_groups_are_few_and_lose_nothing(names):
    rows = rows_of(names)
    groups = grouped(rows)
    assert 1 < len(groups) <= MOST_ROWS
    assert sum(g.count for g in groups) == len(rows)
    for count in ("parameters", "multiply_adds", "effective", "compacted_parameters"):
        of_groups = sum(getattr(g, count) for g in groups)
        assert of_groups == sum(getattr(r, count) for r in rows)


def test_a_group_knows_as_little_as_its_layers():
    [first, *_] = grouped(rows_of((f"a_{n}" for n in range(50)), None))
    assert first.multiply_adds is None
    assert first.parameters == 10
