"""Archives: manifests of any length, scored by many processes and machines, into Parquet."""
