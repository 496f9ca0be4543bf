"""What is left of an analysis for people: the page, the index, the table, the annotated video."""
