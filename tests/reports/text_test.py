import csv
import io
import re

import pytest

from snip_tf.reports import text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("dense_1/kernel", "dense_1/kernel"),
        ("été 日本", "été 日本"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J\x07\x08", r"\x9b2J\x07\x08"),  # C1 controls are obeyed, too
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\u202egnp.exe\u2066\u200b\u2028", r"\u202egnp.exe\u2066\u200b\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_visible(name, shown):
    assert text.visible(name) == shown
    assert text.visible(name).isprintable()


@pytest.mark.parametrize("start", [*"=+-@\t\r\n", "\uff1d", "  ="])
def test_a_cell_is_no_formula(start):
    assert text.csv_cell(f"{start}1+1") == f"'{text.visible(start)}1+1"


@pytest.mark.parametrize("value", ["dense", "a=b", "a-1", "", -1, 0.5, None, True])
def test_other_cells_stay_as_they_are(value):
    assert text.csv_cell(value) == value
    assert type(text.csv_cell(value)) is type(value)


def test_a_cell_has_no_control_characters():
    assert text.csv_cell("\x1b[31mred\u202e") == r"\x1b[31mred\u202e"


NAMES = [
    "a|b",
    "a\\|b",
    "a\nb\r\nc",
    "`x`",
    "<b>|</b>",
    "a\\",
    "&lt;",
    "*a* _b_",
    "[x](y)",
]


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_letter_by_letter(name):
    cell = text.markdown_cell(name)
    assert "\n" not in cell
    assert "<" not in cell
    # An odd number of backslashes escapes what follows; CommonMark undoes each pair.
    for pipe in re.finditer(r"(\\*)\|", cell):
        assert len(pipe[1]) % 2 == 1
    read = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell)
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        read = read.replace(entity, letter)
    assert read == text.visible(name)


def test_underscores_within_words_stay():
    assert text.markdown_cell("block_1_conv_") == r"block_1_conv\_"


def test_percentages_do_not_round_to_none_or_all():
    whole = 10**7
    seen = {text.percent(part, whole) for part in (1, 999, whole - 1, whole - 999)}
    assert seen == {"<0.01%", ">99.99%"}
    for part in range(1, whole, 9973):
        shown = text.percent(part, whole)
        assert len(shown) <= 7
        assert shown not in ("0%", "100%")
        number = float(shown.strip("<>%"))
        assert number == pytest.approx(100 * part / whole, rel=0.006, abs=0.01)
    assert text.percent(0, whole) == "0%"
    assert text.percent(whole, whole) == "100%"


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (None, 3, ""),
        (3, None, ""),
        (0, 0, ""),
        (5, 4, "125%"),
        (1003, 1000, "100.30%"),
        (100_001, 100_000, ">100%"),
        (50_000, 4, "1,250,000%"),
    ],
)
def test_percentages_of_what_is_unknown_or_more(part, whole, shown):
    assert text.percent(part, whole) == shown


def test_sparsities_do_not_round_to_none_or_all():
    shown = [text.sparsity_percent(kept, 10**6) for kept in (0, 1, 49, 50, 51, 149)]
    assert shown[0] == "100.00%"
    assert set(shown[1:3]) == {">99.99%"}
    assert "100.00%" not in shown[1:]
    shown = [text.sparsity_percent(10**6 - n, 10**6) for n in (0, 1, 10**4)]
    assert shown == ["0.00%", "<0.01%", "1.00%"]


def test_short_numbers_have_at_most_three_digits():
    for exponent in range(15):
        for first in (1, 9.996, 9.9949, 5):
            number = round(first * 10**exponent)
            shown = text.short_number(number)
            digits, letter = re.fullmatch(r"([\d.]+)([kMGTP]?)", shown).groups()
            assert len(digits.replace(".", "")) <= 3
            value = float(digits) * 1000 ** " kMGTP".index(letter or " ")
            assert value == pytest.approx(number, rel=0.0051)


def test_cells_of_a_table_survive_a_file():
    cells = ["=1", "a,b", '"q"', "a\rb"]
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerow(map(text.csv_cell, cells))
    [row] = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert row == ["'=1", *map(text.visible, cells[1:])]
