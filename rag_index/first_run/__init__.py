"""The first minute: what `init` proposes for a database, and the samples of the tutorial."""
