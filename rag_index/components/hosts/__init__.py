"""The pool of servers, used for embedding and for writing contexts, and the protocols that they
speak."""
