"""What source, ledger and caches share: databases by their drivers, and files that are replaced as a whole."""
