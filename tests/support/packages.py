"""Where Debian's packages cannot be fetched: a failure in CI, elsewhere a test less."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from bench.debian import PackagesUnavailable


@contextlib.contextmanager
def fetched_packages() -> Iterator[None]:
    """For what unpacks packages: skips the test with the reason, or fails it with it in CI."""
    try:
        yield
    except PackagesUnavailable as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
