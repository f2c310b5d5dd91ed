"""What `status`, `failed`, `report`, `plan` and `config` print."""
