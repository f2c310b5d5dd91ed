"""What tests of single commands share with those of a watch."""

from tests.watch.following import embed_here

__all__ = ["embed_here"]
