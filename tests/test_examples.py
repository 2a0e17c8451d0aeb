"""What the documentation tells people to type works: code blocks of the pages, examples in docstrings.

Blocks of ``bash`` and ``python`` are run, page by page, in a folder with two generated slides. A block that cannot run
says so in the line above it, ``<!-- not run: why -->``. Blocks of any other language are not commands.
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from napari_histodistill.slide.synthetic import draw_slide, write_slide

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = ("bash", "python")
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
MOST_NOT_RUN = 40
DOCTESTS = sorted(p for p in (ROOT / "src").rglob("*.py") if ">>> " in p.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    why_not: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: m.start("text")].count("\n") + 1, m["language"], m["text"], (m["why"] or "").strip())
        for m in BLOCK.finditer(text)
        if m["language"] in RUN
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN_PAGES = [page for page in PAGES if any(not block.why_not for block in blocks_of(page))]


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "slide.tiff"
    write_slide(draw_slide((1024, 1280), seed=3), path)
    return path


@pytest.fixture(scope="module")
def environment(slide) -> dict[str, str]:
    """A cache of its own, and ``histodistill`` of this Python in the path."""
    command = slide.parent / "bin" / "histodistill"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m napari_histodistill "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    own = {
        f"HISTODISTILL_{name}": str(slide.parent / folder)
        for name, folder in (("CACHE", "cache"), ("LOG", "log"), ("CONFIG", "config"))
    }
    path = os.pathsep.join([str(command.parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **own}


@pytest.fixture
def folder(slide, environment, tmp_path, monkeypatch) -> Path:
    """Where a page's blocks are run."""
    for name in ("slide.tiff", "slide.svs", "second.tiff"):
        shutil.copyfile(slide, tmp_path / name)
    with (tmp_path / "second.tiff").open("ab") as file:
        file.write(b"\0")  # another file, or the study would take it for the same slide
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_the_code_blocks_of_a_page_run(page, folder):
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks_of(page):
        if block.why_not:
            continue
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{page.name}, line {block.line}:\n{block.text}\n{done.stdout}{done.stderr}"


def test_blocks_that_are_not_run_say_why_and_are_few():
    left_out = [block for block in BLOCKS if block.why_not]
    print(f"{len(BLOCKS)} code blocks, of which {len(left_out)} are not run")
    assert len(BLOCKS) - len(left_out) >= 8
    assert len(left_out) <= MOST_NOT_RUN


def test_no_page_hides_commands_in_blocks_without_a_language():
    hidden = re.compile(r"^```\n(?=\$? ?(?:histodistill|pip|python|make|napari) )", re.MULTILINE)
    assert [page.name for page in PAGES if hidden.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("path", DOCTESTS, ids=lambda path: path.stem)
def test_examples_in_docstrings_hold(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT / "src").with_suffix("").parts))
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
