"""What an evaluation shows: chapters, tables, figures, the page."""
