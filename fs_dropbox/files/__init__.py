"""File objects, read in blocks and written as streams. They know no paths of others."""
