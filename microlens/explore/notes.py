"""Notes on the events of a dataset or on the seasons of a light-curve file, kept in a CSV file beside it.

    notes = notes_of("test.h5", dataset.checksum);  notes.write(17, "odd one");  notes.on(17)

The file has the columns checksum, item (the event's row, or the season's number) and note. A note belongs to the
content that it was written on: where the dataset is made anew under its old name, the old notes stay in the file,
unseen.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from microlens import files

COLUMNS = ["checksum", "item", "note"]


class Notes:
    """The notes in a file that belong to the content with a checksum.

    Raises ValueError, naming the file, where there is one that holds no notes.
    """

    def __init__(self, path: Path, checksum: str):
        self.path, self.checksum, self.all = path, checksum, {}
        if not path.is_file():
            return
        try:
            with open(path, newline="", encoding="utf-8") as f:
                for row in csv.DictReader(f):
                    self.all[row["checksum"], int(row["item"])] = row["note"]
        except (ValueError, KeyError, TypeError, csv.Error) as error:
            raise ValueError(f"{path}: holds no notes (columns {', '.join(COLUMNS)}); move it away.") from error

    def on(self, item: int) -> str:
        """The note on an item; '' where there is none."""
        return self.all.get((self.checksum, item), "")

    def write(self, item: int, text: str):
        """Keep a note, or forget it where the text is empty. Raises WriteError; the note is then kept in memory."""
        key = (self.checksum, item)
        if text.strip():
            self.all[key] = " ".join(text.split())
        elif self.all.pop(key, None) is None:
            return
        with files.atomic(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            writer.writerow(COLUMNS)
            writer.writerows([checksum, number, note] for (checksum, number), note in sorted(self.all.items()))


def notes_of(path, checksum: str | None = None) -> Notes:
    """The notes on a dataset with this checksum, in NAME.notes.csv, or on a light-curve file.

    Those on a light-curve file are in a hidden file, .NAME.notes.csv: what lies visibly in its folder may be read as a
    light curve.
    """
    path = Path(path)
    if checksum is None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Notes(path.with_name(f".{path.name}.notes.csv"), digest)
    return Notes(path.with_suffix(".notes.csv"), checksum)
