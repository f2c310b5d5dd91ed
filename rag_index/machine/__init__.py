"""What this machine has: processors, memory, and how Python collects garbage."""
