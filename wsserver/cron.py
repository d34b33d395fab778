"""Times of a cron expression, in UTC. What happens at them is the caller's."""

from datetime import datetime

from cronsim import CronSim, CronSimError


def next_time(expression: str, after: datetime) -> datetime:
    """The first time after that one, which is in UTC. Raises ValueError for what is none, or never comes."""
    if len(expression.split()) != 5:  # cronsim takes a sixth, of seconds
        raise ValueError(f"{expression!r} is no cron expression of five fields")
    try:
        return next(CronSim(expression, after))
    except CronSimError as error:
        raise ValueError(f"{expression!r} is no cron expression: {error}") from error
    except StopIteration:
        raise ValueError(f"{expression!r} is a time that never comes") from None
