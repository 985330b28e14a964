"""Where the recipes that come with ranp lie."""

from pathlib import Path

# In the installed package; beside the sources of a checkout.
_PLACES = (Path(__file__).parent / "files", Path(__file__).parents[4] / "recipes")


def recipe_file(name: str) -> Path:
    """The file of a recipe that comes with ranp.

    Example:
        >>> recipe_file("hippocampus").name
        'hippocampus.yaml'
    """
    paths = [place / f"{name}.yaml" for place in _PLACES]
    return next((path for path in paths if path.is_file()), paths[0])
