"""The corpora: text files and built-in data, encoded as token ids, and the batches made of them.

May import: the ground floor. numpy and PyArrow are imported late, and torch in `batches` alone.
"""

from s2s_search.corpus.corpus import Corpus, Split
from s2s_search.corpus.load import check_corpus, load_corpus

__all__ = ["Corpus", "Split", "check_corpus", "load_corpus"]
