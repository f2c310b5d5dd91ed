"""The pool of Ollama servers that embedding and contexts share."""
