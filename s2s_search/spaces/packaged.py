"""The search spaces that come with the package, by their names, such as britz_2017/attention."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# The wheel has search_spaces/ inside the package. In the repository it lies beside the package.
FOLDERS = (PACKAGE / "search_spaces", PACKAGE.parent / "search_spaces")


def packaged_spaces() -> dict[str, Path]:
    """Returns the files of the packaged spaces by their names, in alphabetical order."""
    spaces = {}
    for folder in FOLDERS:
        for path in sorted(folder.rglob("*.yaml")):
            spaces[path.relative_to(folder).with_suffix("").as_posix()] = path
    return spaces


def space_file(given: Path) -> Path:
    """Returns the file that a user means.

    That is the given file. Where it does not exist, it is the packaged file of that name.
    """
    if given.is_file():
        return given
    return packaged_spaces().get(given.as_posix(), given)
