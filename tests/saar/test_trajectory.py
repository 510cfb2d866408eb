"""The splice keeps the four sequences aligned, whatever is spliced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaner.errors import AlignmentError
from cleaner.saar.trajectory import Origin, Piece, Trajectory

tokens = st.lists(st.integers(0, 50), max_size=6)
origins = st.sampled_from(list(Origin))


def piece(ids, origin, logprobs):
    given = [-0.5 * token for token in ids] if logprobs and origin != Origin.OBSERVATION else None
    return Piece(ids, origin, given)


def check(trajectory, reference, logprobs):
    """`reference`: list of (id, origin), edited by plain slicing."""
    assert trajectory.ids == [token for token, _ in reference]
    assert trajectory.origin == [int(origin) for _, origin in reference]
    trained = (Origin.SAMPLED, Origin.GRAFTED)
    assert trajectory.mask == [int(origin in trained) for _, origin in reference]
    if logprobs and any(trajectory.mask):
        assert trajectory.logprobs == [-0.5 * t if o != Origin.OBSERVATION else 0.0 for t, o in reference]
    elif not logprobs:
        assert trajectory.logprobs is None


@given(
    logprobs=st.booleans(),
    edits=st.lists(
        st.tuples(st.lists(st.tuples(tokens, origins), max_size=3), st.floats(0, 1), st.floats(0, 1))
    ),
)
def test_any_splices_equal_slicing_a_list_of_tokens(logprobs, edits):
    trajectory, reference = Trajectory(), []
    for pieces, a, b in edits:
        start, stop = sorted((int(a * len(reference)), int(b * len(reference))))
        trajectory.splice(start, stop, [piece(ids, origin, logprobs) for ids, origin in pieces])
        reference[start:stop] = [(token, origin) for ids, origin in pieces for token in ids]
        check(trajectory, reference, logprobs)


@given(
    parts=st.lists(st.tuples(tokens, st.booleans()), max_size=6),
    logprobs=st.booleans(),
    trim=st.integers(0, 3),
    more=st.tuples(tokens, st.booleans()),
)
def test_adopt_follows_appended_and_trimmed_tokens(parts, logprobs, trim, more):
    def sequences(parts):
        ids = [token for part, _ in parts for token in part]
        mask = [int(model) for part, model in parts for _ in part]
        return ids, mask, [-0.5 * t * m for t, m in zip(ids, mask, strict=True)] if logprobs else []

    trajectory = Trajectory()
    for count in range(len(parts) + 1):
        trajectory.adopt(*sequences(parts[:count]))
    ids, mask, values = sequences(parts)
    cut = max(0, len(ids) - trim)
    more_ids, more_mask, more_values = sequences([more])
    trajectory.adopt(ids[:cut] + more_ids, mask[:cut] + more_mask, values[:cut] + more_values)
    assert trajectory.ids == ids[:cut] + more_ids
    assert trajectory.mask == mask[:cut] + more_mask == [int(o == Origin.SAMPLED) for o in trajectory.origin]
    assert trajectory.logprobs is None or trajectory.logprobs == values[:cut] + more_values


def test_adopt_keeps_the_origin_of_what_is_there():
    trajectory = Trajectory()
    trajectory.splice(0, 0, [Piece([1, 2], Origin.SAMPLED), Piece([3], Origin.GRAFTED)])
    trajectory.adopt([1, 2, 3, 4, 5], [1, 1, 1, 0, 1], [])
    assert trajectory.origin == [1, 1, 2, 0, 1]


def test_an_impossible_edit_is_refused_and_changes_nothing():
    trajectory = Trajectory()
    trajectory.splice(0, 0, [Piece([1], Origin.SAMPLED, [-1.0])])
    for edit in (
        lambda: trajectory.splice(0, 2, []),
        lambda: trajectory.splice(1, 0, []),
        lambda: trajectory.splice(1, 1, [Piece([2], Origin.SAMPLED)]),
        lambda: trajectory.adopt([1, 2], [1], []),
        lambda: Piece([1, 2], Origin.SAMPLED, [-1.0]),
    ):
        with pytest.raises(AlignmentError):
            edit()
    assert (trajectory.ids, trajectory.mask, trajectory.logprobs, trajectory.origin) == (
        [1],
        [1],
        [-1.0],
        [1],
    )
