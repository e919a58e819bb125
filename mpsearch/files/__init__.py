"""Files that anybody may have written, read within bounds; files written in one step."""
