"""Dock widgets: thin Qt over Qt-free controllers."""
