"""Payments by card."""

import time


class CardRefused(Exception):
    """The bank does not pay."""


def pay_with_retries(pay, amount, attempts=4, first_pause=0.5):
    """Pay, and after each failed attempt wait twice as long as before."""
    for attempt in range(attempts):
        try:
            return pay(amount)
        except ConnectionError:
            time.sleep(first_pause * 2**attempt)
    raise CardRefused(f"no payment of {amount} after {attempts} attempts")
