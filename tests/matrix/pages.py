"""Parts of a page that programs write, between two comments."""

from pathlib import Path

SUPPORTED = Path(__file__).parents[2] / "docs" / "supported_models.md"


def part(name: str) -> str:
    """Returns the part of the page with that name."""
    text = SUPPORTED.read_text("utf-8")
    return text.partition(_start(name))[2].partition(_end(name))[0].strip()


def write_part(name: str, text: str) -> None:
    """Replaces the part of the page with that name."""
    before, start, rest = SUPPORTED.read_text("utf-8").partition(_start(name))
    _, end, after = rest.partition(_end(name))
    if not end:
        raise ValueError(f"Expected a part {name!r} in {SUPPORTED}. Received: none")
    SUPPORTED.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", "utf-8")


def table(lines: list[list[str]]) -> str:
    """Returns lines of cells as a table in Markdown; the first is its head."""
    head, *rest = lines
    rows = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _start(name: str) -> str:
    return f"<!-- {name} -->"


def _end(name: str) -> str:
    return f"<!-- end of {name} -->"
