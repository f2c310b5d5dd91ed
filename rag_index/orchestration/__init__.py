"""All that needs Prefect or Dask and is neither a flow nor a task."""
