"""The READMEs and `docs/` hold together: links lead somewhere, the tree is the tree, both languages say as much.

That their examples work is asked in test_examples.py.
"""

import re
from pathlib import Path

import pytest

from tests.examples import ROOT

READMES = sorted(ROOT.glob("README*.md"))
DOCUMENTS = [*READMES, *sorted(ROOT.glob("docs/*.md"))]
ENGLISH = [path for path in DOCUMENTS if not path.name.endswith(".zh-CN.md")]
LINK = re.compile(r'\]\(([^)\s]+)\)|src="([^"]+)"')
FENCED = re.compile(r"^```(\w*)\n.*?^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
PART = re.compile(r"#+ |```\w+|\||\* |\d+\. ")
"""How a line begins that is a heading, an example, a row of a table or an item of a list."""
MODULES = ("protocol", "storage", "wsserver")


def text_of(path: Path) -> str:
    """A document without its examples."""
    return FENCED.sub(r"```\1", path.read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """What may stand behind # in a link to this document: GitHub makes it of each heading."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(text_of(path))}


def shape(path: Path) -> list[str]:
    """What follows what in a document, whatever its language."""
    return [found[0] for line in text_of(path).splitlines() if (found := PART.match(line))]


def tree(path: Path) -> list[str]:
    """The paths, some with a *, that the tree of a README names."""
    block = next(found[0] for found in FENCED.finditer(path.read_text("utf-8")) if "\nprotocol/ " in found[0])
    named, folder = [], ""
    for line in block.splitlines()[1:-1]:
        names = re.split(r"\s{2,}", line.strip())[0].split(" ")
        if not line.startswith(" "):
            folder = ""
        named += [folder + name for name in names]
        if not line.startswith(" "):
            folder = names[0]
    return named


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = [first or second for first, second in LINK.findall(text_of(document))]
    ours = [link for link in links if "://" not in link]
    assert ours
    for link in ours:
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", ENGLISH, ids=lambda path: path.name)
def test_both_languages_have_the_same_headings_examples_rows_and_items(document: Path) -> None:
    assert shape(document) == shape(document.with_suffix(".zh-CN.md"))


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_what_the_tree_names_is_there_and_no_module_is_left_out(readme: Path) -> None:
    reached: set[Path] = set()
    for name in tree(readme):
        found = set(ROOT.glob(name))
        assert found, name
        reached |= found
    there = {path for folder in MODULES for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"}
    folders = {
        path for folder in (*MODULES, "tests", "examples") for path in (ROOT / folder).iterdir() if path.is_dir()
    }
    assert not {path for path in (there | folders) - reached if path.name != "__pycache__"}
