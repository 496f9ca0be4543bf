"""The service: uploads by HTTP become jobs, which processes of their own do."""
