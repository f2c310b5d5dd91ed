"""The pool of Ollama servers, used for embedding and for writing contexts."""
