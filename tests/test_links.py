"""Links between pages, to pictures and to headings lead somewhere."""

import pytest

from helpers.documents import PAGES, ROOT, anchors, links

ALL = [(page, link) for page in PAGES for link in links(page) if "://" not in link]


@pytest.mark.parametrize(("page", "link"), ALL)
def test_the_link_leads_somewhere(page: str, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix())


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_pages_link_to_nothing_outside_of_their_folder(page: str) -> None:
    """The built documentation holds that folder and nothing else."""
    assert not [link for link in links(page) if link.startswith("../")]
