"""Queue-ids sort by time and tell it."""

import pytest

from relay.model.ids import accepted_at, is_queue_id, new_queue_id, split_recipient_id


def test_queue_id_sorts_by_its_time() -> None:
    ids = [new_queue_id(now) for now in (1_000.001, 1_000.002, 2_000_000_000.0)]
    assert ids == sorted(ids)


def test_queue_id_tells_when_it_was_made() -> None:
    assert accepted_at(new_queue_id(1_795_237_000.123)) == 1_795_237_000.123


def test_queue_ids_of_one_moment_differ() -> None:
    ids = {new_queue_id(1.0) for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(map(is_queue_id, ids))


def test_recipient_id_without_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a recipient-id"):
        split_recipient_id(new_queue_id())
