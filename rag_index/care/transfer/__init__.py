"""Moving, copying and exporting indexes."""
