"""The vectors are what they say they are, by an implementation that is not ours."""

import check_vectors


def test_every_vector_opens_or_fails_as_it_says(capsys):
    assert check_vectors.main() == 0, capsys.readouterr().out
