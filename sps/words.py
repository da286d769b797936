"""Numbers as a person reads them."""


def signed(share: float) -> str:
    """A share as points of a hundred with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def amount(number: float) -> str:
    """1,234,567 as 1.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Seconds in the largest units that matter."""
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.1f} s"
