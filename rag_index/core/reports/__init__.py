"""The reports of a run: `progress` shows how far it is and records what it does, `metrics` measures
its stages and names the bottleneck, `outcome` has its counts and sentences."""
