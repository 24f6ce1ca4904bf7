import csv
import io
import json
import re
import sys

import keras
import numpy as np
import pytest
import rich.console

import snip_tf
from snip_tf.checks import visible
from tests.small_network import cut, small_network

layers = keras.layers


@pytest.fixture
def pruned():
    return cut(small_network())


NAMES = {
    "a pipe": "a|b",
    "a formula of TeX": "a$^$",
    "a tag": "<i>",
    "a formula of a spreadsheet": "=1+cmd!A1",
    "a sign": "-2+3",
    "lines": "a\nb\r\nc\rd",
    "a tab": "\t=1",
    "code of Markdown": "`x` *y*",
    "markup of rich": "[bold]z[red]",
    "an emoji of rich": "x:bomb:",
    "an escape sequence": "\x1b[31mred\x9b2J",
    "another direction": "\u202egnp.exe",
    "quotes": 'a,"b";c',
}


@pytest.fixture(scope="module")
def odd():
    """A report of a model whose layers have odd names."""
    stack = [layers.Dense(2, name=name) for name in NAMES.values()]
    model = keras.Sequential([keras.Input((2,)), *stack], name="odd\x1b[2J|<b>")
    masks = {f"{name}/kernel": np.tri(2, dtype=bool) for name in NAMES.values()}
    masks["<i>/kernel"][:] = False
    return snip_tf.report(snip_tf.apply_masks(model, masks))


def printed(report, width=80, **options):
    """What it prints, in lines."""
    console = rich.console.Console(file=io.StringIO(), width=width)
    report.print(console, **options)
    return console.file.getvalue().splitlines()


def test_odd_names_in_a_spreadsheet(odd):
    header, *rows = csv.reader(io.StringIO(odd.to_csv(), newline=""))
    assert header[:3] == ["layer", "kind", "parameters"]
    cells = [row[0] for row in rows]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r"]
    shown = [visible(name) for name in NAMES.values()]
    assert [cell.removeprefix("'") for cell in cells] == shown
    assert {row[header.index("parameters")] for row in rows} == {"6"}


def test_odd_names_in_markdown(odd):
    table, _, rest = odd.to_markdown().partition("\n\n")
    lines = table.splitlines()
    assert len(lines) == 2 + len(NAMES) + 1
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert r"| a\|b | Dense |" in table
    assert "| &lt;i&gt; | Dense |" in table
    assert not re.search(r"(?<!\\)`|<", table + rest)


@pytest.mark.parametrize("width", [200, 80, 40])
def test_odd_names_in_a_terminal(odd, width):
    lines = printed(odd, width)
    assert "".join(lines).isprintable()
    for shown in ("a|b", r"a\nb\r\nc\rd", "[bold]z[red]", "x:bomb:", r"\u202egnp.exe"):
        assert any(line.startswith(shown) for line in lines)
    assert lines[0].endswith(r'"odd\x1b[2J|<b>"')


def test_odd_names_on_a_page_and_in_a_notebook(odd, tmp_path):
    odd.write_html(tmp_path / "report.html")
    for page in ((tmp_path / "report.html").read_text(), odd._repr_html_()):
        assert "<td>&lt;i&gt;</td>" in page
        assert "<td>a\\nb\\r\\nc\\rd</td>" in page
        assert "<b>" not in page
        assert page.replace("\n", "").isprintable()
    assert repr(odd).isprintable()


def large(count=17):
    """A network of blocks, as those of keras.applications are named."""
    x = inputs = keras.Input((8,))
    for block in range(count):
        for part in ("expand", "depthwise", "project"):
            x = layers.Dense(8, name=f"block_{block}_{part}")(x)
            x = layers.BatchNormalization(name=f"block_{block}_{part}_BN")(x)
    return keras.Model(inputs, layers.Dense(3, name="predictions")(x))


@pytest.fixture(scope="module")
def blocks():
    return snip_tf.report(large())


def test_long_models_are_printed_by_block(blocks):
    lines = printed(blocks)
    rows = [line for line in lines if line.startswith("block_")]
    assert [line.split()[0] for line in rows] == [f"block_{n}" for n in range(17)]
    assert {line.split()[1] for line in rows} == {"6"}
    assert len(lines) < 30
    assert any("103 layers in 18 rows: `print(all_layers=True)`" in x for x in lines)
    total = [line.split()[1:3] for line in lines if line.startswith("Total")]
    assert total == [["103", f"{blocks.totals()['parameters']:,}"]]
    assert "<td>block_16</td>" in blocks._repr_html_()


def test_all_layers_of_a_long_model(blocks, tmp_path):
    rows = [x for x in printed(blocks, all_layers=True) if x.startswith("block_")]
    names = [row.layer for row in blocks.layers]
    assert [line.split()[0] for line in rows] == names[:-1]
    assert blocks.to_csv().count("\n") == 1 + 103
    assert blocks.to_markdown().count("| block_") == 102
    blocks.write_html(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<td>block_") == 102
    assert page.count('<th class="n">%</th>') == 2


@pytest.mark.parametrize("width", [120, 80, 60, 40, 20])
def test_no_number_is_cut_and_no_name_is_folded(width):
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(640, 3, padding="same", name="expanded_conv_depthwise")(x)
    x = layers.Conv2D(1280, 1, name="expanded_conv_project")(x)
    model = keras.Model(inputs, x)
    masks = {
        path: np.ones(weight.shape, bool)
        for path, weight in snip_tf.prunable_weights(model).items()
    }
    masks["expanded_conv_project/kernel"][...] = False
    masks["expanded_conv_project/kernel"][0, 0, 0, 0] = True
    lines = printed(snip_tf.report(snip_tf.apply_masks(model, masks)), width)
    header = " ".join(line for line in lines if "compact" in line)
    assert header.count("compact") == 2
    assert any("expanded_conv_depthwise" in line for line in lines)
    # Of 819,200 weights one is left, at 1,024 places.
    products = "838,860,800" if width >= 80 else "839M"
    [cells] = [line.split() for line in lines if products in line]
    assert cells[-3:] == [products, "<0.01%", cells[-1]]
    assert all("%" in line.split()[-1] for line in lines if "%" in line)


def test_report_in_all_its_forms(pruned, tmp_path):
    report = snip_tf.report(pruned)
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [row["layer"] for row in rows] == ["conv", "norm", "fc", "head"]
    assert json.loads(json.dumps(report.to_dict()))["totals"] == report.totals()
    assert "| conv | Conv2D | 3 | 2 |" in report.to_markdown()
    dead = "Dead in fc/kernel:"
    assert report.to_markdown().count(f"- {dead}") == 1
    console = rich.console.Console(file=io.StringIO(), width=80)
    report.print(console)
    text = console.file.getvalue()
    names = ["meters", "not 0", "compact", "adds", "not 0", "compact"]
    assert re.search(r" +".join(names) + "\n", text)  # nothing is cut off
    assert dead in text
    assert f"{report.bytes:,} bytes" in text
    path = tmp_path / "report.html"
    report.write_html(path)
    page = path.read_text()
    assert "<td>conv</td>" in page
    assert f"<li>{dead}" in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r'(src|href)="(?!data:)', page)  # it needs no other file


def test_a_unit_without_inputs_is_reported_once():
    stack = [layers.Dense(6, "relu", name=name) for name in ("a", "b", "c")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    masks = {
        "a/kernel": np.ones((4, 6), bool),
        "b/kernel": np.ones((6, 6), bool),
        "c/kernel": np.ones((6, 6), bool),
    }
    masks["a/kernel"][:, :3] = False  # three units without inputs,
    masks["b/kernel"][:3] = False  # unused, too,
    masks["b/kernel"][5] = False  # nor another, that has some;
    masks["c/kernel"][:2] = False  # and two that something enters.
    report = snip_tf.report(snip_tf.apply_masks(model, masks))
    assert [str(dead) for dead in report.dead] == [
        "Dead in a/kernel: 3 of 6 units without inputs",
        "Dead in b/kernel: 1 of 6 inputs unused",
        "Dead in c/kernel: 2 of 6 inputs unused",
    ]


def test_notes_are_printed_once_for_all_their_layers():
    class Many(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [layers.Dense(2, name=f"part_{n}") for n in range(50)]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    model = Many()
    model(np.zeros((1, 2)))
    lines = printed(snip_tf.report(model))
    [note] = [line for line in lines if "the model's own code" in line]
    assert "part_0 (Dense), part_1 (Dense)" in note
    assert "and 46 more" in note
    assert len(lines) < 60


def test_report_of_a_model_without_weights(tmp_path):
    model = keras.Sequential([keras.Input((2, 2)), layers.Flatten()])
    report = snip_tf.report(model)
    assert any(line.startswith("Total") for line in printed(report))
    assert report.to_csv().count("\n") == 1
    report.write_html(tmp_path / "report.html")
    assert "<img" not in (tmp_path / "report.html").read_text()


def test_a_page_without_matplotlib(pruned, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        snip_tf.report(pruned).write_html(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_report_refuses_what_is_no_built_model():
    with pytest.raises(TypeError, match="Keras 3 model"):
        snip_tf.report("model")
    with pytest.raises(ValueError, match="built"):
        snip_tf.report(keras.Sequential([layers.Dense(3)]))
