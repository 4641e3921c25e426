"""The pages say what is so: links lead somewhere, named files exist, and tables are what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.cli.settings import as_markdown, variables
from tests.mutations.catalogue import MUTATIONS
from tests.mutations.table import PAGE, page

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("*.md", "docs/**/*.md", "deploy/**/*.md", "bench/*.md", "clients/*/*.md", "tests/*.md")
PAGES = sorted(page for pattern in FOLDERS for page in ROOT.glob(pattern))
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]+)?\)")
NAMED = re.compile(
    r"`((?:contracts|services|deploy|tests|docs|bench|requirements)/[\w./-]*[\w/](?:\.\w+)?)(?:::[\w:]+)?`"
)
NOT_BUILT = {"services/files"}


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_links_and_named_files_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    for target, anchor in LINK.findall(text):
        if "://" in target or target.startswith("mailto:"):
            continue
        there = path.parent / target
        assert there.exists(), f"{ids(path)} links to {target}"
        if anchor:
            assert anchor.removeprefix("#") in anchors(there), f"{ids(path)} links to {target}{anchor}"
    for anchor in re.findall(r"\]\(#([^)\s]+)\)", text):
        assert anchor in anchors(path), f"{ids(path)} links to its #{anchor}"
    for name in NAMED.findall(text):
        assert name.rstrip("/") in NOT_BUILT or (ROOT / name).exists(), f"{ids(path)} names {name}"


def anchors(path: Path) -> set[str]:
    """What a heading is linked by: lower case, spaces as hyphens, without punctuation."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_variable_of_the_services_is_in_the_table_as_it_is() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    begin, end = "<!-- settings: written by `mailroom settings --markdown` -->\n", "<!-- end of settings -->"
    shown = text.partition(begin)[2].partition(end)[0]
    assert shown.splitlines() == as_markdown(variables()), "run `mailroom settings --markdown` and paste it"


def test_the_tables_of_mutations_are_what_is_tried() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "run `python -m tests.mutations.table`"
    assert {each.invariant for each in MUTATIONS} == set(range(1, 14)), "each invariant has at least one"
    assert len({each.name for each in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_has_its_place_and_its_tests(mutation: object) -> None:
    (found,) = [each for each in MUTATIONS if each is mutation]
    assert (ROOT / found.file).read_text().count(found.old) == 1, f"{found.name}: its place in {found.file} has changed"
    for test in found.tests:
        file, *names = test.split("::")
        source = (ROOT / file).read_text()
        last = names[-1]
        assert last == "runTest" or re.search(rf"def {last}\(", source), f"{found.name} names {test}"


def test_the_tests_that_the_readme_tells_are_those_that_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("make demo", "make test"):
        assert re.search(rf"^{command}\b", readme, re.MULTILINE)
        assert re.search(rf"^{command}$", ci, re.MULTILINE)
