import numpy as np
import pytest

from gpt2lab.data.counts import count
from gpt2lab.data.open import open_documents
from gpt2lab.data.tokens import Documents
from gpt2lab.errors import UsageError


def test_documents_tokens_bytes_and_vocabulary_are_counted(gpt2):
    texts = ["Hello Hello", "é", "one two three four"]
    documents = Documents.of([gpt2.encode(text) for text in texts])
    counts = count(Documents(documents.tokens, documents.starts, documents.tokens != 15496), gpt2)
    assert (counts.documents, counts.tokens, counts.trained) == (3, 7, 6)
    assert counts.n_bytes == sum(len(text.encode()) for text in texts)
    assert counts.used == 7
    assert (counts.shortest, counts.median, counts.longest) == (1, 2, 4)


def test_ids_that_the_vocabulary_lacks_are_named(bytewise):
    with pytest.raises(UsageError, match="token 300 is outside the vocabulary"):
        count(Documents.of([np.asarray([1, 300])]), bytewise)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_dataset_without_text_is_an_error(tmp_path, gpt2, name):
    (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=f"the dataset is empty: there is no text in .*{name}"):
        open_documents([str(tmp_path / name)], gpt2)
