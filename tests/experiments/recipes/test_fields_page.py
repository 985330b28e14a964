"""The page of all recipe fields is what their descriptions say."""

import runpy

from helpers.documents import ROOT


def test_the_page_is_up_to_date() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "recipe_fields.py"))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"]()
