"""64-bit names of keys: the same wherever a text lies, and different for different texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from feature_store.rowhash import key_hashes

TEXTS = ["", "a", "a\0", "b", "ab", "abcdefgh", "abcdefgh\0", "abcdefghi", "ü", "u" * 100,
         "u" * 99 + "v", "a text of more than sixteen bytes"]  # fmt: skip


def hashes(*columns: list[str]) -> list[int]:
    texts = [pa.chunked_array([pa.array(column, pa.string())]) for column in columns]
    return key_hashes(texts).tolist()


def test_different_texts_have_different_names() -> None:
    assert len(set(hashes(TEXTS))) == len(TEXTS)
    pairs = [(one, other) for one in TEXTS for other in TEXTS]
    found = hashes([one for one, _ in pairs], [other for _, other in pairs])
    assert len(set(found)) == len(pairs), "the order of keys counts, and where one ends"


def test_a_text_has_one_name_wherever_it_lies() -> None:
    alone = [hashes([text])[0] for text in TEXTS]
    assert hashes(TEXTS) == alone
    assert hashes(TEXTS[::-1]) == alone[::-1]
    sliced = pa.chunked_array([pa.array(["zz", *TEXTS, "y"]).slice(1, len(TEXTS))])
    assert key_hashes([sliced]).tolist() == alone
    pieces = pa.chunked_array([pa.array(TEXTS[:5]), pa.array(TEXTS[5:])])
    assert key_hashes([pieces]).tolist() == alone
    assert hashes([]) == []


def test_every_bit_is_as_often_set_as_not() -> None:
    found = np.array(hashes([f"u{number}" for number in range(100_000)]))
    assert len(np.unique(found)) == len(found)
    share = np.unpackbits(found.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert (abs(share - 0.5) < 0.01).all()
