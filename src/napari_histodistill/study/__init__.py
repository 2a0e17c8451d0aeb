"""The study folder on disk: layout, versions, atomic writes."""
