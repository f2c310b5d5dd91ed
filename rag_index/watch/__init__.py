"""The long-running watch of sources: each batch of changes is indexed in the ordinary way."""
