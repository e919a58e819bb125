"""One file per command: options in, one library call, a table or JSON out."""
