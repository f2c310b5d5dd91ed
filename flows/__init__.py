"""Flows: what runs, in which order. Nothing but the flow is in a flow file."""
