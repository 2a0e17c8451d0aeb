"""The site builds without warnings and needs no network; pages say what the program says; pictures are small."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LARGEST_PICTURE = 250_000
EXTERNAL = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="(?:https?:)?//[^"]*"')
FROM_LIBRARIES = {
    "The menu HistoDistill is missing in napari",
    "napari asks which reader to use",
    'Could not load the Qt platform plugin "xcb"',
}
"""Headings of the page about errors that quote nothing of ours."""
GUIDES = [
    *sorted(DOCS.glob("howto-*.md")),
    DOCS / "napari.md",
    DOCS / "tutorial.md",
    DOCS / "install.md",
    ROOT / "README.md",
]
OF_NAPARI = {"Plugins", "File", "Open Sample"}
EMPHASIS = {
    "the same slide file",
    "Check the pixel size",
    "Move the threshold",
    "Is it tissue?",
    "Is it H&E, and colorectal?",
    "label",
    "Which study a slide goes into.",
    "What is shown.",
    "Nothing is promoted without evidence.",
    "429",
    "For research only, not for diagnosis.",
}
"""What is bold in these pages and names nothing in the window."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed (pip install 'napari-histodistill[docs]')")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    assert {page.name: found for page in pages if (found := EXTERNAL.findall(page.read_text(encoding="utf-8")))} == {}


def test_the_site_has_the_public_names(site):
    text = (site / "reference.html").read_text(encoding="utf-8")
    names = (
        "slide.open_slide",
        "nets.ModelCard",
        "predict.predict_slide",
        "distill.distill",
        "study.Study",
        "jobs.ProcessJob",
    )
    assert [name for name in names if f'id="napari_histodistill.{name}"' not in text] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)#?([^)\s]*)\)", (ROOT / page).read_text("utf-8"))
    gone = [path for path, _ in links if not (ROOT / path).exists()]
    headings = {
        path: re.findall(r"^#+ (.+)$", (ROOT / path).read_text("utf-8"), re.MULTILINE) for path, at in links if at
    }
    gone += [f"{path}#{at}" for path, at in links if at and at not in map(anchor, headings[path])]
    assert gone == []


def anchor(heading: str) -> str:
    """What the site calls a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())


def test_model_cards_are_current():
    script = ROOT / "scripts" / "model_cards.py"
    assert subprocess.run([sys.executable, str(script), "--check"], check=False).returncode == 0, f"run {script.name}"


def test_pictures_are_small_and_each_is_shown_somewhere():
    text = "".join(page.read_text(encoding="utf-8") for page in [*PAGES, ROOT / "README.md"])
    pictures = [path for path in (DOCS / "images").rglob("*.*") if path.is_file()]
    assert [path.name for path in pictures if path.relative_to(DOCS).as_posix() not in text] == []
    assert [path.name for path in pictures if path.stat().st_size > LARGEST_PICTURE] == []


def templates(folder: Path = ROOT / "src") -> set[str]:
    """Every text in the source, "…" in place of what is filled in."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values]
                found.add("".join(parts))
    return found


def test_messages_on_the_page_about_errors_are_those_of_the_program():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (.+?)\s*$", text, re.MULTILINE)) - FROM_LIBRARIES
    known = [" ".join(template.split()) for template in templates()]
    unknown = [h for h in headings if not any(_says(h.strip(), template) for template in known)]
    assert len(headings) >= 20
    assert unknown == []


def _says(heading: str, template: str) -> bool:
    """Whether a heading is (part of) a text of the program, ignoring the marks around what is filled in."""

    def plain(text: str) -> str:
        return re.sub(r"['’]?…['’]?", "…", text)

    return plain(heading) in plain(template)


def test_what_the_guides_print_in_bold_stands_in_the_window():
    package = ROOT / "src" / "napari_histodistill"
    window = templates(package / "widgets") | templates(package / "viewer") | OF_NAPARI
    window |= {line.partition(": ")[2] for line in (package / "napari.yaml").read_text("utf-8").splitlines()}
    window |= {re.sub(r" \(\S+\)$", "", text) for text in window}  # a key after the name of a button
    patterns = [re.compile(re.escape(text).replace("…", ".*")) for text in window if text.strip("… ")]
    unknown = {}
    for page in GUIDES:
        for bold in re.findall(r"\*\*([^*]+)\*\*", page.read_text("utf-8")):
            names = [] if bold in EMPHASIS else bold.rstrip(".").split(" > ")
            missing = [name for name in names if not any(pattern.fullmatch(name) for pattern in patterns)]
            if missing:
                unknown.setdefault(page.name, []).extend(missing)
    assert unknown == {}


def test_the_tutorial_shows_a_picture_of_every_step_and_names_what_its_program_paints():
    from walkthrough.tutorial import STROKES, TUTORIAL, steps_of

    steps = list(steps_of(TUTORIAL.read_text("utf-8")))
    pictures = {step.name for step in steps if step.picture}
    assert {path.stem for path in (DOCS / "images" / "tutorial").iterdir()} == pictures
    painted = [step.name for step in steps if step.name in STROKES]
    assert {name: painted.count(name) for name in STROKES} == {name: len(times) for name, times in STROKES.items()}
