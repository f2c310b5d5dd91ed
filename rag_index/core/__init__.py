"""What all wings mean by a document, a key, a vector; settings, the machine, databases, and what a
run reports."""
