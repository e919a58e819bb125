"""A misspelt name is answered with the one that was meant, whatever it is the name of."""

from mpsearch.errors import did_you_mean


def test_the_nearest_word_is_named_and_nothing_where_none_is_near() -> None:
    words = ["conv1", "Conv2", "head"]
    assert did_you_mean("convv1", words) == "; did you mean 'conv1'?"
    assert did_you_mean("CONV2x", words) == "; did you mean 'Conv2'?"
    assert did_you_mean("zzz", words) == did_you_mean("conv1", []) == ""
    assert did_you_mean("conv1" * 10**6, words) == did_you_mean("c", ["c" * 10**6]) == ""
