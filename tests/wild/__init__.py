"""Sample databases in the way of those that exist, with what their users ask, and what nobody may
be shown."""
