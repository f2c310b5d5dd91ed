"""What `status`, `failed`, `report`, `plan` and `config` print, and the metrics file."""
