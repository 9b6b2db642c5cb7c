"""What is known of a public table."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableRecord:
    """What is known of a public table.

    Attributes:
        title: What it is.
        citation: Whom to cite.
        licence: On which terms the original is published.
        url: The page of the original.
        file: Which file to take from there.
        recipe: What to do with it, but for its first line.
        header: The first line of our file, the names of the D columns.
        targets: Those of them that are usually predicted from the others.
        rows: Number of rows N.
        sha256: Checksum of the content of the table.
    """

    title: str
    citation: str
    licence: str
    url: str
    file: str
    recipe: str
    header: str
    targets: tuple[str, ...]
    rows: int
    sha256: str

    @property
    def columns(self) -> list[str]:
        """The names of the D columns, in order."""
        return self.header.split(",")

    def source(self, name: str) -> str:
        """Return the way from the original to the file of the table called `name`."""
        return (
            f"Download {self.file} from {self.url}, {self.recipe}, and save it as {name}/{name}.csv, "
            f"whose first line is {self.header}"
        )
