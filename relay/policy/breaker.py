"""How long the breaker of a site, host, domain or provider stays open before one probe."""

#: OpenSMTPD's route penalty: 15 s · n², there at most 1 h; mail that can flow again soon should.
BASE_S = 15.0
CEILING_S = 15 * 60.0


def open_for_s(failures: int) -> float:
    """Seconds to stay open after the n-th opening in a row: 15, 60, 135 … 900; 0 before any."""
    if failures <= 0:
        return 0.0
    return min(BASE_S * min(failures, 1000) ** 2, CEILING_S)
