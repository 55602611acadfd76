"""Files that hold text in records: recognised by their content, and read as JSON lines, whatever they are."""
