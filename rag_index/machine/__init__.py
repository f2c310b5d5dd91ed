"""Facts about this machine: processors, memory, and how often Python collects garbage."""
