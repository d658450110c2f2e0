"""Makes the corpora of the recorded curves from the files of their publishers.

    python benchmarks/curves/corpora.py FOLDER

`FOLDER` holds the published files: `fre_train.tsv` and `fre_dev.tsv` of the SIGMORPHON 2021 task 1
(medium resource), and `german-train-high` and `german-dev` of the CoNLL-SIGMORPHON 2017 task 1.
The corpora are written below `corpora/` beside this file. French needs nothing but a copy. A line
of German inflection has a lemma, a form and features; the source is made of the lemma's characters
and one token for each feature.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent / "corpora"


def inflection(line: str) -> str:
    """Returns a pair from a line of lemma, form and features (`V;SBJV;PST;3;SG`)."""
    lemma, form, features = line.split("\t")
    source = [*spaced(lemma), *(f"<{feature}>" for feature in features.split(";"))]
    return " ".join(source) + "\t" + " ".join(spaced(form))


def spaced(word: str) -> list[str]:
    return [character if character != " " else "_" for character in word]


def main(folder: Path) -> None:
    HERE.mkdir(exist_ok=True)
    for part, source in {"train": "german-train-high", "dev": "german-dev"}.items():
        lines = (folder / source).read_text(encoding="utf-8").splitlines()
        pairs = [inflection(line) for line in lines]
        (HERE / f"german.{part}.tsv").write_text("\n".join(pairs) + "\n", encoding="utf-8")
        text = (folder / f"fre_{part}.tsv").read_bytes()
        (HERE / f"french.{part}.tsv").write_bytes(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
